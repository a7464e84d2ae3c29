"""What tells a media file from all others, and from what it was before, without opening it."""

from __future__ import annotations

import os
import stat
import time

from avalign.media.file import MediaFile, Stored

SETTLED = 0.1  # seconds after a change from which on another one has another time stamp
SETTLED_COARSE = 2.0  # the same where stamps are of whole seconds
SECOND = 10**9  # nanoseconds


def file_key(path: MediaFile, *part: object) -> str | None:
    """A text that is another one when the file is, was written to, or another part of it is meant.

    It holds path, size and inode with the times of the last change, of content (mtime) and of anything
    (ctime, which nobody can set back). None where this cannot be told: there is no such file, or it was
    changed just now, and could be changed once more within the same tick of the file system's clock.

    part: what of the file is used: start and end, times of frames
    """
    if isinstance(path, Stored):
        kept_in = None if path.key is None else path.key()
        return None if kept_in is None else repr((kept_in, *part))
    found = state_of(path)
    if found is None or _just_changed(found.st_ctime_ns):
        return None
    return _written(path, found, *part)


def unchanging_key(path: str | os.PathLike[str], *part: object) -> str | None:
    """As `file_key`, of a file that is never written to once it has its name."""
    found = state_of(path)
    return None if found is None else _written(path, found, *part)


def state_of(path: str | os.PathLike[str]) -> os.stat_result | None:
    """What the file system tells of a regular file; None of anything else."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # a name that no file can have
        return None
    return found if stat.S_ISREG(found.st_mode) else None


def _written(path: str | os.PathLike[str], found: os.stat_result, *part: object) -> str:
    times = found.st_mtime_ns, found.st_ctime_ns
    return repr((os.path.abspath(path), found.st_size, found.st_ino, *times, *part))


def _just_changed(changed: int) -> bool:
    wait = SETTLED if changed % SECOND else SETTLED_COARSE
    return 0 <= time.time_ns() - changed < wait * SECOND
