"""Annotation files as rows, each with its location; what cannot be read is named."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from avalign.errors import AvalignError

LIMIT = 1 << 20  # characters of one field; more is no annotation


def text_of(file: Path) -> str:
    """The whole file as UTF-8, without a byte order mark. AvalignError names what is missing or no text."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise AvalignError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise AvalignError(f"{file}: is not UTF-8 text: byte {error.start} cannot be read") from error


def rows_of(
    file: Path, *, delimiter: str = ",", comment: str | None = None, blank_after_delimiter: bool = False
) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of every row that is not blank, read as the file is gone through.

    comment: rows that begin with it are left out
    """
    try:
        with open(file, encoding="utf-8-sig", newline="") as opened:
            csv.field_size_limit(LIMIT)
            reader = csv.reader(
                opened, delimiter=delimiter, skipinitialspace=blank_after_delimiter, strict=True
            )
            for row in reader:
                if row and not (comment and row[0].startswith(comment)):
                    yield reader.line_num, row
    except OSError as error:
        raise AvalignError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise AvalignError(
            f"{file}: is not UTF-8 text after line {reader.line_num}: {error.reason}"
        ) from error
    except csv.Error as error:
        raise AvalignError(f"{file}:{reader.line_num}: {error}") from error


def named_rows_of(
    file: Path, columns: Sequence[str], *, delimiter: str = ","
) -> Iterator[tuple[int, Mapping[str, str]]]:
    """As `rows_of`, for a file whose first row names its columns: those asked for, by name.

    A row of another length than the header comes as an empty mapping, for the caller to refuse.
    """
    rows = rows_of(file, delimiter=delimiter)
    _, header = next(rows, (0, []))
    lacking = [name for name in columns if name not in header]
    if lacking:
        raise AvalignError(
            f"{file}: has no column {', '.join(lacking)}; its first line is {','.join(header)[:200]!r}"
        )
    indices = {name: header.index(name) for name in columns}
    for number, row in rows:
        fits = len(row) == len(header)
        yield number, {name: row[index] for name, index in indices.items()} if fits else {}
