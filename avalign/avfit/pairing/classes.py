"""The look-up of classes: which object of an image makes which sound, over the names of every data set.

The table is classes.yaml, whose head says how it is written; a file of the user's extends or overrides it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avalign.answers import write_box
from avalign.avfit.annotation_files import text_of
from avalign.config.tree import with_new_names
from avalign.config.yaml import Node, YamlError, parse
from avalign.errors import AvalignError, suggest

TABLE = Path(__file__).with_name("classes.yaml")
FLAGS = ("general", "silent")
LISTS = ("within", "part_of", "similar")
SIDES = ("images", "audio")
FORMER = {"pictures": "images", "sounds": "audio"}  # read with a note, for this release
NOTHING = -1  # the number of the class of what is not in the table

Names = Mapping[str, Mapping[str, str]]  # family -> name as the data set spells it -> mid, or ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A class of the table. `where` it stands: "classes.yaml:25"."""

    name: str
    where: str
    general: bool = False
    silent: bool = False
    within: tuple[str, ...] = ()
    part_of: tuple[str, ...] = ()
    similar: tuple[str, ...] = ()
    images: Names = field(default_factory=dict)
    audio: Names = field(default_factory=dict)

    @property
    def paired(self) -> bool:
        return not (self.general or self.silent)


class Classes:
    """The table, its classes by number in the order of `names`.

    kinds[c]:   as bits, c and all that is within it: a duck is a bird
    related[c]: as bits, what may be the same thing as c: kinds of it, what it is a kind of, parts and wholes.
                Only of classes that are not related is it certain that one is not the other
    broader[c]: as bits, what c is a kind of, itself left out
    similar[c]: classes easily taken for c, none of them related to it
    """

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        """AvalignError names everything that is wrong with them."""
        self.entries = dict(entries)
        self.names = tuple(entries)
        self.numbers = {name: number for number, name in enumerate(self.names)}
        problems = list(self._problems())
        if not problems:
            self._relate()
            problems = [
                f"{entry.where}: {entry.name}: similar: {other!r} may be the same thing, so it never serves"
                for entry in self.entries.values()
                for other in entry.similar
                if self.related[self.numbers[entry.name]] >> self.numbers[other] & 1
            ]
        if problems:
            raise AvalignError("\n".join(problems))
        self._of = {side: self._found_by(side) for side in SIDES}

    @classmethod
    def read(cls, *own: Path) -> Classes:
        """The table that comes with avalign, then each file of the user's over it."""
        problems: list[str] = []
        root = _tree(TABLE, problems)
        for file in own:
            root = _over(root, _tree(file, problems)) or Node({}, root.where)
        entries = {name: _entry(name, node, problems) for name, node in root.value.items()}
        if problems:
            raise AvalignError("\n".join(problems))
        return cls(entries)

    def __len__(self) -> int:
        return len(self.names)

    # ---- finding ----

    def of_image(self, name: str, mid: str = "") -> int:
        """The number of the class that an object of an image has; NOTHING if the table has none."""
        return self._class("images", name, mid)

    def of_audio(self, name: str, mid: str = "") -> int:
        """The number of the class that is heard; NOTHING if the table has none."""
        return self._class("audio", name, mid)

    def _class(self, side: str, name: str, mid: str) -> int:
        by_mid, by_name = self._of[side]
        if mid and mid in by_mid:
            return by_mid[mid]
        number, has_mid = by_name.get(folded(name), (NOTHING, False))
        return NOTHING if mid and has_mid else number  # two mids: two things of one name

    def _found_by(self, side: str) -> tuple[dict[str, int], dict[str, tuple[int, bool]]]:
        by_mid: dict[str, int] = {}
        by_name: dict[str, tuple[int, bool]] = {}
        for entry, name, mid in self._listed(side):
            number = self.numbers[entry.name]
            _, has_mid = by_name.get(folded(name), (number, False))
            by_name[folded(name)] = (number, has_mid or bool(mid))
            if mid:
                by_mid[mid] = number
        return by_mid, by_name

    def _listed(self, side: str) -> Iterator[tuple[Entry, str, str]]:
        for entry in self.entries.values():
            for names in getattr(entry, side).values():
                for name, mid in names.items():
                    yield entry, name, mid

    def bits(self, numbers: Iterable[int]) -> int:
        """Classes as bits, to be held against `kinds` and `related`."""
        found = 0
        for number in numbers:
            found |= 1 << number
        return found

    # ---- checking ----

    def unknown(self, family: str, known: Mapping[str, str]) -> list[str]:
        """Where the table says of a family what its data set's own list (name -> mid, or "") does not say."""
        found = []
        for entry in self.entries.values():
            for side in SIDES:
                for name, mid in getattr(entry, side).get(family, {}).items():
                    where = f"{entry.where}: {entry.name}: {family}: "
                    if name not in known:
                        found.append(where + f"no name {name!r}.{_few(suggest(name, known))}")
                    elif mid != known[name]:
                        found.append(where + f"{name!r} has the mid {known[name] or '(none)'}, not {mid!r}")
        return found

    def _problems(self) -> Iterator[str]:
        for entry in self.entries.values():
            where = f"{entry.where}: {entry.name}"
            try:
                write_box((0, 0, 1, 1), entry.name)
            except ValueError as error:
                yield f"{where}: cannot be written in an answer: {error}"
            for key in LISTS:
                for other in getattr(entry, key):
                    if other not in self.numbers or other == entry.name:
                        yield f"{where}: {key}: no other class {other!r}.{_few(suggest(other, self.names))}"
            in_images, in_audio = (any(getattr(entry, side).values()) for side in SIDES)
            if entry.general and entry.silent:
                yield f"{where}: is either general or silent"
            if entry.paired and not (in_images and in_audio):
                yield (
                    f"{where}: has no {'audio' if in_images else 'images'}: name some, or say "
                    f"{'silent: true or ' if in_images else ''}general: true"
                )
            if entry.silent and in_audio:
                yield f"{where}: is silent, but has audio"
        for side in SIDES:
            for index, what in ((1, "name"), (2, "mid")):
                first: dict[str, Entry] = {}
                for listed in self._listed(side):
                    key = folded(listed[1]) if what == "name" else listed[2]
                    other = first.setdefault(key, listed[0]) if key else listed[0]
                    if other.name != listed[0].name:
                        yield (
                            f"{listed[0].where}: {listed[0].name}: {side}: the {what} {listed[index]!r} "
                            f"stands in {other.name!r} too ({other.where})"
                        )

    def _relate(self) -> None:
        above = {name: self._above(name, ()) for name in self.names}
        count = range(len(self.names))
        within = [self.bits(self.numbers[name] for name in above[own]) for own in self.names]
        self.kinds = [self.bits(k for k in count if within[k] >> c & 1) for c in count]
        self.broader = [within[c] & ~(1 << c) for c in count]
        related = [within[c] | self.kinds[c] for c in count]
        own_related = list(related)
        for c, own in enumerate(self.names):
            for other in self.entries[own].part_of:
                related[c] |= own_related[self.numbers[other]]
        self.related = [related[c] | self.bits(k for k in count if related[k] >> c & 1) for c in count]
        near = [{self.numbers[s] for s in entry.similar} for entry in self.entries.values()]
        self.similar = [tuple(sorted(near[c] | {k for k in count if c in near[k]})) for c in count]
        self.paired = tuple(c for c, own in enumerate(self.names) if self.entries[own].paired)

    def _above(self, name: str, below: tuple[str, ...]) -> set[str]:
        """The class and all it is within."""
        if name in below:
            raise AvalignError(f"{self.entries[name].where}: {name}: is within itself: {' < '.join(below)}")
        found = {name}
        for upper in self.entries[name].within:
            found |= self._above(upper, (*below, name))
        return found


