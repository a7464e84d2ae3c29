"""A compiled library is loaded only where no one but this user, or root, can have put it."""

from __future__ import annotations

import ctypes
import os
import stat
from pathlib import Path


def who_else(path: Path) -> str | None:
    """None where only this user and root can change `path`, or put something in its place; else who can.

    Of each folder above it: it is this user's or root's, and others may write to it only if it is sticky (as
    the folder for temporary files is), where they cannot rename what is not theirs.
    """
    try:
        path = path.resolve(strict=True)  # a link counts as what it leads to, and is not followed again
        for ancestor in (path, *path.parents):
            why = _why_not_ours(ancestor, ancestor.stat(), sticky_will_do=ancestor != path)
            if why is not None:
                return why
    except OSError as error:
        return f"{path}: {error.strerror}"
    return None


def load_own(path: Path) -> ctypes.CDLL:
    """The library of a file. OSError if another could have written it: what is judged is what is loaded."""
    if (why := who_else(path.parent)) is not None:
        raise OSError(why)
    opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        why = _why_not_ours(path, os.fstat(opened), sticky_will_do=False)
        if why is not None:
            raise OSError(why)
        return ctypes.CDLL(str(path))  # its folder is ours alone: no one can put another file here meanwhile
    finally:
        os.close(opened)


def _why_not_ours(path: Path, found: os.stat_result, sticky_will_do: bool) -> str | None:
    if found.st_uid not in (os.getuid(), 0):
        return f"{path} belongs to another user"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not (
        sticky_will_do and found.st_mode & stat.S_ISVTX
    ):
        return f"{path} can be written by others"
    return None
