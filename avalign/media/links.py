"""One rule for links in data: what lies below a root is read, what a link leads to outside it only when told.

A manifest or an annotation of a stranger's, with a link among its files, would else read any file of this
machine, and pack it into shards that are given away. The root itself may be a link.
"""

from __future__ import annotations

import os
from pathlib import Path

from avalign.media.file import MediaError


def leads_out(root: Path, name: str) -> bool:
    """Whether a path below the root is, by links or as written, another place. Nothing is opened to tell."""
    try:
        real, top = os.path.realpath(root / name), os.path.realpath(root)
    except (OSError, ValueError):  # a name that no file can have
        return False
    return os.path.commonpath([real, top]) != top


def below(root: Path, name: str, follow_links: bool) -> Path:
    """A file of the media root. MediaError where a link leads out of it, unless those are followed."""
    if not follow_links and leads_out(root, name):
        raise MediaError(root / name, "is a link that leads out of the media root; it was not opened")
    return root / name
