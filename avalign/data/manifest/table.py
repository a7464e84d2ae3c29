"""A manifest's files as one table: the lines stay on disk, an index of where each begins is held in memory.

The index (13 bytes a record) is made once, when every line is read and checked, and kept in the cache.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from avalign.batch import TASKS
from avalign.cache import cache_folder
from avalign.data.manifest.record import SPLITS, VERSION, Record, from_json
from avalign.errors import AvalignError
from avalign.whole import unfinished

ENDINGS = (".jsonl", ".parquet")
COLUMNS = np.dtype([("begin", "<u8"), ("id", "<u8"), ("split", "u1"), ("task", "u1")])

Progress = Callable[[Path, int], None]


class Table:
    """The records of a manifest by number, in the order of its files and lines.

    root:     folder of .jsonl or .parquet files, or one such file
    progress: called with a file and the records read of it so far, while an index is made

    Arrays: split, task (n,) uint8, places in SPLITS and TASKS
    """

    def __init__(self, root: Path, progress: Progress = lambda file, count: None) -> None:
        self.root = root
        self._maps: dict[int, mmap.mmap] = {}
        self._files = [_as_lines(file) for file in files_of(root)]
        indexes = [_index(file, progress) for file in self._files]
        self._first = np.cumsum([0, *map(len, indexes)])
        index = np.concatenate(indexes)
        self.split, self.task, self._begin = (index[name].copy() for name in ("split", "task", "begin"))
        self._refuse_repeated(index["id"])

    def _refuse_repeated(self, hashes: np.ndarray) -> None:
        order = np.argsort(hashes, kind="stable")
        for place in np.flatnonzero(hashes[order][1:] == hashes[order][:-1]):
            one, two = self[order[place]].id, self[order[place + 1]].id
            if one == two:  # and not just of one hash
                raise AvalignError(f"{self.root}: two records have the id {one!r}")

    def __len__(self) -> int:
        return len(self._begin)

    def line(self, number: int) -> bytes:
        """The line of record `number`, as it stands in its file."""
        file = int(np.searchsorted(self._first, number, "right")) - 1
        if file not in self._maps:
            with open(self._files[file], "rb") as opened:
                self._maps[file] = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        begin = int(self._begin[number])
        lines = self._maps[file]
        end = lines.find(b"\n", begin)
        return lines[begin : len(lines) if end < 0 else end]

    def __getitem__(self, number: int) -> Record:
        return from_json(self.line(number))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_maps": {}}  # every loader process opens its own


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
        raise AvalignError(f"{root}: holds .jsonl and .parquet files; name the one that is the manifest")
    return found


def _index(file: Path, progress: Progress) -> np.ndarray:
    """Where each record of a .jsonl file begins, its split and task, and a hash of its id. (n,) of COLUMNS"""
    kept = _kept(file, ".npy")
    if not kept.is_file():
        rows = np.fromiter(_rows(file, progress), COLUMNS)
        if not len(rows):
            raise AvalignError(f"{file}: holds no record")
        with unfinished(kept) as beside, open(beside, "wb") as opened:
            np.save(opened, rows)
    index: np.ndarray = np.load(kept)
    return index


def _rows(file: Path, progress: Progress) -> Iterator[tuple[int, int, int, int]]:
    begin = count = 0
    with open(file, "rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.isspace():
                try:
                    record = from_json(line)
                except AvalignError as error:
                    raise AvalignError(f"{file}:{number}: {error}") from error
                hashed = int.from_bytes(hashlib.blake2b(record.id.encode(), digest_size=8).digest(), "little")
                yield begin, hashed, SPLITS.index(record.split), TASKS.index(record.task)
                count += 1
                if count % 100_000 == 0:
                    progress(file, count)
            begin += len(line)


def _as_lines(file: Path) -> Path:
    """The same records as .jsonl: the file itself, or what the cache keeps of a Parquet file."""
    if file.suffix == ".jsonl":
        return file
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise AvalignError(
            f"{file}: reading Parquet needs the package pyarrow: pip install pyarrow"
        ) from None
    kept = _kept(file, ".jsonl")
    if not kept.is_file():
        try:
            with unfinished(kept) as beside, open(beside, "w", encoding="utf-8") as lines:
                for rows in pyarrow.parquet.ParquetFile(file).iter_batches(10_000):
                    for row in rows.to_pylist():
                        lines.write(json.dumps(_without_nulls(row), ensure_ascii=False) + "\n")
        except pa.ArrowException as error:
            raise AvalignError(f"{file}: is not a Parquet file: {error}") from error
    return kept


def _without_nulls(row: dict[str, Any]) -> dict[str, Any]:
    """A row of columns as a line has it: without what is null, in its slots too."""
    full = {name: value for name, value in row.items() if value is not None}
    if isinstance(full.get("slots"), dict):
        full["slots"] = {name: value for name, value in full["slots"].items() if value is not None}
    return full


def _kept(file: Path, ending: str) -> Path:
    """Where the cache keeps what is made of a file as it now is."""
    state = file.stat()
    name = f"{file.resolve()} {state.st_size} {state.st_mtime_ns} {VERSION}"
    return (
        cache_folder() / "manifests" / (hashlib.blake2b(name.encode(), digest_size=16).hexdigest() + ending)
    )
