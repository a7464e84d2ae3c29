"""Packing a manifest and its media into shards: the same bytes each time, resumable, whole or not at all."""

from __future__ import annotations

import json
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from avalign.data.manifest.phrasings import NAME as PHRASINGS
from avalign.data.manifest.record import Record
from avalign.data.manifest.segments import state_of
from avalign.data.manifest.table import Table, files_of
from avalign.data.permutation import permuted
from avalign.data.shards.tars import LIST, ROWS, VERSION, index_beside, key_of, read_index
from avalign.errors import AvalignError
from avalign.media.links import below
from avalign.system.atomic_write import atomic_write, unfinished
from avalign.system.json_file import read_json
from avalign.types import SPLITS

BLOCK = tarfile.BLOCKSIZE  # a tar is made of these: one of header, then the content, filled up


@dataclass(frozen=True)
class Shard:
    file: str
    records: int
    bytes: int


Progress = Callable[[Path, int], None]


def pack(
    manifest: Path,
    out: Path,
    *,
    media: Path | None = None,
    follow_links: bool = False,
    size: int = 10**9,
    seed: int = 0,
    progress: Progress = lambda tar, count: None,
    workers: int = 1,
) -> list[Shard]:
    """Write the records of a manifest and their media into tar files of about `size` bytes. Returns them.

    media: folder that the records' paths start from; the manifest's own when not given
    follow_links: also pack what links lead to outside that folder
    seed:  of the order of the training records in the shards, which a reader who goes through a tar from its
           beginning sees; validation and test keep the manifest's

    What is there already of the same manifest is kept; media must not change until all is packed.
    AvalignError names media that are missing, before anything is packed, and a folder that holds something
    else.
    """
    table = Table(manifest, progress, workers=workers)
    beside = manifest if manifest.is_dir() else manifest.parent
    folder, own = media or beside, beside / PHRASINGS
    plan: dict[str, Any] = {
        "version": VERSION,
        "manifest": [[file.name, *state_of(file)] for file in files_of(manifest)],
        "size": size,
        "seed": seed,
        "sources": table.sources,
        "phrasings": own.read_text(encoding="utf-8") if own.is_file() else None,
    }
    _begin(out, plan)
    files = _refuse_missing(table, folder, follow_links)
    shards = [
        _packed(table, folder, out / f"{split}-{k:06d}.tar", numbers, progress)
        for split in SPLITS
        for k, numbers in enumerate(_divided(table, folder, split, size, seed))
    ]
    for stray in {file.name for file in out.glob("*.tar")} - {shard.file for shard in shards}:
        raise AvalignError(f"{out / stray}: is none of the shards of {manifest}")
    if plan["phrasings"] is not None:
        atomic_write(out / PHRASINGS, plan["phrasings"])
    found = {"complete": True, "files": files, "shards": [asdict(shard) for shard in shards]}
    atomic_write(out / LIST, _as_json(plan | found))
    return shards


def _as_json(listed: dict[str, Any]) -> str:
    return json.dumps(listed, indent=1, ensure_ascii=False) + "\n"


def _begin(out: Path, plan: dict[str, Any]) -> None:
    """Note what is going to be packed, or see that it is what was begun."""
    if (out / LIST).is_file():
        begun = read_json(out / LIST)
        differing = [name for name in plan if begun.get(name) != plan[name]]
        if differing:
            raise AvalignError(
                f"{out}: holds shards of another {' and '.join(differing)}; pack into another folder"
            )
    elif out.is_dir() and any(out.glob("*.tar")):
        raise AvalignError(f"{out}: holds tar files, but no {LIST}; pack into another folder")
    else:
        atomic_write(out / LIST, _as_json(plan | {"complete": False}))


def _members(record: Record, folder: Path) -> Iterator[tuple[str, tuple[str, ...], Path]]:
    """The media of a record: its name in the tar behind the key, what it is read for, and the file."""
    found: list[tuple[str, tuple[str, ...], str | None]]
    found = [("image", ("image",), record.image), ("audio", ("audio",), record.audio)]
    if record.image == record.audio:
        found = [("video", ("image", "audio"), record.image)]
    for stem, members, path in found:
        if path is not None:
            yield stem + Path(path).suffix.lower(), members, folder / path


