"""Where each record of a .jsonl file begins, and what it is of.

Made once, when every line is read and checked, and kept in the cache.
"""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avalign.batch import TASKS
from avalign.cache import cache_folder
from avalign.data.manifest.record import SPLITS, VERSION, from_json
from avalign.data.manifest.stretches import state_of
from avalign.errors import AvalignError
from avalign.whole import unfinished

LAYOUT = 2  # of the index; raised when it changes
COLUMNS = np.dtype([("begin", "<u8"), ("id", "<u8"), ("source", "<u2"), ("split", "u1"), ("task", "u1")])
TOLD = 100_000  # records, after which progress is told
STRETCH = 16 << 20  # bytes that one process reads at a time

Progress = Callable[[Path, int], None]


@dataclass
class Index:
    """rows: (n,) of COLUMNS: byte at which a line begins, hash of its id, places in sources, SPLITS, TASKS"""

    rows: np.ndarray
    sources: list[str]


@dataclass
class _Stretch(Index):
    lines: int  # blank ones too
    wrong: tuple[int, str] | None = None  # the first line that is no record, counted from 1, and why


def index_of(files: Sequence[Path], progress: Progress, workers: int = 1) -> list[Index]:
    """The index of each file; from the cache if it was made before. AvalignError names a line that is wrong.

    workers: processes that read, if there is much to read
    """
    lacking = [file for file in files if not kept(file, ".npz").is_file()]
    stretches = [(file, begin) for file in lacking for begin in range(0, file.stat().st_size, STRETCH)]
    if min(workers, len(stretches)) > 1:
        # forked where that exists, so that a script without a __main__ guard can do this too
        method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
        pool = ProcessPoolExecutor(min(workers, len(stretches)), multiprocessing.get_context(method))
        try:
            _keep(lacking, pool.map(_read, stretches), progress)
        finally:
            pool.shutdown(cancel_futures=True)
    else:
        _keep(lacking, map(_read, stretches), progress)
    return [_loaded(file) for file in files]


def kept(file: Path, ending: str) -> Path:
    """Where the cache keeps what is made of a file as it now is."""
    name = f"{file.resolve()} {state_of(file)} {VERSION} {LAYOUT}"
    return (
        cache_folder() / "manifests" / (hashlib.blake2b(name.encode(), digest_size=16).hexdigest() + ending)
    )


def hash_of(identity: str) -> int:
    """64 bits that stand for the id of a record."""
    return int.from_bytes(hashlib.blake2b(identity.encode(), digest_size=8).digest(), "little")


def _keep(files: Sequence[Path], read: Iterator[_Stretch], progress: Progress) -> None:
    for file in files:
        before = state_of(file)
        parts: list[np.ndarray] = []
        sources: dict[str, int] = {}
        lines = count = 0
        for _ in range(0, before[0], STRETCH):
            stretch = next(read)
            if stretch.wrong is not None:
                raise AvalignError(f"{file}:{lines + stretch.wrong[0]}: {stretch.wrong[1]}")
            places = [sources.setdefault(name, len(sources)) for name in stretch.sources]
            if len(sources) > np.iinfo(np.uint16).max:
                raise AvalignError(f"{file}: has more than 65,535 different sources")
            stretch.rows["source"] = np.array(places, np.uint16)[stretch.rows["source"]]
            parts.append(stretch.rows)
            lines += stretch.lines
            count += len(stretch.rows)
            if count // TOLD > (count - len(stretch.rows)) // TOLD:
                progress(file, count)
        if not count:
            raise AvalignError(f"{file}: holds no record")
        if state_of(file) != before:
            raise AvalignError(f"{file}: was changed while it was read")
        with unfinished(kept(file, ".npz")) as beside, open(beside, "wb") as opened:
            np.savez(opened, rows=np.concatenate(parts), sources=np.array(list(sources)))


def _loaded(file: Path) -> Index:
    with np.load(kept(file, ".npz")) as found:
        return Index(found["rows"], found["sources"].tolist())


def _read(stretch: tuple[Path, int]) -> _Stretch:
    """The records whose lines begin within a stretch of a file."""
    file, begin = stretch
    end = begin + STRETCH
    rows: list[tuple[int, int, int, int, int]] = []
    sources: dict[str, int] = {}
    lines, wrong = 0, None
    with open(file, "rb") as opened:
        if begin:  # on to the first line that begins here
            opened.seek(begin - 1)
            begin += len(opened.readline()) - 1
        for line in opened:
            if begin >= end:
                break
            lines += 1
            if not line.isspace():
                try:
                    record = from_json(line)
                    hashed = hash_of(record.id)
                except (AvalignError, UnicodeEncodeError) as error:
                    wrong = lines, str(error)
                    break
                source = sources.setdefault(record.source, len(sources))
                rows.append((begin, hashed, source, SPLITS.index(record.split), TASKS.index(record.task)))
            begin += len(line)
    return _Stretch(np.array(rows, COLUMNS), list(sources), lines, wrong)
