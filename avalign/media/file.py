"""Media files: what they are called, whether they can be opened, and the error that says what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np

from avalign.errors import AvalignError

END_SLACK = 0.05  # seconds by which a clip may end before the end asked for: annotations are rounded


@dataclass(frozen=True)
class Stored:
    """A media file that lies within another one. `name`: where, for people; `content`: reads all of it;
    `key`: as avalign.media.key.file_key, or None."""

    name: str
    content: Callable[[], bytes]
    key: Callable[[], str | None] | None = None

    def __str__(self) -> str:
        return self.name


MediaFile = str | Path | Stored


class MediaError(AvalignError):
    """An image or audio file that cannot be used: `file` is where, `why` is what is wrong with it."""

    def __init__(self, file: MediaFile, why: str) -> None:
        super().__init__(f"{file}: {why}")
        self.file = str(file)
        self.why = why


def read_once(path: MediaFile) -> MediaFile:
    """The same file, its content in memory if it lies within another: decoders open it again and again."""
    if not isinstance(path, Stored):
        return path
    content = path.content()
    return Stored(path.name, lambda: content)


def openable(path: MediaFile) -> str | BytesIO:
    """What decoders open: a file's name, or the bytes of one that lies within another."""
    return BytesIO(path.content()) if isinstance(path, Stored) else str(path)


def must_be_a_file(path: MediaFile) -> None:
    if isinstance(path, Stored):
        return
    try:
        if not Path(path).is_file():  # of a pipe or device a read may never end
            others = "is a pipe or device, not a file" if Path(path).exists() else "no such file"
            raise MediaError(path, "is a folder, not a file" if Path(path).is_dir() else others)
        if Path(path).stat().st_size == 0:
            raise MediaError(path, "the file is empty")
    except (OSError, ValueError) as error:  # a name too long, or one that no file can have
        raise MediaError(path, f"cannot be looked up: {error}") from error


def too_short(seconds: float, start: float, end: float | None) -> str:
    to = "the end" if end is None else f"{end:g} s"
    return f"lasts {seconds:.2f} s, its part from {start:g} s to {to} is meant"


def check_audio(audio: np.ndarray, name: MediaFile) -> None:
    """MediaError that names `name` if there are no samples, or if some are NaN or infinite."""
    if audio.shape[0] == 0:
        raise MediaError(name, "holds no audio samples")
    wrong = int(np.size(audio) - np.count_nonzero(np.isfinite(audio)))
    if wrong:
        raise MediaError(name, f"{wrong} of {np.size(audio)} audio samples are NaN or infinite")
