"""What lies in a data set's folder: listed once, so that no record needs a look at the disk.

Nothing outside the media root is read: a link that leads out of it stops the build by name, unless links
are to be followed. A link to elsewhere below the root is followed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from avalign.avfit.annotation import VIDEOS
from avalign.avfit.build.hashes import Names
from avalign.errors import AvalignError

# By the name's ending: known by its content, or by its name alone; any other file by its name and size (a
# mask is an annotation too, an archive of 50 GB lies about).
TEXT_ENDINGS = (".json", ".jsonl", ".csv", ".tsv", ".txt", ".xml", ".yaml", ".yml")
MEDIA = (*VIDEOS, ".jpg", ".jpeg", ".webp", ".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a")


@dataclass(frozen=True)
class Survey:
    """names: of all files, from the folder on; annotations: each file that is no media -> its state"""

    names: Names
    annotations: dict[str, str]


def survey(root: Path, folder: str, *, leave: Path | None = None, follow_links: bool = False) -> Survey:
    """All files of a folder below the media root. AvalignError names links that lead out of the root.

    leave: a folder that is not looked into, where the build itself writes
    """
    annotations: dict[str, str] = {}
    escaping: list[str] = []

    def files() -> Iterator[str]:
        for path in _walk(root.resolve(), root / folder, "", leave, follow_links, escaping, ()):
            ending = os.path.splitext(path)[1].lower()
            if ending not in MEDIA:
                annotations[path] = _state(root / folder / path, ending in TEXT_ENDINGS)
            yield path

    names = Names.of(files())
    if escaping:
        more = f", and {len(escaping) - 3} more" if len(escaping) > 3 else ""
        raise AvalignError(
            f"{root / folder}: {', '.join(sorted(escaping)[:3])}{more}: leads out of the media root. Nothing "
            "outside it is read, unless you say --follow-links"
        )
    return Survey(names, dict(sorted(annotations.items())))


def _walk(
    root: Path,
    folder: Path,
    path: str,
    leave: Path | None,
    follow_links: bool,
    escaping: list[str],
    above: tuple[Path, ...],
) -> Iterator[str]:
    """Paths of files from the data set's folder on; `above` are the real folders that lead here."""
    real = folder.resolve()
    if not follow_links and not real.is_relative_to(root):
        escaping.append(path or str(folder))
        return
    if real == leave or real in above:  # a link to a folder that it lies in
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise AvalignError(f"{folder}: cannot be listed: {error.strerror}") from error
    for entry in entries:
        inner = f"{path}/{entry.name}" if path else entry.name
        if entry.is_dir():
            yield from _walk(root, Path(entry.path), inner, leave, follow_links, escaping, (*above, real))
        elif entry.is_file():  # a link to nothing is no file
            if (
                entry.is_symlink()
                and not follow_links
                and not Path(entry.path).resolve().is_relative_to(root)
            ):
                escaping.append(inner)
            else:
                yield inner


def _state(file: Path, hashed: bool) -> str:
    """A digest of the file's content, or its size."""
    try:
        if not hashed:
            return f"{file.stat().st_size} bytes"
        with open(file, "rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise AvalignError(f"{file}: cannot be read: {error.strerror}") from error
