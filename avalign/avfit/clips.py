"""Clips of videos: where they lie, which frames stand for their picture, what they were cut from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from avalign.avfit.annotation import is_video, placed
from avalign.data.phrasing import MEDIA
from avalign.errors import AvalignError, suggest

_CUT = re.compile(r"(.{11})(?:_\d+(?:\.\d+)?){1,2}")  # a YouTube id has 11 characters, "_" among them
_PLACE = re.compile(r"<(?:image|audio|class|box|time)>", re.IGNORECASE)


@dataclass(frozen=True)
class Clips:
    """Where the media of a clip lie, and at which seconds of it frames are taken if its picture is a video.

    image, audio: patterns of file names in which "{clip}" stands for the clip's name
    frames:       how many frames stand for the picture, each in the middle of its share of the clip
    seconds:      length of a clip
    """

    image: str
    audio: str
    frames: int
    seconds: float

    def __post_init__(self) -> None:
        for option in ("image", "audio"):
            checked_pattern(option, getattr(self, option), ("clip",))
        if self.frames < 1:
            raise AvalignError(f"frames is {self.frames}: at least one frame stands for the picture")
        if self.frames > 1 and not is_video(self.image):
            raise AvalignError(f"frames: {self.frames} cannot be taken from image {self.image!r}, no video")
        if not 0 < self.seconds < float("inf"):
            raise AvalignError(f"seconds is {self.seconds:g}: a clip has a length above 0")

    def media(self, clip: str) -> dict[str, Any]:
        """A record's image, frame_times and audio; a ValueError if the name cannot be part of a path."""
        image = placed(self.image, clip=clip)
        times = tuple((k + 0.5) * self.seconds / self.frames for k in range(self.frames))
        return {
            "image": image,
            "frame_times": times if is_video(image) else (),
            "audio": placed(self.audio, clip=clip),
        }


def checked_pattern(option: str, pattern: str, known: tuple[str, ...]) -> str:
    """The pattern, if it stays in the folder whatever stands for its fields, and they are known ones."""
    try:
        placed(pattern, **dict.fromkeys(known, "name"))
    except KeyError as error:
        raise AvalignError(
            f"{option}: {pattern!r} has a field {error.args[0]!r}.{suggest(str(error.args[0]), known)}"
        ) from error
    except (ValueError, IndexError, AttributeError) as error:
        raise AvalignError(f"{option}: {pattern!r} is no pattern of a file's name: {error}") from error
    return pattern


def youtube_id(name: str) -> str:
    """ "-x_cdefghij_30.000_40.000" or "-x_cdefghij_000030" -> "-x_cdefghij"; any other name as it is."""
    cut = _CUT.fullmatch(name)
    return cut[1] if cut else name


def question_of(text: str) -> str:
    """The phrasing of a question in words; a ValueError if it is empty or holds a place of the phrasings."""
    text = " ".join(text.split())
    if not text or _PLACE.search(text):
        raise ValueError(f"{text!r} cannot be asked")
    return MEDIA + text
