"""The five tasks asked of a scene, each in several phrasings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from avalign.answers import write_box, write_interval, write_verdict
from avalign.data.avworld.audio import CLASSES
from avalign.data.avworld.scenes import SECONDS, Event, Plot, Scene, Thing
from avalign.data.phrasing import phrase


@dataclass(frozen=True)
class Question:
    """An instruction with its answer, and what the answer rests on (for scoring and for AVACE)."""

    instruction: str
    response: str
    thing: Thing | None = None
    event: Event | None = None
    kind: str | None = None
    references: tuple[str, ...] = ()


CLAIM_TYPES = ("type1", "type2", "type3", "type4")
SCORED = ("sounding", "count", "visible", "audible", "side")  # kinds of AVQA question
TAUGHT = (*SCORED, "level", "seen")  # asked in training, too: top from bottom, and every name

PHRASINGS: dict[str, tuple[str, ...]] = {
    "arig": (
        "Which object makes the sound? Give its box.",
        "Locate the source of the sound in the picture.",
        "Where is the object that is heard?",
    ),
    "arig when": (
        "Which object sounds during {interval}? Give its box.",
        "Locate what is heard during {interval}.",
    ),
    "igatl": (
        "When is an object of the picture heard?",
        "Give the time in which something seen here sounds.",
        "During which seconds does the object in view sound?",
    ),
    "type1": ("Does the object in {box} make the sound?", "Is the sound made by what is in {box}?"),
    "type2": (
        "Is an object of the picture heard during {interval}?",
        "Does something seen here sound during {interval}?",
    ),
    "type3": (
        "Does the object in {box} sound during {interval}?",
        "Is what is in {box} heard during {interval}?",
    ),
    "type4": ("Does the sound go with the picture?", "Is what is heard also seen?"),
    "sounding": ("What object makes the sound?", "Name the object that is both seen and heard."),
    "seen": ("Name what is seen, from left to right.", "Which objects are there, from left to right?"),
    "count": ("How many objects are there?", "Count the objects in the picture."),
    "visible": ("Is a {name} in the picture?", "Can a {name} be seen?"),
    "audible": ("Is a {name} heard?", "Can a {name} be heard?"),
    "side": (
        "Is the object that is heard on the left or on the right?",
        "On which side is the sounding object?",
    ),
    "level": (
        "Is the object that is heard in the upper or in the lower half?",
        "In which half is the sounding object, upper or lower?",
    ),
    "avcap": (
        "Describe what is seen and heard.",
        "Write a caption for the picture and its sound.",
        "Tell what happens here.",
    ),
}


def _thing(scene: Scene, name: str) -> Thing:
    return next(thing for thing in scene.things if thing.name == name)


def _rightwards(scene: Scene) -> list[Thing]:
    """Its things from left to right, by their middle."""
    return sorted(scene.things, key=lambda thing: thing.box[0] + thing.box[2])


def _side(thing: Thing) -> str:
    return "left" if thing.box[0] + thing.box[2] < 1 else "right"


def arig(scene: Scene, rng: np.random.Generator) -> Question:
    event = scene.events[int(rng.integers(2)) if scene.plot == "duet" else 0]
    thing = _thing(scene, event.name)
    if scene.plot == "duet":
        instruction = phrase(PHRASINGS["arig when"], rng, interval=write_interval((event.start, event.end)))
    else:
        instruction = phrase(PHRASINGS["arig"], rng)
    return Question(instruction, write_box(thing.box, thing.name), thing, event)


def igatl(scene: Scene, rng: np.random.Generator) -> Question:
    event = scene.events[0]
    return Question(
        phrase(PHRASINGS["igatl"], rng), write_interval((event.start, event.end)), scene.things[0], event
    )


def _another_time(scene: Scene, rng: np.random.Generator) -> tuple[float, float]:
    """An interval in which the event asked about is not heard: another event's, or one in its silence."""
    asked = scene.events[0]
    others = [(e.start, e.end) for e in scene.events[1:]]
    if others:
        return others[0]
    before, after = asked.start, SECONDS - asked.end
    first = rng.random() < before / (before + after)
    if (before if first else after) < 0.4:  # too short for any sound; the other side is longer
        first = not first
    length = min(float(rng.uniform(0.5, 2.0)), before if first else after)
    start = rng.uniform(0, before - length) if first else rng.uniform(asked.end, SECONDS - length)
    return round(float(start), 2), round(float(start + length), 2)


def avfc(scene: Scene, rng: np.random.Generator, kind: str, true: bool) -> Question:
    """`kind` type1..type4 and the verdict are sampled before the scene, so that both are balanced."""
    event = scene.events[0]
    thing = None if scene.plot == "stranger" else _thing(scene, event.name)
    shown: Thing = scene.things[0]
    span = (event.start, event.end)
    if not true and kind in ("type1", "type3") and (kind == "type1" or rng.random() < 0.5):
        shown = scene.things[1 + int(rng.integers(len(scene.things) - 1))]
    elif not true and kind in ("type2", "type3"):
        span = _another_time(scene, rng)
    slots = {"box": write_box(shown.box), "interval": write_interval(span)}
    return Question(phrase(PHRASINGS[kind], rng, **slots), write_verdict(true), thing, event, kind)


def avqa(scene: Scene, rng: np.random.Generator, kind: str, true: bool) -> Question:
    """`true`: whether a yes/no question is to be answered by yes."""
    event = scene.events[0]
    thing = _thing(scene, event.name)
    slots = {}
    if kind == "sounding":
        answer = thing.name
    elif kind == "count":
        answer = str(len(scene.things))
    elif kind == "side":
        answer = _side(thing)
    elif kind == "level":
        answer = "upper" if thing.box[1] + thing.box[3] < 1 else "lower"
    elif kind == "seen":
        answer = ", ".join(t.name for t in _rightwards(scene))
    else:
        present = {t.name for t in scene.things} if kind == "visible" else {e.name for e in scene.events}
        names = [name for name in CLASSES if (name in present) == true]
        slots["name"] = names[int(rng.integers(len(names)))]
        answer = "yes" if true else "no"
    return Question(phrase(PHRASINGS[kind], rng, **slots), answer, thing, event, kind)


def avcap(scene: Scene, rng: np.random.Generator) -> Question:
    event = scene.events[0]
    thing = _thing(scene, event.name)
    others = [t.name for t in _rightwards(scene) if t is not thing]
    rest = " and ".join(f"a {name}" for name in others)
    side = _side(thing)
    captions = (
        f"a {thing.name} sounds on the {side} beside {rest}",
        f"the {thing.name} on the {side} is heard, and {rest} can be seen",
        f"a {thing.name} is heard on the {side} of a picture with {rest}",
    )
    asked = phrase(PHRASINGS["avcap"], rng)
    return Question(asked, captions[0], thing, event, references=captions[1:])


SEEN_AND_HEARD: tuple[Plot, ...] = ("solo", "offscreen", "duet")
# which plots a task may be asked of: where two objects sound, only questions that say which one
ALLOWED: dict[str, tuple[Plot, ...]] = {
    "arig": SEEN_AND_HEARD,
    "igatl": ("solo", "offscreen"),
    "avfc": ("solo", "offscreen"),
    "avqa": ("solo", "offscreen"),
    "avcap": ("solo", "offscreen"),
}
Ask = Callable[[Scene, np.random.Generator], Question]
AskKind = Callable[[Scene, np.random.Generator, str, bool], Question]
ASK: dict[str, Ask] = {"arig": arig, "igatl": igatl, "avcap": avcap}
ASK_KIND: dict[str, AskKind] = {"avfc": avfc, "avqa": avqa}
