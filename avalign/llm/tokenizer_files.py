"""A tokenizer out of a folder or a hub; what is wrong with one on this disk is said by the file's name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from avalign.errors import AvalignError
from avalign.system.json_file import json_if_there, read_json

MADE_OF, TOLD_IN = "tokenizer.json", ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


def saved_tokenizer(folder: Path) -> Any:
    """The one that a run or an export keeps."""
    if not folder.is_dir():
        raise AvalignError(f"{folder}: no such folder, where the tokenizer should lie")
    read_json(folder / MADE_OF)
    try:
        return tokenizer_of(folder, local_files_only=True)
    except AvalignError:
        raise
    except Exception as error:  # the library raises that very class for a tokenizer.json cut short
        raise AvalignError(f"{folder}: could not be loaded as a tokenizer: {first_line(error)}") from error


def tokenizer_of(name_or_folder: str | Path, **options: Any) -> Any:
    """As transformers loads it from a folder or a hub id, with its errors; AvalignError names a bad file."""
    from transformers import AutoTokenizer

    folder = Path(name_or_folder)
    told = json_if_there(folder / MADE_OF)
    if told is not None and not isinstance(told.get("model"), dict):
        raise AvalignError(f"{folder / MADE_OF}: is not of a tokenizer: it holds no `model`")
    for name in TOLD_IN:
        json_if_there(folder / name)
    return AutoTokenizer.from_pretrained(name_or_folder, trust_remote_code=False, **options)


def first_line(error: BaseException) -> str:
    """Of what a library says, which may be nothing."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__).strip()
