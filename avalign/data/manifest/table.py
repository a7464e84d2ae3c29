"""A manifest's files as one table: the lines stay on disk, an index of where each begins is held in memory.

The index (20 bytes a record) is made once, when every line is read and checked, and saved in the cache.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from pathlib import Path
from typing import Any

import numpy as np

from avalign.data.manifest.index import Progress, cached_path, index_of
from avalign.data.manifest.record import Record, from_checked
from avalign.data.manifest.segments import Segments, state_of
from avalign.errors import AvalignError
from avalign.system.atomic_write import unfinished

ENDINGS = (".jsonl", ".parquet")


class Table:
    """The records of a manifest by number, in the order of its files and lines.

    root:     folder of .jsonl or .parquet files, or one such file
    progress: called with a file and the records read of it so far, while an index is made
    workers:  processes that make an index

    Arrays: split, task (n,) uint8, indices into SPLITS and TASKS; source (n,) uint16, into `sources`
    """

    def __init__(
        self, root: Path, progress: Progress = lambda file, count: None, *, workers: int = 1
    ) -> None:
        self.root = root
        self.files = files_of(root)
        files = [as_lines(file) for file in self.files]
        self._lines = Segments(files, [state_of(file) for file in files])
        indexes = index_of(files, progress, workers)
        self._first = np.cumsum([0, *(len(index.rows) for index in indexes)]).tolist()
        self.sources = list(dict.fromkeys(name for index in indexes for name in index.sources))
        rows = np.concatenate([index.rows for index in indexes])
        self.split, self.task, self._begin = (rows[name].copy() for name in ("split", "task", "begin"))
        indices = {name: index for index, name in enumerate(self.sources)}
        self.source = np.concatenate(
            [np.array([indices[name] for name in i.sources], np.uint16)[i.rows["source"]] for i in indexes]
        )
        self._refuse_repeated(rows["id"])

    def _refuse_repeated(self, hashes: np.ndarray) -> None:
        hashes_in_order = np.sort(hashes)
        if not (hashes_in_order[1:] == hashes_in_order[:-1]).any():
            return
        order = np.argsort(hashes, kind="stable")
        for index in np.flatnonzero(hashes[order][1:] == hashes[order][:-1]):
            one, two = self[order[index]].id, self[order[index + 1]].id
            if one == two:  # and not just of one hash
                raise AvalignError(f"{self.root}: two records have the id {one!r}")

    def __len__(self) -> int:
        return len(self._begin)

    def line(self, number: int) -> bytes:
        """The line of record `number`, as it stands in its file."""
        file = bisect_right(self._first, number) - 1
        begin = int(self._begin[number])
        last = number + 1 == self._first[file + 1]
        end = self._lines.states[file][0] if last else int(self._begin[number + 1])
        return self._lines.read(file, begin, end - begin).strip()  # blank lines may follow it

    def location(self, number: int) -> str:
        """ "m.jsonl:12" of record `number`; the row, counted from 1, of a Parquet file."""
        file = bisect_right(self._first, number) - 1
        lines, begin = 1, int(self._begin[number])
        with open(self._lines.files[file], "rb") as opened:
            while begin > 0 and (some := opened.read(min(begin, 1 << 20))):
                lines, begin = lines + some.count(b"\n"), begin - len(some)
        return f"{self.files[file]}:{lines}"

    def __getitem__(self, number: int) -> Record:
        if not 0 <= number < len(self):
            raise IndexError(f"there is no record {number} among {len(self)}")
        try:
            return from_checked(self.line(number))
        except ValueError as error:
            file = self._lines.files[bisect_right(self._first, number) - 1]
            raise AvalignError(f"{file}: was changed since it was indexed: {error}") from error


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


def as_lines(file: Path) -> Path:
    """The same records as .jsonl: the file itself, or what the cache keeps of a Parquet file."""
    if not file.is_file():  # a pipe would be waited for
        raise AvalignError(f"{file}: is no file that can be read")
    if file.suffix == ".jsonl":
        return file
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise AvalignError(
            f"{file}: reading Parquet needs the package pyarrow: pip install pyarrow"
        ) from None
    lines_of_it = cached_path(file, ".jsonl")
    if not lines_of_it.is_file():
        try:
            with unfinished(lines_of_it) as beside, open(beside, "w", encoding="utf-8") as lines:
                for rows in pyarrow.parquet.ParquetFile(file).iter_batches(10_000):
                    for row in rows.to_pylist():
                        lines.write(json.dumps(_without_nulls(row), ensure_ascii=False) + "\n")
        except (pa.ArrowException, TypeError, ValueError, OSError) as error:  # or a column of another kind
            raise AvalignError(f"{file}: is not a Parquet file: {error}") from error
    return lines_of_it


def _without_nulls(row: dict[str, Any]) -> dict[str, Any]:
    """A row of columns as a line has it: without what is null, in its slots too."""
    full = {name: value for name, value in row.items() if value is not None}
    if isinstance(full.get("slots"), dict):
        full["slots"] = {name: value for name, value in full["slots"].items() if value is not None}
    return full
