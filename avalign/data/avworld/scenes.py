"""One scene of avworld: what is seen, what is heard, and where and when. Everything follows from the seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from avalign.data.avworld import audio as audio_synthesis
from avalign.data.avworld import images as image_synthesis
from avalign.data.avworld.audio import CLASSES
from avalign.data.avworld.images import Box

SIZE = 64  # px, both sides
SECONDS = 4.0
RATE = 8_000  # Hz

# solo: one object sounds. offscreen: and, at another time, something that is not in the image.
# duet: two objects sound, one after the other. stranger: only something that is not in the image sounds.
Plot = Literal["solo", "offscreen", "duet", "stranger"]
PLOTS: tuple[tuple[Plot, int], ...] = (("solo", 8), ("offscreen", 6), ("duet", 3), ("stranger", 3))
_CYCLE: tuple[Plot, ...] = tuple(plot for plot, count in PLOTS for _ in range(count))


@dataclass(frozen=True)
class Thing:
    """An object and its box in 0..1 of the image."""

    name: str
    box: Box


@dataclass(frozen=True)
class Event:
    """A sound and its interval in seconds."""

    name: str
    start: float
    end: float


@dataclass(frozen=True)
class Scene:
    """The first event is the one asked about; its class is the first thing's unless nothing seen sounds."""

    plot: Plot
    things: tuple[Thing, ...]
    events: tuple[Event, ...]


def plot_of(index: int) -> Plot:
    """Plots follow one another in a fixed cycle, so that the scenes with a given plot are known unseen."""
    return _CYCLE[index % len(_CYCLE)]


def indices_with(plots: tuple[Plot, ...], scenes: int) -> NDArray[np.int64]:
    wanted = np.array([plot in plots for plot in _CYCLE])
    return np.flatnonzero(wanted[np.arange(scenes) % len(_CYCLE)])


def _intervals(count: int, rng: np.random.Generator) -> list[tuple[float, float]]:
    """One interval, or two with at least 0.2 s of neither between them, in random order."""
    if count == 1:
        length = rng.uniform(0.8, 2.4)
        start = rng.uniform(0, SECONDS - length)
        return [(start, start + length)]
    first, second = rng.uniform(0.7, 1.5, 2)
    slack = SECONDS - first - second - 0.2
    lead, gap = np.sort(rng.uniform(0, slack, 2))
    later = gap + first + 0.2
    spans = [(lead, lead + first), (later, later + second)]
    return spans if rng.random() < 0.5 else spans[::-1]


def make(index: int, seed: tuple[int, ...]) -> tuple[Scene, NDArray[np.uint8], NDArray[np.int16]]:
    """Scene `index` with its image (SIZE, SIZE, 3) and its sound (SECONDS * RATE,)."""
    rng = np.random.default_rng((*seed, index))
    plot = plot_of(index)
    count = int(rng.integers(2, 5))
    names = [CLASSES[k] for k in rng.permutation(len(CLASSES))]
    visible, absent = names[:count], names[count:]
    order = rng.permutation(count)  # which object is in front says nothing about which one sounds
    positions = image_synthesis.sample_boxes(count, SIZE, rng)
    image, drawn = image_synthesis.render([(visible[k], positions[k]) for k in order], SIZE, rng)
    boxes = {visible[k]: box for k, box in zip(order, drawn, strict=True)}
    audible = {
        "solo": visible[:1],
        "offscreen": [visible[0], absent[0]],
        "duet": visible[:2],
        "stranger": absent[:1],
    }[plot]
    spans = [(round(s, 2), round(e, 2)) for s, e in _intervals(len(audible), rng)]
    events = tuple(Event(name, *span) for name, span in zip(audible, spans, strict=True))
    audio = audio_synthesis.render([(e.name, e.start, e.end) for e in events], SECONDS, RATE, rng)
    things = tuple(Thing(name, boxes[name]) for name in visible)
    return Scene(plot, things, events), image, np.round(audio * 32767).astype(np.int16)
