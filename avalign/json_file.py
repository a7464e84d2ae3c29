"""Small files of JSON: config.json, versions.json and their like."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from avalign.errors import AvalignError


def read_json(file: Path, kind: type = dict) -> Any:
    """The file's one value, of `kind` (dict or list). AvalignError names what is missing or is none."""
    try:
        found = json.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise AvalignError(f"{file}: no such file") from None
    except OSError as error:
        raise AvalignError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise AvalignError(f"{file}: is not UTF-8 text: byte {error.start} cannot be read") from error
    except (ValueError, RecursionError) as error:
        raise AvalignError(f"{file}: is not JSON: {error}") from error
    if not isinstance(found, kind):
        raise AvalignError(f"{file}: holds a {type(found).__name__}, not a {kind.__name__}")
    return found


def json_if_there(file: Path) -> dict[str, Any] | None:
    """The fields of a file that may be missing: then None."""
    return dict(read_json(file)) if file.is_file() else None
