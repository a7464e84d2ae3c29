"""Clips of videos: where they lie, which frames stand for their image, what they were cut from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from avalign.avfit.annotation import filled_pattern, is_video
from avalign.avfit.datasets.options import checked_pattern
from avalign.data.phrasing import MEDIA
from avalign.errors import AvalignError

_CUT = re.compile(r"(.{11})(?:_\d+(?:\.\d+)?){1,2}")  # a YouTube id has 11 characters, "_" among them
_PLACEHOLDER = re.compile(r"<(?:image|audio|class|box|time)>", re.IGNORECASE)


@dataclass(frozen=True)
class Clips:
    """Where the media of a clip lie, and at which seconds of it frames are taken if its image is a video.

    source:       the data set, for what is said of wrong options
    image, audio: patterns of file names in which "{clip}" stands for the clip's name
    frames:       how many frames stand for the image, each in the middle of its share of the clip
    seconds:      length of a clip
    """

    source: str
    image: str
    audio: str
    frames: int
    seconds: float

    def __post_init__(self) -> None:
        for option in ("image", "audio"):
            checked_pattern(f"{self.source}: {option}", getattr(self, option), ("clip",))
        if self.frames < 1:
            raise AvalignError(
                f"{self.source}: frames is {self.frames}: at least one frame stands for the image"
            )
        if self.frames > 1 and not is_video(self.image):
            raise AvalignError(
                f"{self.source}: frames: {self.frames} cannot be taken from image {self.image!r}, no video"
            )
        if not 0 < self.seconds < float("inf"):
            raise AvalignError(f"{self.source}: seconds is {self.seconds:g}: a clip has a length above 0")

    def media(self, clip: str) -> dict[str, Any]:
        """A record's image, frame_times and audio; a ValueError if the name cannot be part of a path."""
        image = filled_pattern(self.image, clip=clip)
        times = tuple((k + 0.5) * self.seconds / self.frames for k in range(self.frames))
        return {
            "image": image,
            "frame_times": times if is_video(image) else (),
            "audio": filled_pattern(self.audio, clip=clip),
        }


def youtube_id(name: str) -> str:
    """ "-x_cdefghij_30.000_40.000" or "-x_cdefghij_000030" -> "-x_cdefghij"; any other name as it is."""
    cut = _CUT.fullmatch(name)
    return cut[1] if cut else name


def plain(text: str) -> str:
    """The text with single blanks; a ValueError if it cannot be written (half a surrogate pair in JSON)."""
    text = " ".join(text.split())
    text.encode()
    return text


def question_of(text: str) -> str:
    """A question in words as a phrasing; a ValueError if it is empty or holds a placeholder of phrasings."""
    text = plain(text)
    if not text or _PLACEHOLDER.search(text):
        raise ValueError(f"{text!r} cannot be asked")
    return MEDIA + text
