"""The phrasings of a manifest's tasks: read from YAML, one sampled for each record, its tokens filled."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

from avalign.answers import write_box, write_interval
from avalign.config.yaml import Node, OneLine, parse, to_text
from avalign.data.manifest.phrasing_rules import MEDIA, NEEDS, SLOTS, faults, section_of, tokens_of, wording
from avalign.data.manifest.record import Record
from avalign.errors import AvalignError, suggest
from avalign.system.atomic_write import atomic_write

NAME = "phrasings.yaml"
SHIPPED = Path(__file__).with_name(NAME)
REPLACES = "replaces"
_FILLED = re.compile("|".join(SLOTS))


@dataclass(frozen=True, slots=True)
class Phrasing:
    """An instruction with tokens. origin: who wrote it, {"model": ..., "made": date, "prompt": version}"""

    text: str
    origin: Mapping[str, Any]

    @property
    def slots(self) -> frozenset[str]:
        return frozenset(SLOTS[token] for token in tokens_of(self.text) if token in SLOTS)


@dataclass(frozen=True)
class PhrasingFile:
    """A phrasings.yaml as it stands.

        replaces: [arig]                    # sections whose shipped phrasings are not used beside these
        arig:
        - <image><audio>Which object makes the sound? Name it and give its box.
        - {text: ..., model: ..., made: 2025-01-31, prompt: 1}

    Sections are tasks, or tasks with a kind (NEEDS in phrasing_rules.py).
    """

    sections: dict[str, list[Phrasing]]
    replaces: tuple[str, ...] = ()

    def write(self, path: Path) -> None:
        """All of it or nothing. Comments of a file that was there are lost."""
        plain: dict[str, Any] = {REPLACES: list(self.replaces)} if self.replaces else {}
        for section, phrasings in self.sections.items():
            plain[section] = [OneLine(text=p.text, **p.origin) if p.origin else p.text for p in phrasings]
        atomic_write(path, to_text(plain))


def read_file(path: Path) -> PhrasingFile:
    """The phrasings of a file. AvalignError with every line that breaks a rule: file:line, what, the text."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise AvalignError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise AvalignError(f"{path}: is not UTF-8 text: byte {error.start} cannot be read") from error
    wrong: list[str] = []
    root = parse(text, lambda line: f"{path}:{line}", lambda where, _, what: wrong.append(f"{where}  {what}"))
    found: dict[str, list[Phrasing]] = {}
    replaces: tuple[str, ...] = ()
    if not isinstance(root.value, dict):
        raise AvalignError(f"{path}: holds no sections: a mapping of tasks to lists of phrasings is needed")
    for name, node in root.value.items():
        if name == REPLACES:
            replaces = tuple(_replaced(node, wrong))
        elif name not in NEEDS:
            wrong.append(f"{node.where}  no section {name!r}.{suggest(name, NEEDS)}")
        elif not isinstance(node.value, list) or not node.value:
            wrong.append(f"{node.where}  {name}: a list of phrasings is needed")
        else:
            found[name] = list(_section(name, node.value, wrong))
    wrong += [f"{path}: replaces {name}, and has no phrasing of it" for name in replaces if name not in found]
    if wrong:
        raise AvalignError("\n".join(wrong))
    return PhrasingFile(found, replaces)


def _replaced(node: Node, wrong: list[str]) -> Iterator[str]:
    for item in node.value if isinstance(node.value, list) else [node]:
        if item.value in NEEDS:
            yield item.value
        else:
            wrong.append(
                f"{item.where}  {REPLACES}: no section {item.value!r}.{suggest(str(item.value), NEEDS)}"
            )


def _section(name: str, nodes: list[Node], wrong: list[str]) -> Iterator[Phrasing]:
    first: dict[str, str] = {}
    for node in nodes:
        plain = node.plain()
        origin = dict(plain) if isinstance(plain, dict) else {}
        text = origin.pop("text", None) if isinstance(plain, dict) else plain
        if not isinstance(text, str):
            wrong.append(f"{node.where}  {name}: a phrasing is a text, or {{text: ..., model: ...}}")
            continue
        wrong += [f"{node.where}  {name}: {what}: {text[:80]!r}" for _, what in faults(text, name)]
        before = first.setdefault(wording(text), node.where)
        if before != node.where:
            wrong.append(f"{node.where}  {name}: the words of {before} again: {text[:80]!r}")
        yield Phrasing(text, origin)


