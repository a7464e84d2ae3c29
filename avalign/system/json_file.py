"""Small files of JSON, config.json and versions.json and their like, and the lines of larger ones."""

from __future__ import annotations

import json
from collections.abc import Callable
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


class _Twice(ValueError):
    pass


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Twice(f"says {twice!r:.80} twice")
    return found


def read_line(line: bytes | str, constant: Callable[[str], Any] | None = None) -> dict[str, Any]:
    """The object of a line, whose strings can all be written again. A ValueError says why it is none.

    constant: makes a number of NaN, Infinity and -Infinity, or raises a ValueError; by default a float
    """
    try:
        found = json.loads(line, parse_constant=constant, object_pairs_hook=_each_once)
    except _Twice:
        raise
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 text: byte {error.start} cannot be read") from error
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"is not a JSON object but a {type(found).__name__}")
    if (b"\\u" if isinstance(line, bytes) else "\\u") in line:  # type: ignore[operator]
        try:
            json.dumps(found, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError("holds half of a surrogate pair, which is no text") from error
        except RecursionError as error:  # it may come a level or two sooner than as it was read
            raise ValueError("is nested too deeply") from error
    return found
