"""Where avalign keeps what it can make again: generated worlds, compiled kernels, indexes of manifests."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """AVALIGN_CACHE; else `avalign` in XDG_CACHE_HOME, or in ~/.cache. It need not exist yet."""
    chosen = os.environ.get("AVALIGN_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "avalign"
