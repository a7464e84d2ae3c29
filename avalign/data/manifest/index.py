"""Where each record of a .jsonl file begins, and what it is of.

Made once, when every line is read and checked, and saved in the cache.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avalign.data.manifest.lines import TOO_LONG, lines_of
from avalign.data.manifest.record import VERSION, from_json
from avalign.data.manifest.segments import state_of
from avalign.errors import AvalignError
from avalign.system.atomic_write import unfinished
from avalign.system.cache import cache_folder, saving
from avalign.system.processes import shared_map
from avalign.types import SPLITS, TASKS

LAYOUT = 2  # of the index; raised when it changes
COLUMNS = np.dtype([("begin", "<u8"), ("id", "<u8"), ("source", "<u2"), ("split", "u1"), ("task", "u1")])
TOLD = 100_000  # records, after which progress is told
SEGMENT = 16 << 20  # bytes that one process reads at a time

Progress = Callable[[Path, int], None]


@dataclass
class Index:
    """rows: (n,) of COLUMNS: byte where a line begins, hash of its id, indices into sources, SPLITS, TASKS"""

    rows: np.ndarray
    sources: list[str]


@dataclass
class _Segment(Index):
    lines: int  # blank ones too
    wrong: tuple[int, str] | None = None  # the first line that is no record, counted from 1, and why


def index_of(files: Sequence[Path], progress: Progress, workers: int = 1) -> list[Index]:
    """The index of each file; from the cache if it was made before. AvalignError names a line that is wrong.

    workers: processes that read, if there is much to read
    """
    lacking = [file for file in files if not cached_path(file, ".npz").is_file()]
    segments = [
        (file, begin, begin + SEGMENT) for file in lacking for begin in range(0, file.stat().st_size, SEGMENT)
    ]
    if min(workers, len(segments)) > 1:
        with closing(shared_map(_read, segments, min(workers, len(segments)))) as read:
            _save(lacking, read, progress)
    else:
        _save(lacking, map(_read, segments), progress)
    return [_loaded(file) for file in files]


def cached_path(file: Path, ending: str) -> Path:
    """Where the cache has what is made of a file as it now is."""
    name = f"{file.resolve()} {state_of(file)} {VERSION} {LAYOUT}"
    return (
        cache_folder() / "manifests" / (hashlib.blake2b(name.encode(), digest_size=16).hexdigest() + ending)
    )


def hash_of(identity: str) -> int:
    """64 bits that stand for the id of a record."""
    return int.from_bytes(hashlib.blake2b(identity.encode(), digest_size=8).digest(), "little")


def _save(files: Sequence[Path], read: Iterator[_Segment], progress: Progress) -> None:
    for file in files:
        before = state_of(file)
        parts: list[np.ndarray] = []
        sources: dict[str, int] = {}
        lines = count = 0
        for _ in range(0, before[0], SEGMENT):
            segment = next(read)
            if segment.wrong is not None:
                raise AvalignError(f"{file}:{lines + segment.wrong[0]}: {segment.wrong[1]}")
            indices = [sources.setdefault(name, len(sources)) for name in segment.sources]
            if len(sources) > np.iinfo(np.uint16).max:
                raise AvalignError(f"{file}: has more than 65,535 different sources")
            segment.rows["source"] = np.array(indices, np.uint16)[segment.rows["source"]]
            parts.append(segment.rows)
            lines += segment.lines
            count += len(segment.rows)
            if count // TOLD > (count - len(segment.rows)) // TOLD:
                progress(file, count)
        if not count:
            raise AvalignError(f"{file}: holds no record")
        if state_of(file) != before:
            raise AvalignError(f"{file}: was changed while it was read")
        path = cached_path(file, ".npz")
        with saving(path), unfinished(path) as beside, open(beside, "wb") as opened:
            np.savez(opened, rows=np.concatenate(parts), sources=np.array(list(sources)))


def _loaded(file: Path) -> Index:
    with np.load(cached_path(file, ".npz")) as found:
        return Index(found["rows"], found["sources"].tolist())


def _read(segment: tuple[Path, int, int]) -> _Segment:
    """The records whose lines begin within a segment of a file."""
    file, begin, end = segment
    rows: list[tuple[int, int, int, int, int]] = []
    sources: dict[str, int] = {}
    lines, wrong = 0, None
    with open(file, "rb") as opened:
        for offset, line in lines_of(opened, begin, end):
            lines += 1
            if line is not None and line.isspace():
                continue
            try:
                if line is None:
                    raise AvalignError(TOO_LONG)
                record = from_json(line)
                hashed = hash_of(record.id)
            except (AvalignError, UnicodeEncodeError) as error:
                wrong = lines, str(error)
                break
            source = sources.setdefault(record.source, len(sources))
            rows.append((offset, hashed, source, SPLITS.index(record.split), TASKS.index(record.task)))
    return _Segment(np.array(rows, COLUMNS), list(sources), lines, wrong)
