"""Where avalign keeps what it can make again: generated worlds, compiled kernels, indexes of manifests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from avalign.errors import AvalignError

VARIABLE = "AVALIGN_CACHE"


def cache_folder() -> Path:
    """AVALIGN_CACHE; else `avalign` in XDG_CACHE_HOME, or in ~/.cache. It need not exist yet."""
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or home_folder() / ".cache") / "avalign"


def home_folder() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        raise AvalignError(
            f"no home folder is known: name a folder to keep things in by {VARIABLE}"
        ) from None


@contextmanager
def saving(path: Path) -> Iterator[None]:
    """While a file or folder of the cache is written: AvalignError says which other one can be named."""
    try:
        yield
    except OSError as error:
        raise AvalignError(
            f"{path}: cannot be written: {error.strerror}. It is of a cache: {VARIABLE} names another folder"
        ) from error
