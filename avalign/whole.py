"""Files that are there whole or not at all, whenever a process is killed."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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


def write_whole(path: Path, content: str | bytes) -> None:
    """All of the content, text as UTF-8, or what was there before."""
    with unfinished(path) as beside:
        beside.write_bytes(content.encode() if isinstance(content, str) else content)
