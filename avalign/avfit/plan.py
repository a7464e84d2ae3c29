"""A plan: which data sets lie where below the media root, what is paired with what, and how many of it.

name: voc-esc50
seed: 0
datasets:
  vgg_ss: {folder: VGG-SS, image: "frames/{clip}.jpg"}     # gives records: they are used as they are
  heard: {name: vgg_ss, folder: Mine, most: {test: 1000}}  # the same data set under another label; some of it
  pascal_voc: {folder: VOCdevkit}                          # gives images or recordings: to be paired
  esc50: {folder: ESC-50}
pairs:
  voc_esc50: {images: pascal_voc, audio: esc50, records: {train: {arig: 4000, avfc: 4000}}}

Read as recipes are: `extends`, key=value, every problem at its location.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import NonNegativeInt

from avalign import registry
from avalign.avfit.pairing.classes import Classes
from avalign.avfit.pairing.pairing import TASKS as PAIRED
from avalign.config.reader import Reader, RecipeError
from avalign.config.recipe import Component
from avalign.config.tree import as_plain
from avalign.config.yaml import Node, folder_of, to_text
from avalign.data.manifest.record import stays_inside
from avalign.errors import AvalignError, suggest
from avalign.types import SPLITS, TASKS


class PlanError(RecipeError):
    """Every problem of a plan, each as `file:line  dotted.path: what is wrong`."""


@dataclass
class DatasetUse(Component):
    """A data set of the registry, its options, and where it lies.

    folder:         below the media root; the label, if it is not given
    share_origins:  keep its own splits as published though they share videos or photographs (that is noted);
                    what another data set has in test or validation is refused for training all the same
    most:           split -> how many records (or images, or recordings) at most; the seed says which
    """

    folder: str | None = None
    share_origins: bool = False
    most: dict[str, NonNegativeInt] = field(default_factory=dict)


@dataclass
class Pairs(Component):
    """Images of one data set with recordings of another, the way they are paired and its options.

    records: split -> task -> how many
    """

    usual = "by_class"
    images: str = ""
    audio: str = field(default="", metadata={"formerly": "sounds"})
    records: dict[str, dict[str, NonNegativeInt]] = field(default_factory=dict)


@dataclass
class Plan:
    name: str
    about: str = ""  # what it is for, in a sentence or two
    seed: NonNegativeInt = 0
    classes: list[str] = field(default_factory=list)  # tables over avfit/classes.yaml, from the plan's folder
    datasets: dict[str, DatasetUse] = field(default_factory=dict, metadata={"kind": "dataset"})
    pairs: dict[str, Pairs] = field(default_factory=dict, metadata={"kind": "pairing"})

    def gives(self, label: str) -> str:
        """ "records", "images" or "recordings": what a data set of the plan gives."""
        gives = str(registry.load("dataset", self.datasets[label].name).gives)
        return "images" if gives == "pictures" else gives  # its name of before

    def splits(self, label: str) -> set[str]:
        """The splits of a data set that records are made from."""
        none = {split for split, most in self.datasets[label].most.items() if most == 0}
        if self.gives(label) == "records":
            return set(SPLITS) - none
        return {
            split
            for pairs in self.pairs.values()
            if label in (pairs.images, pairs.audio)
            for split, tasks in pairs.records.items()
            if any(tasks.values())
        } - none


def read_plan(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Plan:
    """The plan of a file, checked, with every default filled in. PlanError names all that is wrong."""
    reader = Reader(Plan, "plan", "seed=1")
    try:
        tree, plan = reader.read(Path(path), overrides)
    except RecipeError as error:
        raise PlanError(error.problems) from None
    _Check(reader, tree).plan(plan)
    if reader.problems:
        raise PlanError(reader.problems)
    return plan


def dump_plan(plan: Plan) -> str:
    """YAML that reads back as this plan, the data sets' own defaults filled in."""
    return to_text(as_plain(plan))