def _refuse_missing(table: Table, folder: Path, follow_links: bool) -> list[str]:
    """All the names that media have in the tars behind their keys."""
    names: set[str] = set()
    known: dict[Path, bool] = {}
    missing: list[Path] = []
    for record in map(table.__getitem__, range(len(table))):
        for name, _, file in _members(record, folder):
            names.add(name)
            if len(known) > 1_000_000:  # forget, rather than hold all names of a large data set
                known.clear()
            if file not in known:
                below(folder, file.relative_to(folder).as_posix(), follow_links)
                known[file] = file.is_file() and file.stat().st_size > 0
                if not known[file]:
                    missing.append(file)
    if missing:
        shown = ", ".join(map(str, missing[:3])) + (", ..." if len(missing) > 3 else "")
        raise AvalignError(f"{len(missing)} media files are missing or empty: {shown}")
    return sorted(names)


def _divided(table: Table, folder: Path, split: str, size: int, seed: int) -> Iterator[list[int]]:
    """The numbers of the records of each shard: as many as fit into `size` bytes, one at least."""
    numbers = np.flatnonzero(table.split == SPLITS.index(split)).tolist()
    shard: list[int] = []
    filled = 2 * BLOCK
    for k in range(len(numbers)):
        number = numbers[permuted(k, len(numbers), (seed,)) if split == "train" else k]
        needed = _room(len(table.line(number)))
        for _, _, file in _members(table[number], folder):
            needed += _room(file.stat().st_size)
        if shard and filled + needed > size:
            yield shard
            shard, filled = [], 2 * BLOCK
        shard.append(number)
        filled += needed
    if shard:
        yield shard


def _room(size: int) -> int:
    return BLOCK + -(-size // BLOCK) * BLOCK


def _packed(table: Table, folder: Path, tar: Path, numbers: list[int], progress: Progress) -> Shard:
    """Write one shard, unless it is there. Its index is written last: a shard without one is written anew."""
    if tar.is_file() and index_beside(tar).is_file():
        there, size = read_index(tar)
        if there["number"].tolist() == numbers and tar.stat().st_size == size:
            return Shard(tar.name, len(numbers), size)
    rows = np.zeros(len(numbers), ROWS)
    with unfinished(tar) as beside:
        with tarfile.open(beside, "w", format=tarfile.USTAR_FORMAT) as archive:
            for row, number in enumerate(numbers):
                record, line = table[number], table.line(number)
                rows[row]["number"] = number
                for name in ("source", "split", "task"):
                    rows[row][name] = getattr(table, name)[number]
                rows[row]["json"] = _add(archive, f"{key_of(number)}.json", BytesIO(line), len(line))
                for name, members, file in _members(record, folder):
                    with open(file, "rb") as content:
                        position = _add(archive, f"{key_of(number)}.{name}", content, file.stat().st_size)
                    for member in members:
                        rows[row][member] = position
        size = beside.stat().st_size
    with unfinished(index_beside(tar)) as beside, open(beside, "wb") as opened:
        np.savez(opened, rows=rows, bytes=size)
    progress(tar, len(numbers))
    return Shard(tar.name, len(numbers), size)


def _add(archive: tarfile.TarFile, name: str, content: BinaryIO, size: int) -> tuple[int, int, int]:
    """Append a file. Where its content begins, its size, its CRC32."""
    told = tarfile.TarInfo(name)
    told.size = size  # no times, owners or rights: the same bytes on every machine
    counted = _Counted(content)
    begin = archive.offset + BLOCK
    try:
        archive.addfile(told, counted)  # type: ignore[arg-type]
    except OSError as error:
        raise AvalignError(
            f"{getattr(content, 'name', name)}: changed while it was packed: {error}"
        ) from error
    return begin, size, counted.crc


class _Counted:
    """A file that works out the CRC32 of what is read of it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.crc = file, 0

    def read(self, size: int = -1) -> bytes:
        content = self.file.read(size)
        self.crc = zlib.crc32(content, self.crc)
        return content