@cache
def shipped() -> PhrasingFile:
    """The phrasings that come with avalign."""
    return read_file(SHIPPED)


class Phrasings:
    """How the records of a manifest are asked.

    Those shipped, and those of the manifest's own `phrasings.yaml`, which adds to them, or takes the place of
    the sections that it says it `replaces`. A record without an instruction is given one that holds all that
    its task needs and nothing that its slots lack. In training seed, record and epoch decide which; in
    validation and test the record alone, among those shipped or replaced, so that neither a seed nor an added
    phrasing changes what a test asks.
    """

    def __init__(self, folder: Path | None = None) -> None:
        own = PhrasingFile({})
        if folder is not None and (folder / NAME).exists():
            own = read_file(folder / NAME)
        self._fixed: dict[str, list[Phrasing]] = {}
        self._all: dict[str, list[Phrasing]] = {}
        for section in NEEDS:
            added = own.sections.get(section, [])
            base = added if section in own.replaces else shipped().sections[section]
            said = {wording(phrasing.text) for phrasing in base}
            self._fixed[section] = base
            self._all[section] = base + [p for p in added if wording(p.text) not in said]
        self._fitting: dict[tuple[str, frozenset[str], bool], list[str]] = {}

    def of(self, record: Record, *, added: bool = True) -> list[str]:
        """Every phrasing that a record can be asked in, tokens in place. AvalignError if there is none."""
        try:
            section = section_of(record.task, record.kind)
        except AvalignError as error:
            raise AvalignError(f"record {record.id!r} has no instruction, and {error}") from None
        available = frozenset(record.slots)
        key = section, available, added
        if key not in self._fitting:
            phrasings = (self._all if added else self._fixed)[section]
            self._fitting[key] = [p.text for p in phrasings if p.slots <= available]
        if not self._fitting[key]:
            needed = [token for token in NEEDS[section].must if SLOTS[token] not in available]
            raise AvalignError(
                f"record {record.id!r} has no instruction, and its slots "
                f"({', '.join(sorted(available)) or 'none'}) lack {', '.join(SLOTS[t] for t in needed)}: "
                f"{section} asks with {', '.join(needed)}"
            )
        return self._fitting[key]

    def instruction(self, record: Record, *, seed: int | None = None, epoch: int = 0) -> str:
        """What a record asks, every token filled. seed: None where it must never change (validation, test)"""
        text = record.instruction
        if not text:
            candidates = self.of(record, added=seed is not None)
            key = record.id if seed is None else f"{seed} {epoch} {record.id}"
            number = int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "little")
            text = candidates[number % len(candidates)]
        return fill(text, record)


def fill(text: str, record: Record) -> str:
    """A phrasing with what the record's slots say. AvalignError names the record and the slot it lacks."""
    if "<" not in text:
        return text
    return _FILLED.sub(lambda token: _written(SLOTS[token.group()], record), text)


def _written(slot: str, record: Record) -> str:
    value = record.slots.get(slot)
    try:
        if value is None:
            raise ValueError(f"its instruction asks for <{slot}>, its slots do not hold it")
        if slot in ("box", "time"):
            if not isinstance(value, (list, tuple)) or not all(type(x) in (int, float) for x in value):
                raise ValueError(f"slot {slot} is {value!r:.60}, not a list of numbers")
            return write_box(value) if slot == "box" else write_interval(value)
        if not isinstance(value, str) or not value.strip() or any(token in value for token in MEDIA):
            raise ValueError(f"slot {slot} is {value!r:.60}, not words")
        return value
    except (ValueError, OverflowError) as error:  # a whole number of hundreds of digits
        raise AvalignError(f"record {record.id!r}: {error}") from None
