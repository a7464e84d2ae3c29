"""Generated pools of pictures and recordings, and what their annotations say, worked out anew."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from avalign.answers import Box, Interval
from avalign.avfit.annotation import AudioAnnotation, Event, ImageAnnotation, Reading, Thing
from avalign.avfit.pairing.classes import Classes, Entry
from avalign.avfit.pairing.pairing import Pairing
from avalign.avfit.pairing.pools import ImagePool, RecordingPool
from avalign.data.manifest.record import Record


def entry(name: str, **fields: object) -> Entry:
    sides = {"images": {"p": {name: ""}}, "audio": {"s": {name: ""}}}
    if fields.get("silent"):
        del sides["audio"]
    return Entry(name, f"test:{name}", **(sides | fields))  # type: ignore[arg-type]


TABLE = [
    entry("animal", general=True),
    entry("dog", within=("animal",), similar=("fox", "bird")),
    entry("fox", within=("animal",)),
    entry("bird", within=("animal",)),
    entry("owl", within=("bird",), similar=("fox",)),
    entry("car", similar=("train",)),
    entry("train"),
    entry("wheel", silent=True, part_of=("car",)),
    entry("chair", silent=True),
]
ENTRIES = {own.name: own for own in TABLE}
CLASSES = Classes(ENTRIES)


def above(name: str) -> set[str]:
    return {name}.union(*(above(upper) for upper in ENTRIES[name].within))


def is_a(name: str, c: str) -> bool:
    return c in above(name)


def may_be(a: str, b: str) -> bool:
    """Whether things of two classes may be the same thing, or part of it."""
    wholes = [(a, b), *((w, b) for w in ENTRIES[a].part_of), *((a, w) for w in ENTRIES[b].part_of)]
    return any(is_a(x, y) or is_a(y, x) for x, y in wholes)


@dataclass
class World:
    images: dict[str, ImageAnnotation]
    recordings: dict[str, AudioAnnotation]

    def pools(self) -> tuple[ImagePool, RecordingPool]:
        return (
            ImagePool.build(readings(self.images.values()), CLASSES, below="photos/"),
            RecordingPool.build(readings(self.recordings.values()), CLASSES, below="sounds/"),
        )

    def pairing(self, **options: object) -> Pairing:
        return Pairing("pair", *self.pools(), CLASSES, **options)  # type: ignore[arg-type]

    def of(self, record: Record) -> tuple[ImageAnnotation, AudioAnnotation]:
        told = record.provenance
        return self.images[told["picture"]], self.recordings[told["recording"]]


def readings(items: Iterable[ImageAnnotation] | Iterable[AudioAnnotation]) -> Iterator[Reading]:  # type: ignore[type-arg]
    return (Reading(item.id, "test", (item,)) for item in items)


def picture(id: str, *things: tuple[str, Box], split: str = "train") -> ImageAnnotation:
    return ImageAnnotation(id, split, f"{id}.jpg", tuple(Thing(*thing) for thing in things), origin=f"o:{id}")


def recording(
    id: str, *events: tuple[str, Interval | None], split: str = "train", end: float | None = 10.0
) -> AudioAnnotation:
    return AudioAnnotation(
        id, split, f"{id}.wav", tuple(Event(*e) for e in events), None, end, origin=f"y:{id}"
    )


def world(seed: int, size: int = 40, splits: tuple[str, ...] = ("train", "val"), most: int = 5) -> World:
    """Pictures and recordings of up to `most` things and events, one event in ten at an unknown time."""
    rng = random.Random(seed)
    names = [*ENTRIES, "unheard of"]

    def box() -> Box:
        w, h = rng.uniform(0.05, 0.6), rng.uniform(0.05, 0.6)
        x, y = rng.uniform(0, 1 - w), rng.uniform(0, 1 - h)
        return (round(x, 6), round(y, 6), round(x + w, 6), round(y + h, 6))

    def interval() -> Interval | None:
        start = round(rng.uniform(0, 9), 3)
        return None if rng.random() < 0.1 else (start, round(rng.uniform(start + 0.05, 10), 3))

    images, recordings = {}, {}
    for number in range(size):
        split = rng.choice(splits)
        things = [(rng.choice(names), box()) for _ in range(rng.randint(1, most))]
        events = [(rng.choice(names), interval()) for _ in range(rng.randint(1, most))]
        images[f"p{number}"] = picture(f"p{number}", *things, split=split)
        split, end = rng.choice(splits), rng.choice([10.0, None])
        recordings[f"r{number}"] = recording(f"r{number}", *events, split=split, end=end)
    return World(images, recordings)
