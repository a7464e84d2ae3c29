"""What the annotation files of public data sets say, in one vocabulary.

A data set (registry kind "dataset") is a class that reads the files as they were published:

    class VggSs:
        gives = "records"                     # or "images" or "recordings", to be paired by class
        def __init__(self, *, image: str = "frames/{clip}.jpg", ...): its options
        def read(self, folder: Path) -> Iterator[Reading[Record]]: one Reading for each annotated item

Each item of the files comes out as one Reading: used, or refused with the reason; what was put right on the
way stands in its problems. So items in = items used + items refused, whatever is wrong with them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from avalign.answers import Box, Interval
from avalign.data.manifest.record import Record, stays_inside

LONGEST = 255  # bytes of a file's name, on every usual file system
VIDEOS = (".mp4", ".mkv", ".webm", ".avi", ".mov")


@dataclass(frozen=True, slots=True)
class Thing:
    """An object in an image. box: 0..1; mid: its id in AudioSet's and OpenImages' ontology, if given"""

    name: str  # as the data set spells it
    box: Box
    mid: str = ""


@dataclass(frozen=True, slots=True)
class ImageAnnotation:
    """A photograph, or the frame of a video at `frame_time` seconds, with its objects."""

    id: str
    split: str
    file: str  # below the data set's folder, with "/"
    things: tuple[Thing, ...]
    frame_time: float | None = None
    origin: str = ""  # the video or photograph it was taken from: what leaks between splits is found by it


@dataclass(frozen=True, slots=True)
class Event:
    """Something heard. interval: seconds from the recording's start; None: at an unknown time"""

    name: str
    interval: Interval | None = None
    mid: str = ""


@dataclass(frozen=True, slots=True)
class AudioAnnotation:
    """Audio from `start` to `end` seconds of a file (all of it: None), with what is heard in it."""

    id: str
    split: str
    file: str
    events: tuple[Event, ...]
    start: float | None = None
    end: float | None = None
    origin: str = ""


def writable(text: str) -> str:
    """The text, with "?" for half of a character (JSON can hold one), so that what is told can be written."""
    return text if text.isascii() else text.encode(errors="replace").decode()


@dataclass(frozen=True, slots=True)
class Problem:
    """reason: a few fixed words, counted over the data set ("box without area"); detail: this one"""

    reason: str
    detail: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "detail", writable(self.detail))


Made = TypeVar("Made", Record, ImageAnnotation, AudioAnnotation)


@dataclass(frozen=True, slots=True)
class Reading(Generic[Made]):
    """What one annotated item came to: used if anything was made of it, else refused, and then why."""

    item: str  # its id, as published
    where: str  # "vggss.json, record 17" or "test.csv:12"
    made: tuple[Made, ...] = ()
    problems: tuple[Problem, ...] = ()

    def __post_init__(self) -> None:
        if not self.made and not self.problems:
            raise ValueError(f"{self.where}: item {self.item!r} is neither used nor refused for a reason")
        object.__setattr__(self, "item", writable(self.item))


def refused(item: str, where: str, reason: str, detail: object = "") -> Reading[Any]:
    """An item that cannot be used, for one reason; of a long detail the beginning is kept."""
    return Reading(item, where, problems=(Problem(reason, f"{detail!s:.120}"),))


# ---- what many data sets need ----


def filled_pattern(pattern: str, **names: str) -> str:
    r""" "frames/{clip}.jpg", clip="-x_1" -> "frames/-x_1.jpg"; a ValueError if a name leads elsewhere."""
    for name, value in names.items():
        if value in ("", ".", "..") or "/" in value or "\\" in value or not value.isprintable():
            raise ValueError(f"{name} {value!r} cannot be part of a file's name")
    path = pattern.format(**names)
    if any(len(part.encode()) > LONGEST for part in path.split("/")):
        raise ValueError(f"{path[:80]!r}... is longer than a file's name can be")
    if not stays_inside(path):
        raise ValueError(f"{path!r} is not a path below the data set's folder")
    return path


def spoken(name: str) -> str:
    """A class as text names it: "Frying_(food)" -> "Frying food"; what boxes and phrasings can hold."""
    words = re.sub(r"[\s_()\[\]{}<>\"]+", " ", name).strip(" ,;:|=.'`")
    if not any(c.isalpha() for c in words):
        raise ValueError(f"class {name!r} has no letter")
    return words


def is_video(path: str) -> bool:
    return path.lower().endswith(VIDEOS)


def clean_box(numbers: Any) -> tuple[Box | None, Problem | None]:
    """Published corners (x0, y0, x1, y1) in 0..1 as a box, and what was wrong with them.

    Swapped corners are sorted and those at most 1 % outside the image clipped; the box is used and the
    problem told. A number that is none or further outside, and a box without area, leave no box.
    """
    shown = f"{numbers!r:.120}"
    if not isinstance(numbers, (list, tuple)) or len(numbers) != 4:
        return None, Problem("not four numbers", shown)
    if not all(type(x) in (int, float) for x in numbers):
        return None, Problem("not four numbers", shown)
    if not all(-0.01 <= x <= 1.01 for x in numbers):  # NaN is refused here too
        return None, Problem("corner outside the picture", shown)
    x0, y0, x1, y1 = (min(max(float(x), 0.0), 1.0) for x in numbers)
    box = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
    if box[0] >= box[2] or box[1] >= box[3]:
        return None, Problem("box without area", shown)
    if (x0, y0, x1, y1) != box:
        return box, Problem("swapped corners, sorted", shown)
    if list(box) != [float(x) for x in numbers]:
        return box, Problem("corner slightly outside, clipped", shown)
    return box, None


def clean_boxes(rows: Any) -> tuple[tuple[Box, ...], tuple[Problem, ...]]:
    """Every box of an item that can be used, each once and in its order, and every problem."""
    if not isinstance(rows, (list, tuple)):
        return (), (Problem("not four numbers", f"{rows!r:.120}"),)
    cleaned = [clean_box(row) for row in rows]
    boxes = dict.fromkeys(box for box, _ in cleaned if box is not None)
    return tuple(boxes), tuple(problem for _, problem in cleaned if problem is not None)
