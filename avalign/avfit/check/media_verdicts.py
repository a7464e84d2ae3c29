"""What was measured of media files, saved in the cache: a file as it now is is measured once."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

from avalign.avfit.check.media import MediaInfo
from avalign.errors import AvalignError
from avalign.system.cache import cache_folder

VERSION = 5  # raised when something else is measured


def verdicts_file() -> Path:
    """Makes it where it is not yet there. AvalignError where the cache cannot be written."""
    file = cache_folder() / "manifests" / "media.sqlite"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with closing(_opened(file)) as database, database:
            database.execute("PRAGMA journal_mode=WAL")  # read by some processes while one writes
            database.execute(
                "CREATE TABLE IF NOT EXISTS facts (key TEXT PRIMARY KEY, found TEXT) WITHOUT ROWID"
            )
    except (sqlite3.Error, OSError) as error:
        raise AvalignError(f"{file}: what was measured of media cannot be saved there: {error}") from error
    return file


def key_of(path: Path, kind: int) -> str:
    """Of a file as it now is: where, size, time of change. OSError or ValueError if it is not to be had."""
    state = path.stat()
    name = f"{state.st_size} {state.st_mtime_ns} {kind} {VERSION} ".encode() + os.fsencode(
        os.path.realpath(path)
    )
    return hashlib.blake2b(name, digest_size=16).hexdigest()


@contextmanager
def saved_info(file: Path) -> Iterator[Callable[[str], MediaInfo | None]]:
    """What looks up what is known of a key."""
    with closing(_opened(file)) as database:
        yield partial(_found, database)


def _found(database: sqlite3.Connection, key: str) -> MediaInfo | None:
    row = database.execute("SELECT found FROM facts WHERE key = ?", (key,)).fetchone()
    return None if row is None else MediaInfo(**json.loads(row[0]))


def as_text(info: MediaInfo) -> str:
    return json.dumps({name: value for name, value in asdict(info).items() if value})


class InfoWriter:
    """Writes them as they come; what was saved stays if the process is killed."""

    def __init__(self, file: Path) -> None:
        self._database = _opened(file)

    def save(self, found: list[tuple[str, MediaInfo]]) -> None:
        with self._database:  # one transaction
            self._database.executemany(
                "INSERT OR REPLACE INTO facts VALUES (?, ?)", [(key, as_text(info)) for key, info in found]
            )

    def close(self) -> None:
        self._database.close()


def _opened(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(file, timeout=60)