def folded(name: str) -> str:
    """A name as names are compared: "Clock_Tick " and "clock tick" are one."""
    return " ".join(name.replace("_", " ").casefold().split())


# ---- reading the table ----


def _tree(file: Path, problems: list[str]) -> Node:
    def report(where: str, path: tuple[str, ...], what: str) -> None:
        problems.append(f"{where}: {'.'.join(path)}: {what}")

    try:
        root = parse(text_of(file), lambda line: f"{file.name}:{line}", report)
    except YamlError as error:
        raise AvalignError(str(error)) from error
    if root.value is None:
        return Node({}, root.where)
    if not isinstance(root.value, dict):
        raise AvalignError(f"{root.where}: a mapping of classes is needed")
    return Node({name: _with_new_keys(entry) for name, entry in root.value.items()}, root.where)


def _with_new_keys(entry: Node) -> Node:
    if not isinstance(entry.value, dict):
        return entry
    return Node(with_new_names(entry.value, FORMER), entry.where, entry.text)


def _over(base: Node | None, own: Node) -> Node | None:
    """`own` over `base`: mappings merge, all else replaces, null takes away."""
    if own.value is None:
        return None
    if not isinstance(own.value, dict):
        return own
    merged = dict(base.value) if base is not None and isinstance(base.value, dict) else {}
    for key, node in own.value.items():
        value = _over(merged.get(key), node)
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = value
    return Node(merged, own.where)


def _entry(name: str, node: Node, problems: list[str]) -> Entry:
    found: dict[str, Any] = {}
    for key, value in node.value.items() if isinstance(node.value, dict) else ():
        if key in FLAGS and isinstance(value.value, bool):
            found[key] = value.value
        elif key in LISTS and _strings(value):
            found[key] = tuple(value.plain())
        elif key in SIDES and isinstance(value.value, dict):
            found[key] = {family: _names(inner, problems) for family, inner in value.value.items()}
        elif key in (*FLAGS, *LISTS, *SIDES):
            needed = "true or false" if key in FLAGS else "a list of names" if key in LISTS else "a mapping"
            problems.append(f"{value.where}: {name}.{key}: {needed} is needed")
        else:
            problems.append(f"{value.where}: {name}: no field {key!r}.{suggest(key, FLAGS + LISTS + SIDES)}")
    if not isinstance(node.value, dict):
        problems.append(f"{node.where}: {name}: a mapping is needed")
    return Entry(name, node.where, **found)


def _names(node: Node, problems: list[str]) -> dict[str, str]:
    if isinstance(node.value, dict) and all(isinstance(mid.value, str) for mid in node.value.values()):
        return {name: mid.value for name, mid in node.value.items()}
    if _strings(node):
        return dict.fromkeys(node.plain(), "")
    problems.append(f"{node.where}: a list of names is needed, or a mapping of names to mids")
    return {}


def _strings(node: Node) -> bool:
    return isinstance(node.value, list) and all(isinstance(item.value, str) for item in node.value)


def _few(hint: str) -> str:
    """A hint without the whole list of names, where that is hundreds."""
    return hint if len(hint) < 300 else hint.partition(" Known:")[0]
