"""Files and folders that are there whole or not at all, whenever a process is killed."""

from __future__ import annotations

import os
import shutil
import stat
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from avalign.errors import AvalignError


@contextmanager
def unfinished(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """A name beside `path` to write to. The file gets its own when all is written, and none on an error.

    sync: wait until it is on the disk; without, a power cut (not a kill) may leave a part of it
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield beside
        if sync:
            with open(beside, "rb+") as file:  # on the disk before it takes the name of what was there
                os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def atomic_write(path: Path, content: str | bytes) -> None:
    """All of the content, text as UTF-8, or what was there before."""
    with unfinished(path) as beside:
        beside.write_bytes(content.encode() if isinstance(content, str) else content)


def must_be_writable(path: Path, option: str) -> None:
    """AvalignError unless a file can be written there, as far as that can be told before. Makes its folder.

    option: of the command that names it, for the error
    """
    if path.is_dir():
        raise AvalignError(f"{option} {path}: is a folder; name a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AvalignError(f"{option} {path}: cannot be written: {error.strerror}") from error
    if not os.access(path.parent, os.W_OK):
        raise AvalignError(f"{option} {path}: its folder cannot be written")


def share(folder: Path, files: Iterable[Path]) -> None:
    """Let those read the files whom the umask lets: safetensors keeps what it writes to its owner."""
    probe = folder / f".{uuid.uuid4().hex}"
    probe.touch()
    mode = stat.S_IMODE(probe.stat().st_mode)
    probe.unlink()
    for file in files:
        file.chmod(mode)


@contextmanager
def swapped_in(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` to write to, which takes its place when all is written; none on an error.

    Between two renames neither is there; a process killed just then has the former put back by the next.
    """
    beside, before = (folder.with_name(f".{folder.name}.{what}") for what in ("unfinished", "before"))
    if before.exists() and not folder.exists():
        before.rename(folder)
    for left in (beside, before):  # by one that was killed
        shutil.rmtree(left, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        yield beside
        if folder.exists():
            folder.rename(before)
        beside.rename(folder)
        shutil.rmtree(before, ignore_errors=True)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
