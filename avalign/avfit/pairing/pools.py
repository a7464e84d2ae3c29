"""The images and the recordings of a data set, compact enough to hold OpenImages and AudioSet in memory.

    ImagePool.build(readings, classes)   from what a data set reads
    pool.save(folder)                      as arrays; ImagePool.open(folder, classes) maps them, so that
                                           worker processes share one copy

Only what has a class in the look-up is saved; what has none is counted by its name in `counts`.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from avalign.answers import Box, Interval
from avalign.avfit.annotation import AudioAnnotation, ImageAnnotation, Reading
from avalign.avfit.datasets.intervals import covered
from avalign.avfit.pairing.classes import NOTHING, Classes
from avalign.avfit.pairing.packed import Arrays, Lists, ListsMade, Strings, StringsMade, opened, save
from avalign.errors import AvalignError
from avalign.types import SPLITS

VERSION = 1  # of what a pool's folder holds
MILLIONTHS = 1_000_000  # of an image: boxes are saved as whole numbers of these
TICKS = 10_000  # in a second: times are saved as whole numbers of these
UNKNOWN = -1  # the start and end of an event at an unknown time
ALL_ALONG = 0.95  # of a recording: a class heard for longer is heard all along

Own = TypeVar("Own", bound="_Pool")


class _Pool:
    """What both pools are: things of known classes, in items with an id, a file and an origin."""

    kind: ClassVar[str]
    plain: ClassVar[tuple[str, ...]]  # arrays of one number an item or thing
    listed: ClassVar[tuple[str, ...]]  # lists of items, one a split and class

    def __init__(self, arrays: Arrays, head: Mapping[str, Any], classes: Classes) -> None:
        if head.get("kind") != self.kind or head.get("version") != VERSION:
            raise AvalignError(f"not {self.kind} of version {VERSION}, but {str(head)[:80]}")
        if tuple(head["classes"]) != classes.names:
            raise AvalignError(f"these {self.kind} were sorted by another table of classes: build them again")
        self.arrays, self.head, self.classes = arrays, dict(head), classes
        self.below: str = head["below"]
        self.counts: dict[str, Any] = head["counts"]
        self._strings = [
            Strings(arrays[name], arrays[f"{name}_ends"]) for name in ("ids", "files", "origins")
        ]
        self._lists = {name: Lists(arrays[name], arrays[f"{name}_ends"]) for name in self.listed}
        self._starts = arrays["starts"].data
        self._classes = arrays["classes"].data

    def __len__(self) -> int:
        return len(self._starts) - 1

    @property
    def nbytes(self) -> int:
        return sum(values.nbytes for values in self.arrays.values())

    def __reduce__(self) -> tuple[Any, ...]:
        """What goes to another process: where the arrays lie, if they lie on the disk."""
        if "folder" in self.head:
            return type(self).open, (Path(self.head["folder"]), self.classes)
        return type(self), (self.arrays, self.head, self.classes)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        both = ("ids", "files", "origins", *cls.listed)
        return (*cls.plain, *both, *(f"{name}_ends" for name in both))

    @classmethod
    def open(cls: type[Own], folder: Path, classes: Classes) -> Own:
        arrays, head = opened(folder, cls.names())
        try:
            return cls(arrays, head | {"folder": str(folder)}, classes)
        except AvalignError as error:
            raise AvalignError(f"{folder}: {error}") from error

    def save(self, folder: Path) -> None:
        head = {key: value for key, value in self.head.items() if key != "folder"}
        save(self.arrays, head, folder)

    def _named(self, number: int) -> tuple[str, str, str]:
        """Its id, its file and its origin."""
        ids, files, origins = self._strings
        return ids[number], self.below + files[number], origins[number]

    def _of(self, name: str, split: str, c: int) -> memoryview:
        return self._lists[name][SPLITS.index(split) * len(self.classes) + c]

    def classes_of(self, number: int) -> list[int]:
        """The class of each of its things, in the order of the annotation."""
        return self._classes[self._starts[number] : self._starts[number + 1]].tolist()

    def bits(self, number: int) -> int:
        """The classes of its things, as bits."""
        found = 0
        for c in self._classes[self._starts[number] : self._starts[number + 1]]:
            found |= 1 << c
        return found


class _Made:
    """A pool while it is gathered."""

    def __init__(self, pool: type[_Pool], classes: Classes, below: str) -> None:
        self.pool, self.classes, self.below = pool, classes, below
        self.strings = {name: StringsMade() for name in ("ids", "files", "origins")}
        self.lists = {name: ListsMade() for name in pool.listed}
        self.starts, self.of_things = array("I", [0]), array("h")
        self.counts = Counter[str]()
        self.unknown, self.problems = Counter[str](), Counter[str]()

    def read(self, reading: Reading[Any]) -> tuple[Any, ...]:
        """What an item came to; counted."""
        self.counts["items"] += 1
        self.counts["items refused"] += not reading.made
        self.problems.update(problem.reason for problem in reading.problems)
        return reading.made

    def add(self, item: Any, classes: Sequence[int]) -> None:
        for name, text in zip(self.strings, (item.id, item.file, item.origin), strict=True):
            self.strings[name].add(text)
        self.of_things.extend(classes)
        self.starts.append(len(self.of_things))

    def list(self, name: str, split: str, c: int) -> None:
        """The item that is to be added next is one of these."""
        self.lists[name].add(SPLITS.index(split) * len(self.classes) + c, len(self.starts) - 1)

    def finish(self, **arrays: array[Any]) -> tuple[Arrays, dict[str, Any], Classes]:
        found = {name: np.array(values) for name, values in arrays.items()}
        found |= {"starts": np.array(self.starts), "classes": np.array(self.of_things)}
        for name, strings in self.strings.items():
            found |= strings.arrays(name)
        for name, lists in self.lists.items():
            found |= lists.arrays(name, len(SPLITS) * len(self.classes))
        counts = {**self.counts, "kept": len(self.starts) - 1, "things": len(self.of_things)}
        head = {
            "kind": self.pool.kind,
            "version": VERSION,
            "below": self.below,
            "classes": self.classes.names,
            "counts": counts | {"unknown": dict(self.unknown.most_common()), "problems": dict(self.problems)},
        }
        return found, head, self.classes


class ImagePool(_Pool):
    """Images and the boxes in them."""

    kind = "pictures"
    plain = ("starts", "classes", "boxes", "frame_times")
    listed = ("showing", "showing_others")

    def __init__(self, arrays: Arrays, head: Mapping[str, Any], classes: Classes) -> None:
        super().__init__(arrays, head, classes)
        self._boxes = arrays["boxes"].data
        self._frame_times = arrays["frame_times"].data

    @classmethod
    def build(
        cls, readings: Iterable[Reading[ImageAnnotation]], classes: Classes, *, below: str = ""
    ) -> ImagePool:
        """below: the folder that the files' names start from, "openimages/" """
        made = _Made(cls, classes, below)
        boxes, frame_times = array("i"), array("d")
        paired = classes.bits(classes.paired)
        for reading in readings:
            for image in made.read(reading):
                found: list[int] = []
                for thing in image.things:
                    c = classes.of_image(thing.name, thing.mid)
                    if c == NOTHING:
                        made.unknown[thing.name] += 1
                        continue
                    found.append(c)
                    boxes.extend(_millionths(thing.box))
                if not found:
                    made.counts["without a class"] += 1
                    continue
                shown = classes.bits(found)
                for c in set(found).intersection(classes.paired):
                    made.list("showing", image.split, c)
                    if shown & paired & ~classes.related[c]:
                        made.list("showing_others", image.split, c)
                made.add(image, found)
                frame_times.append(math.nan if image.frame_time is None else image.frame_time)
        return cls(*made.finish(boxes=boxes, frame_times=frame_times))

    def image(self, number: int) -> tuple[str, str, str, float | None]:
        """Its id, its file, its origin, and the time of the frame in seconds."""
        time = self._frame_times[number]
        return (*self._named(number), None if time != time else time)

    def boxes(self, number: int) -> list[Box]:
        """The box of each of its things, as `classes_of` lists their classes."""
        row = self._boxes[4 * self._starts[number] : 4 * self._starts[number + 1]].tolist()
        values = [x / MILLIONTHS for x in row]
        return list(zip(values[0::4], values[1::4], values[2::4], values[3::4], strict=True))

    def showing(self, split: str, c: int) -> memoryview:
        """The images with a thing of this class."""
        return self._of("showing", split, c)

    def showing_others(self, split: str, c: int) -> memoryview:
        """Those of them that show something else too that could sound."""
        return self._of("showing_others", split, c)


