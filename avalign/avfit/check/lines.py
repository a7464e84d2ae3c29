"""A manifest's lines, gone through in pieces that processes share: what is wrong, and what is to be compared.

A piece is a segment of bytes; the lines that begin in it belong to it. What must be compared over the whole
manifest comes back as arrays of a few dozen bytes a record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from avalign.avfit.check.record import answer_of, origins_of, problems_of
from avalign.data.manifest.lines import TOO_LONG, lines_of
from avalign.data.manifest.phrasings import Phrasings
from avalign.data.manifest.record import Record, from_json
from avalign.errors import AvalignError
from avalign.types import SPLITS, TASKS

PIECE = 4 << 20  # bytes
IMAGE, VIDEO, AUDIO = range(3)

ROWS = np.dtype(  # answer: a hash, 0 for none
    [
        ("begin", "<u8"),
        ("id", "<u8"),
        ("answer", "<u8"),
        ("line", "<u4"),
        ("file", "<u2"),
        ("task", "u1"),
        ("split", "u1"),
    ]
)
# start, end: the span, in seconds, NaN where not given; of a video start is the first frame time
# last: the last frame time or interval's end, or NaN
USES = np.dtype(
    [("name", "<u8"), ("row", "<u4"), ("kind", "u1"), ("start", "<f4"), ("end", "<f4"), ("last", "<f4")]
)
ORIGINS = np.dtype([("name", "<u8"), ("row", "<u4")])
NAN = float("nan")


@dataclass(frozen=True, slots=True)
class Piece:
    file: int  # its index among the manifest's files
    path: Path
    begin: int
    end: int
    phrasings: Path | None = None  # the folder whose phrasings add to those shipped


@dataclass(slots=True)
class Read:
    """What a piece holds. Lines are counted from 1 at its begin, rows from 0."""

    file: int
    lines: int = 0
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    uses: list[tuple[Any, ...]] = field(default_factory=list)
    origins: list[tuple[int, int]] = field(default_factory=list)
    wrong: list[tuple[str, int, str, str]] = field(default_factory=list)  # code, line, record, detail


@dataclass(frozen=True, slots=True)
class Columns:
    """`Read` as arrays: rows, uses and origins of the dtypes above."""

    file: int
    lines: int
    rows: np.ndarray
    uses: np.ndarray
    origins: np.ndarray
    wrong: list[tuple[str, int, str, str]]


def pieces_of(files: list[Path], phrasings: Path) -> Iterator[Piece]:
    for number, path in enumerate(files):
        size = path.stat().st_size
        for begin in range(0, size, PIECE):
            yield Piece(number, path, begin, min(begin + PIECE, size), phrasings)


def read_piece(piece: Piece) -> Columns:
    read, phrasings = Read(piece.file), _phrasings(piece.phrasings)
    with open(piece.path, "rb") as opened:
        for begin, line in lines_of(opened, piece.begin, piece.end):
            read.lines += 1
            if line is None:
                read.wrong.append(("line is no record", read.lines, "", TOO_LONG))
            elif not line.isspace():
                _take(line, begin, read, phrasings)
    return Columns(
        piece.file,
        read.lines,
        np.array(read.rows, ROWS),
        np.array(read.uses, USES),
        np.array(read.origins, ORIGINS),
        read.wrong,
    )


@lru_cache(maxsize=1)
def _phrasings(folder: Path | None) -> Phrasings:
    return Phrasings(folder)


def _take(line: bytes, begin: int, read: Read, phrasings: Phrasings) -> None:
    try:
        record = from_json(line)
    except AvalignError as error:
        read.wrong.append(("line is no record", read.lines, "", str(error)))
        return
    row = len(read.rows)
    read.wrong += [(code, read.lines, record.id, detail) for code, detail in problems_of(record, phrasings)]
    read.uses += [(hashed(name), row, *use) for name, *use in uses_of(record)]
    read.origins += [(hashed(origin), row) for origin in origins_of(record)]
    answer = answer_of(record)
    read.rows.append(
        (
            begin,
            hashed(record.id),
            hashed(answer) if answer else 0,
            read.lines,
            read.file,
            TASKS.index(record.task),
            SPLITS.index(record.split),
        )
    )


def uses_of(record: Record) -> Iterator[tuple[str, int, float, float, float]]:
    """Each medium of a record: its path, its kind, and start, end and last as in USES."""
    if record.image is not None:
        kind = VIDEO if record.frame_times else IMAGE
        first, last = (f(record.frame_times, default=None) for f in (min, max))
        yield record.image, kind, _time(first), NAN, _time(last)
    if record.audio is not None:
        intervals = record.intervals if record.audio_end is None else ()  # else held against the span alone
        last = max((end for _, end in intervals), default=None)
        yield record.audio, AUDIO, _time(record.audio_start), _time(record.audio_end), _time(last)


def _time(seconds: float | None) -> float:
    """As 32 bits hold it: microseconds within 10 s, 0.3 ms within an hour."""
    return NAN if seconds is None else min(max(float(seconds), -1e30), 1e30)


def hashed(text: str) -> int:
    """64 bits of a text: two of millions are alike once in a million manifests."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
