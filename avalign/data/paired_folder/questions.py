"""The five tasks asked of a composed scene, each in several phrasings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avalign.answers import Interval, write_box, write_interval, write_verdict
from avalign.data.paired_folder.composing import Tile
from avalign.data.phrasing import phrase

CLAIM_TYPES = ("type1", "type4")
QUESTIONS = ("sounding", "place", "audible", "visible", "count", "seen")

PHRASINGS: dict[str, tuple[str, ...]] = {
    "arig": (
        "Which object in the picture is heard? Name it with its box.",
        "Find what makes the sound: its name and its box.",
        "Where is the source of the sound? Answer with name and box.",
        "Point at the one that can be heard, giving its name and its box.",
    ),
    "igatl": (
        "During which seconds is something from the picture heard?",
        "When does an object in the picture sound? Give start and end.",
        "Give the time in which the sound belongs to the picture.",
    ),
    "type1": (
        "The sound is made by the object in {box}. True or false?",
        "Does the object in {box} make the sound? True or false?",
        "Is what lies in {box} the source of the sound? True or false?",
    ),
    "type4": (
        "The sound goes with the scene. True or false?",
        "Could this sound come from something in the picture? True or false?",
        "Is the source of the sound in the picture? True or false?",
    ),
    "sounding": ("What is heard?", "Name the object that makes the sound.", "Which object can be heard?"),
    "place": (
        "Where in the picture is the object that is heard?",
        "In which part of the picture is the source of the sound?",
    ),
    "audible": ("Is {name} heard?", "Can {name} be heard?"),
    "visible": ("Is {name} in the picture?", "Can {name} be seen?"),
    "count": (
        "How many photographs make up the picture?",
        "Count the photographs in the picture.",
    ),
    "seen": (
        "Name what is seen, row by row.",
        "What do the photographs show, from left to right and from top to bottom?",
    ),
    "avcap": (
        "Describe what is seen and what is heard.",
        "Write a caption for this picture and its sound.",
        "What is where, and which of it is heard?",
    ),
}


@dataclass(frozen=True)
class Asked:
    """An instruction and its answer."""

    instruction: str
    response: str
    kind: str | None = None
    references: tuple[str, ...] = ()


def a(name: str) -> str:
    """dog -> a dog, owl -> an owl"""
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def arig(sounding: Tile, rng: np.random.Generator) -> Asked:
    return Asked(
        phrase(PHRASINGS["arig"], rng), " ".join(write_box(box, sounding.name) for box in sounding.boxes)
    )


def igatl(interval: Interval, rng: np.random.Generator) -> Asked:
    return Asked(phrase(PHRASINGS["igatl"], rng), write_interval(interval))


def avfc(kind: str, true: bool, tiles: list[Tile], sounding: Tile | None, rng: np.random.Generator) -> Asked:
    """type1: the box of the sounding photograph, or of another one. type4: the scene is drawn to fit."""
    slots = {}
    if kind == "type1":
        shown = [t for t in tiles if (t is sounding) == true]
        boxes = shown[int(rng.integers(len(shown)))].boxes
        slots["box"] = write_box(boxes[int(rng.integers(len(boxes)))])
    return Asked(phrase(PHRASINGS[kind], rng, **slots), write_verdict(true), kind)


def avqa(
    kind: str, true: bool, tiles: list[Tile], sounding: Tile, classes: list[str], rng: np.random.Generator
) -> Asked:
    """`true`: whether a yes/no question is to be answered by yes."""
    visible = [t.name for t in tiles]
    slots = {}
    if kind == "sounding":
        answer = sounding.name
    elif kind == "place":
        answer = sounding.position
    elif kind == "count":
        answer = str(len(tiles))
    elif kind == "seen":
        answer = ", ".join(visible)
    else:
        if kind == "audible":  # asked of what is seen only: the image does not tell
            names = [n for n in visible if (n == sounding.name) == true]
        else:
            names = [n for n in classes if (n in visible) == true]
        slots["name"] = a(names[int(rng.integers(len(names)))])
        answer = "yes" if true else "no"
    return Asked(phrase(PHRASINGS[kind], rng, **slots), answer, kind)


def avcap(tiles: list[Tile], sounding: Tile, rng: np.random.Generator) -> Asked:
    """What makes the sound comes first, then the rest in the order of the image."""
    rest = [t for t in tiles if t is not sounding]
    others = " and ".join(f"{a(t.name)} {t.position}" for t in rest)
    names = " and ".join(a(t.name) for t in rest)
    it, position = sounding.name, sounding.position
    captions = (
        f"{a(it)} is heard {position}, with {others}",
        f"{a(it)} {position} makes a sound beside {others}",
        f"the {it} {position} can be heard, and {names} can be seen",
        f"a picture of {a(it)} {position}, which is heard, and of {others}",
    )
    return Asked(phrase(PHRASINGS["avcap"], rng), captions[0], references=captions[1:])