class RecordingPool(_Pool):
    """Recordings and what is heard in them, some of it at known times."""

    kind = "recordings"
    plain = ("starts", "classes", "times", "spans", "lengths")
    listed = ("heard", "timed", "now_and_then")

    def __init__(self, arrays: Arrays, head: Mapping[str, Any], classes: Classes) -> None:
        super().__init__(arrays, head, classes)
        self._times = arrays["times"].data
        self._spans = arrays["spans"].data
        self._lengths = arrays["lengths"].data

    @classmethod
    def build(
        cls, readings: Iterable[Reading[AudioAnnotation]], classes: Classes, *, below: str = ""
    ) -> RecordingPool:
        """below: the folder that the files' names start from, "audioset/" """
        made = _Made(cls, classes, below)
        times, spans, lengths = array("i"), array("d"), array("i")
        for reading in readings:
            for recording in made.read(reading):
                length = _length(recording)
                found: list[tuple[int, int, int]] = []
                for event in recording.events:
                    c = classes.of_audio(event.name, event.mid)
                    if c == NOTHING:
                        made.unknown[event.name] += 1
                        continue
                    start, end = _ticks(event.interval)
                    if length and start >= length:
                        made.problems["event beyond the recording's end, dropped"] += 1
                        continue
                    if length and end > length:
                        made.problems["event beyond the recording's end, clipped"] += 1
                        end = length
                    found.append((c, start, end))
                if not found:
                    made.counts["without a class"] += 1
                    continue
                for c in {c for c, _, _ in found}.intersection(classes.paired):
                    made.list("heard", recording.split, c)
                    own = [(a, b) for k, a, b in found if classes.kinds[c] >> k & 1]
                    if all(a != UNKNOWN for a, _ in own):
                        made.list("timed", recording.split, c)
                        if sum(b - a for a, b in covered(own)) < ALL_ALONG * length:
                            made.list("now_and_then", recording.split, c)
                made.add(recording, [c for c, _, _ in found])
                for _, start, end in found:
                    times.extend((start, end))
                spans.extend(_span(recording))
                lengths.append(length)
        return cls(*made.finish(times=times, spans=spans, lengths=lengths))

    def recording(self, number: int) -> tuple[str, str, str, float | None, float | None]:
        """Its id, its file, its origin, and from when to when it is, in seconds of the file."""
        start, end = self._spans[2 * number], self._spans[2 * number + 1]
        return (*self._named(number), None if start != start else start, None if end != end else end)

    def length(self, number: int) -> float:
        """Seconds that it lasts at least: as given, or until its last event ends; 0 if nothing is known."""
        return self._lengths[number] / TICKS

    def intervals(self, number: int) -> list[Interval | None]:
        """When each event is, in seconds from the recording's start, as `classes_of` lists their classes."""
        row = self._times[2 * self._starts[number] : 2 * self._starts[number + 1]].tolist()
        pairs = zip(row[0::2], row[1::2], strict=True)
        return [None if start == UNKNOWN else (start / TICKS, end / TICKS) for start, end in pairs]

    def heard(self, split: str, c: int) -> memoryview:
        """The recordings with an event of this class."""
        return self._of("heard", split, c)

    def timed(self, split: str, c: int) -> memoryview:
        """Those of them in which it is known of all its events when they are."""
        return self._of("timed", split, c)

    def now_and_then(self, split: str, c: int) -> memoryview:
        """Those of these in which it is not heard all along."""
        return self._of("now_and_then", split, c)


def _millionths(box: Box) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = (round(x * MILLIONTHS) for x in box)
    return x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)  # never closed by the rounding


def _ticks(interval: Interval | None) -> tuple[int, int]:
    if interval is None:
        return UNKNOWN, UNKNOWN
    start = round(interval[0] * TICKS)
    return start, max(round(interval[1] * TICKS), start + 1)


def _span(recording: AudioAnnotation) -> tuple[float, float]:
    """As a record needs it: with an end there is a start."""
    start, end = recording.start, recording.end
    if end is None:
        return (math.nan if start is None else start), math.nan
    return (0.0 if start is None else start), end


def _length(recording: AudioAnnotation) -> int:
    """Ticks that the recording lasts; without its end, until its last event ends."""
    if recording.end is not None:
        return round((recording.end - (recording.start or 0.0)) * TICKS)
    return max((_ticks(event.interval)[1] for event in recording.events if event.interval), default=0)
