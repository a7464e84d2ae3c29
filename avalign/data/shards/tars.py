"""Shards as they lie on disk: tar files of records with their media, an index beside each, a list of all.

shards.json                  what was packed and how; complete once everything is there
train-000000.tar             <key>.json, <key>.image.jpg, <key>.audio.flac, or <key>.video.mp4 for both
train-000000.index.npz       where each of them begins in the tar, and its CRC32; what the record is of

These are WebDataset's conventions: a sample's files follow each other, and share their name up to its first
dot. The key is the record's number in the manifest.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from tarfile import BLOCKSIZE
from typing import Any
from zipfile import ZipFile

import numpy as np

from avalign.data.manifest.record import Record, from_checked
from avalign.data.manifest.segments import Segments, state_of
from avalign.errors import AvalignError
from avalign.media.file import MediaError, Stored
from avalign.media.key import file_key
from avalign.system.json_file import read_json
from avalign.types import SPLITS, TASKS

LIST = "shards.json"
VERSION = 1  # of the layout
MEMBERS = ("json", "image", "audio")
_MEMBER = np.dtype([("begin", "<u8"), ("size", "<u8"), ("crc", "<u4")])  # size 0: there is none
ROWS = np.dtype(
    [("number", "<u8"), ("source", "<u2"), ("split", "u1"), ("task", "u1"), *((p, _MEMBER) for p in MEMBERS)]
)


def index_beside(tar: Path) -> Path:
    return tar.with_name(f"{tar.stem}.index.npz")


class ShardTable:
    """The records of a folder of shards, in the order of the manifest that they were packed from.

    Arrays: split, task (n,) uint8, indices into SPLITS and TASKS; source (n,) uint16, into `sources`
    """

    def __init__(self, folder: Path) -> None:
        listed = read_list(folder)
        self.sources: list[str] = listed["sources"]
        self.tars = [folder / shard["file"] for shard in listed["shards"]]
        parts = []
        for tar, shard in zip(self.tars, listed["shards"], strict=True):
            _must_be_complete(tar, shard["bytes"])
            part, size = read_index(tar)
            if (len(part), size) != (shard["records"], shard["bytes"]):
                raise AvalignError(
                    f"{index_beside(tar)}: is of {len(part)} records and {size} bytes, {tar.name} has "
                    f"{shard['records']} and {shard['bytes']}"
                )
            _must_lie_in(part, size, len(self.sources), index_beside(tar))
            parts.append(part)
        if not parts:
            raise AvalignError(f"{folder}: holds no shard")
        rows = np.concatenate(parts)
        order = np.argsort(rows["number"], kind="stable")
        if not (rows["number"][order] == np.arange(len(rows))).all():
            raise AvalignError(f"{folder}: its indexes do not hold each record once: some are of other tars")
        self._rows = rows[order]
        self._tar = np.repeat(np.arange(len(parts)), [len(part) for part in parts])[order]
        self.split, self.task, self.source = (self._rows[name].copy() for name in ("split", "task", "source"))
        self._segments = Segments(self.tars, [state_of(tar) for tar in self.tars])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> Record:
        if not 0 <= number < len(self):
            raise IndexError(f"there is no record {number} among {len(self)}")
        line = self._content(number, "json")
        try:
            return from_checked(line)
        except ValueError as error:
            raise AvalignError(f"{self._name(number, 'json')}: is no record: {error}") from error

    def location(self, number: int) -> str:
        """The tar and the name in it of record `number`."""
        return self._name(number, "json")

    def stored(self, number: int, member: str) -> Stored | None:
        """The image ("image") or audio ("audio") of a record, as it was packed."""
        if not self._rows[member]["size"][number]:
            return None
        tar = self.tars[self._tar[number]]
        return Stored(
            self._name(number, member),
            content=lambda: self._content(number, member),
            key=lambda: file_key(tar, *self._rows[member][number].tolist()),
        )

    def _content(self, number: int, member: str) -> bytes:
        begin, size, crc = self._rows[member][number].tolist()
        found = self._segments.read(int(self._tar[number]), begin, size)
        if zlib.crc32(found) != crc:
            raise MediaError(self._name(number, member), "is damaged: not the bytes that were packed")
        return found

    def _name(self, number: int, member: str) -> str:
        key = key_of(int(self._rows["number"][number]))
        return f"{self.tars[self._tar[number]]}: {key}.{member}"


def key_of(number: int) -> str:
    return f"{number:09d}"


def read_list(folder: Path) -> dict[str, Any]:
    """The list of a folder's shards. AvalignError if there is none, of another version, or not yet all."""
    file = folder / LIST
    if not file.is_file():
        raise AvalignError(f"{folder}: is no folder of shards: it has no {LIST}")
    found = read_json(file)
    try:
        if found["version"] != VERSION:
            raise AvalignError(f"{file}: version is {found['version']}, this avalign reads {VERSION}")
        if not found["complete"]:
            raise AvalignError(
                f"{folder}: its shards are not all there; `avalign data shard` goes on with them"
            )
        listed = {name: found[name] for name in ("sources", "files", "shards")}
        if not all(Path(shard["file"]).name == shard["file"] for shard in listed["shards"]):
            raise ValueError("a file of another folder")
    except (ValueError, TypeError, KeyError) as error:
        raise AvalignError(f"{file}: is no list of shards") from error
    return listed


def read_index(tar: Path) -> tuple[np.ndarray, int]:
    """Where everything lies in a tar, (n,) of ROWS, and how many bytes the tar has."""
    file = index_beside(tar)
    try:
        most = tar.stat().st_size // BLOCKSIZE * ROWS.itemsize + 10_000  # a record takes more than one block
        if (size := sum(held.file_size for held in ZipFile(file).infolist())) > most:
            raise ValueError(f"it would unpack to {size:,} bytes, more than {tar.name} has records for")
        with open(file, "rb") as opened, np.load(opened) as found:
            rows, size = found["rows"], int(found["bytes"])
    except FileNotFoundError as error:
        raise AvalignError(f"{file}: there is no such file: the index of {tar.name} is missing") from error
    except Exception as error:  # of zipfile, zlib and numpy, by where the file is broken
        raise AvalignError(f"{file}: is not a complete index: {error}") from error
    if rows.dtype != ROWS:
        raise AvalignError(f"{file}: is no index of this avalign")
    return rows, size


def _must_lie_in(rows: np.ndarray, size: int, sources: int, file: Path) -> None:
    """Every part of a record in its tar, every number one of a list."""
    for member in MEMBERS:
        begin, held = rows[member]["begin"], rows[member]["size"]
        if ((begin > size) | (held > size - np.minimum(begin, size))).any():
            raise AvalignError(f"{file}: names places beyond the end of its tar")
    for name, count in (("source", sources), ("split", len(SPLITS)), ("task", len(TASKS))):
        if (rows[name] >= count).any():
            raise AvalignError(f"{file}: holds the number of a {name} that there is not")


def _must_be_complete(tar: Path, size: int) -> None:
    if not tar.is_file():
        raise AvalignError(f"{tar}: there is no such file; {tar.parent / LIST} names it")
    if tar.stat().st_size != size:
        raise AvalignError(f"{tar}: has {tar.stat().st_size} bytes, {size} were packed: it is not complete")
