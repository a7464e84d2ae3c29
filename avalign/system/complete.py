"""Folders that say when they are complete: what a checkpoint gets last is a list of its files."""

from __future__ import annotations

import json
import os
from pathlib import Path

from avalign.system.atomic_write import atomic_write, share

COMPLETE = "complete"  # that file: each other file's size in bytes


def mark_complete(folder: Path) -> None:
    """Once all of it is written, and on the disk: after a power cut, too, a marked one is whole."""
    sizes = {}
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != COMPLETE)
    share(folder, files)
    for file in files:
        with open(file, "rb") as opened:
            os.fsync(opened.fileno())
        sizes[file.relative_to(folder).as_posix()] = file.stat().st_size
    atomic_write(folder / COMPLETE, json.dumps(sizes, indent=1) + "\n")


def damage(folder: Path) -> str | None:
    """What a marked folder lacks of what it had when it was marked; None if nothing, or it says nothing."""
    try:
        sizes = json.loads((folder / COMPLETE).read_text(encoding="utf-8") or "{}")
    except ValueError:
        return f"{folder / COMPLETE} cannot be read"
    for name, size in sizes.items():
        file = folder / name
        if not file.is_file():
            return f"{file} is missing"
        if file.stat().st_size != size:
            return f"{file} has {file.stat().st_size} of {size} bytes"
    return None


def is_complete(folder: Path) -> bool:
    return (folder / COMPLETE).exists() and damage(folder) is None
