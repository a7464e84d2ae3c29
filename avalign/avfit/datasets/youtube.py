"""Clips of YouTube videos: their seconds as published, and the names of the files they lie in."""

from __future__ import annotations

import re
from dataclasses import dataclass

from avalign.avfit.annotation import AudioAnnotation, Event, filled_pattern
from avalign.avfit.datasets.options import checked_pattern, fields_of

STARTS = ("clip", "start_seconds", "start_milliseconds")
FIELDS = ("youtube", "split", *STARTS, "end_seconds", "end_milliseconds")
_SECONDS = re.compile(r"[0-9]{1,6}(\.[0-9]{1,9})?")
_MILLISECONDS = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Clip:
    """Seconds `start` to `end` of a video."""

    youtube: str
    start: float
    end: float


class ClipFiles:
    """Recordings of clips, by a pattern of the names of their files.

    The pattern may have these fields, and a format, such as {start_seconds:0>6}:

        {youtube}                           the video's id
        {split}                             the split, as published
        {start_seconds}, {end_seconds}      "30", or "30.5"
        {start_milliseconds}, {end_milliseconds}
        {clip}                              "<id>_<start in whole seconds, 6 digits>", as in VGG-Sound

    One with a start names files that hold the clip and nothing else; one without names whole videos, of which
    the clip's seconds are meant.
    """

    def __init__(self, source: str, pattern: str) -> None:
        self.source = source
        self.pattern = checked_pattern(f"{source}: audio", pattern, FIELDS)
        self.cut = bool(fields_of(pattern) & set(STARTS))

    def recording(
        self, item: str, ours: str, theirs: str, clip: Clip, events: tuple[Event, ...]
    ) -> AudioAnnotation:
        """ours, theirs: its split, in our words and as published. A ValueError if a name leads elsewhere."""
        file = filled_pattern(
            self.pattern,
            youtube=clip.youtube,
            split=theirs,
            clip=f"{clip.youtube}_{int(clip.start):06d}",
            start_seconds=_short(clip.start),
            start_milliseconds=str(round(clip.start * 1000)),
            end_seconds=_short(clip.end),
            end_milliseconds=str(round(clip.end * 1000)),
        )
        start, end = (None, None) if self.cut else (clip.start, clip.end)
        return AudioAnnotation(f"{self.source}/{item}", ours, file, events, start, end, origin=clip.youtube)


def seconds(text: str) -> float:
    """ "30.000" -> 30.0; a ValueError if the text is no such time."""
    if not _SECONDS.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is no time in seconds")
    return float(text)


def milliseconds(text: str) -> float:
    """ "30500" -> 30.5 (seconds); a ValueError if the text is no such time."""
    if not _MILLISECONDS.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is no time in milliseconds")
    return int(text) / 1000


def _short(time: float) -> str:
    return f"{time:.3f}".rstrip("0").rstrip(".")