class _Check:
    """What no single value can tell."""

    def __init__(self, reader: Reader, tree: Node) -> None:
        self.reader, self.tree = reader, tree

    def refuse(self, path: str, what: str) -> None:
        keys = tuple(path.split("/"))
        self.reader.report(self.tree.at(keys).where, keys, what)

    def known(self, path: str, named: Iterable[str], names: Collection[str], noun: str) -> None:
        for name in named:
            if name not in names:
                self.refuse(f"{path}/{name}", f"no {noun} is named {name!r}.{suggest(name, names)}")

    def plan(self, plan: Plan) -> None:
        if plan.name in ("", ".", "..") or re.search(r"[/\\\x00]", plan.name or ""):
            self.refuse("name", f"{plan.name!r} cannot name a folder.")
        if not plan.datasets:
            self.refuse("datasets", "a plan needs at least one data set.")
        self.labels(plan)
        for label, use in plan.datasets.items():
            path = f"datasets/{label}"
            use.folder = label if use.folder is None else use.folder
            if not stays_inside(use.folder):
                self.refuse(f"{path}/folder", f"{use.folder!r} is not a path below the media root.")
            self.known(f"{path}/most", use.most, SPLITS, "split")
        if not self.reader.problems:  # the data sets are known
            self.pairs(plan)
            self.classes(plan)

    def labels(self, plan: Plan) -> None:
        """Labels begin the names of files and the ids of records."""
        seen: dict[str, str] = {}
        for path in [*(f"datasets/{x}" for x in plan.datasets), *(f"pairs/{x}" for x in plan.pairs)]:
            label = path.partition("/")[2]
            if not re.fullmatch(r"[A-Za-z0-9_][\w.-]*", label, re.ASCII):
                self.refuse(path, "a label is made of letters, digits, '_', '-' and '.'.")
            elif label.casefold() in seen:
                self.refuse(path, f"its files would be those of {seen[label.casefold()].replace('/', '.')}.")
            seen[label.casefold()] = path

    def classes(self, plan: Plan) -> None:
        """Each table with its whole path, and read once to see that it can be."""
        for i, name in enumerate(plan.classes):
            where = self.tree.at(("classes", str(i))).where
            plan.classes[i] = os.path.abspath(folder_of(where) / name)
        try:
            if plan.classes:
                Classes.read(*map(Path, plan.classes))
        except AvalignError as error:
            self.refuse("classes", str(error))

    def pairs(self, plan: Plan) -> None:
        for label, pairs in plan.pairs.items():
            path = f"pairs/{label}"
            for side, other, gives in (
                ("images", pairs.images, "images"),
                ("audio", pairs.audio, "recordings"),
            ):
                if not other:
                    self.refuse(f"{path}/{side}", f"missing: the data set that gives the {gives}.")
                elif other not in plan.datasets:
                    what = f"no data set of this plan is named {other!r}.{suggest(other, plan.datasets)}"
                    self.refuse(f"{path}/{side}", what)
                elif plan.gives(other) != gives:
                    what = f"data set {other!r} gives {plan.gives(other)}, and {gives} are needed."
                    self.refuse(f"{path}/{side}", what)
            self.known(f"{path}/records", pairs.records, SPLITS, "split")
            for split, tasks in pairs.records.items():
                for task in tasks:
                    where = f"{path}/records/{split}/{task}"
                    if task not in TASKS:
                        self.refuse(where, f"no task is named {task!r}.{suggest(task, PAIRED)}")
                    elif task not in PAIRED:
                        what = f"pairs cannot be asked for {task}: its answers come from people."
                        self.refuse(where, f"{what} Known: {', '.join(PAIRED)}.")
            if not any(count for tasks in pairs.records.values() for count in tasks.values()):
                self.refuse(f"{path}/records", "no records are asked for, as {train: {arig: 1000}}.")
        used = {name for pairs in plan.pairs.values() for name in (pairs.images, pairs.audio)}
        for label in plan.datasets:
            if plan.gives(label) != "records" and label not in used:
                self.refuse(f"datasets/{label}", f"gives {plan.gives(label)}, which nothing is paired with.")
