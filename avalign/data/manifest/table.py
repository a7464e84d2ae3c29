"""A manifest's files as one table on disk: memory-mapped Arrow, whatever its size."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from avalign.data.manifest.record import Record
from avalign.errors import AvalignError, suggest

ENDINGS = (".jsonl", ".parquet")


def files_of(root: Path) -> list[Path]:
    """The manifest files of a folder, in the order of their names; or the one file that `root` is."""
    if root.is_file():
        found = [root]
    elif root.is_dir():
        found = sorted(f for f in root.iterdir() if f.suffix in ENDINGS and not f.name.startswith("."))
    else:
        raise AvalignError(f"{root}: no such manifest: neither a folder nor a file")
    endings = {file.suffix for file in found}
    if not found or not endings <= set(ENDINGS):
        raise AvalignError(f"{root}: holds no manifest: a .jsonl or .parquet file is needed")
    if len(endings) > 1:
        raise AvalignError(
            f"{root}: holds .jsonl and .parquet files; which are the manifest? Name one, or part them"
        )
    return found


def columns() -> Any:
    """Every column of a manifest with its type, as `datasets` names them."""
    from datasets import Features, List, Value

    text, number = Value("string"), Value("float64")
    types = {"version": Value("int32")}
    types |= dict.fromkeys(("frame_time", "audio_start", "audio_end"), number)
    types |= {"references": List(text), "boxes": List(List(number)), "intervals": List(List(number))}
    return Features({field.name: types.get(field.name, text) for field in fields(Record)})


def open_table(root: Path) -> Any:
    """All records of the manifest's files as a `datasets.Dataset`, mapped into memory, not read into it.

    JSONL and Parquet are turned into Arrow once and found again in the cache of `datasets`
    (HF_DATASETS_CACHE). Columns that a record does not have are an error; those it leaves out are empty.
    """
    import datasets

    files = files_of(root)
    expected = columns()
    _refuse_unknown(files[0], set(expected))
    quiet = datasets.utils.logging.get_verbosity()
    datasets.utils.logging.set_verbosity_error()
    bars = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        kind = "json" if files[0].suffix == ".jsonl" else "parquet"
        return datasets.load_dataset(
            kind, data_files=[str(f) for f in files], features=expected, split="train"
        )
    except datasets.exceptions.DatasetGenerationError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        why = " ".join(str(cause).split())
        raise AvalignError(f"{root}: is not a manifest of version 1: {why[:300]}") from error
    finally:
        datasets.utils.logging.set_verbosity(quiet)
        if not bars:
            datasets.enable_progress_bars()


def _refuse_unknown(file: Path, known: set[str]) -> None:
    """AvalignError for a first record with a field that no record has: misspelt, or of another format."""
    if file.suffix == ".parquet":
        import pyarrow.parquet

        names = list(pyarrow.parquet.read_schema(file).names)
    else:
        import json

        with open(file, encoding="utf-8") as lines:
            first = next((line for line in lines if line.strip()), "")
        try:
            names = list(json.loads(first)) if first else []
        except ValueError as error:
            raise AvalignError(f"{file}:1: is not JSON: {error}") from error
    if not names:
        raise AvalignError(f"{file}: holds no record")
    for name in names:
        if name not in known:
            raise AvalignError(f"{file}: a record has no field {name!r}.{suggest(name, known)}")
