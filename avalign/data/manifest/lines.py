"""The lines of a part of a manifest's file, none of them held that is too long to be a record."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

LONGEST = 4 << 20  # bytes of a line; what is longer is no record
TOO_LONG = f"is longer than {LONGEST >> 20} MiB"
_STEP = 1 << 20  # bytes of a longer one that are passed over at a time


def lines_of(opened: BinaryIO, begin: int, end: int) -> Iterator[tuple[int, bytes | None]]:
    """Where each line begins that begins in begin..end, and the line; None for one that is too long."""
    if begin:  # on to the first line that begins here
        opened.seek(begin - 1)
        _pass_over(opened)
    while (begin := opened.tell()) < end and (line := opened.readline(LONGEST)):
        complete = line.endswith(b"\n") or len(line) < LONGEST
        if not complete:
            _pass_over(opened)
        yield begin, line if complete else None


def _pass_over(opened: BinaryIO) -> None:
    while (rest := opened.readline(_STEP)) and not rest.endswith(b"\n"):
        pass
