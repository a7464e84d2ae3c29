"""The recipes, studies and plans that come with avalign, by name.

They lie in recipes/ of the repository and in avalign/recipes/ of an installed package:

    recipe  meerkat.yaml, baselines/pandagpt.yaml    named meerkat, pandagpt
    study   ablations/alignment.yaml                 named alignment
    plan    avfit/voc-esc50.yaml                     named voc-esc50

The folder may be named too: avfit/meerkat.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from textwrap import shorten
from typing import Literal

import yaml

from avalign.errors import AvalignError, suggest
from avalign.system.atomic_write import atomic_write

Kind = Literal["recipe", "study", "plan"]
KIND_OF: dict[str, Kind] = {".": "recipe", "baselines": "recipe", "ablations": "study", "avfit": "plan"}
COMMAND = {"recipe": "avalign train", "study": "avalign ablate", "plan": "avalign data build"}
ENDINGS = (".yaml", ".yml")
LINE = 100  # characters


@dataclass(frozen=True)
class Shipped:
    """One file: its path from the folder of all, without ending ("avfit/meerkat"), and what it is."""

    name: str
    kind: Kind
    path: Path

    @property
    def short(self) -> str:
        return self.name.rpartition("/")[2]

    @property
    def about(self) -> str:
        """A line: its `about`, or the first sentence of the comment that it begins with."""
        text = self.path.read_text(encoding="utf-8")
        said = re.search(r"^about: *(.+)$", text, re.MULTILINE)
        comment = " ".join(
            line.lstrip("# ") for line in takewhile(lambda line: line.startswith("#"), text.splitlines())
        )
        line = said[1] if said is not None else re.split(r"(?<=[.?]) ", comment)[0]
        return shorten(line, LINE, placeholder=" ...")


def folder() -> Path:
    package = Path(__file__).parents[1]
    inside, beside = package / "recipes", package.parent / "recipes"
    if inside.is_dir():
        return inside
    if beside.is_dir() and (package.parent / "pyproject.toml").is_file():  # a checkout
        return beside
    raise AvalignError(f"{inside}: no such folder; this installation of avalign has no recipes.")


def shipped() -> list[Shipped]:
    """All of them: recipes, then studies, then plans."""
    root = folder()
    return [
        Shipped(path.relative_to(root).with_suffix("").as_posix(), kind, path)
        for subfolder, kind in KIND_OF.items()
        for path in sorted((root / subfolder).glob("*.yaml"))
    ]


def found(word: str | Path, kind: Kind = "recipe") -> Path:
    """The file that a word on the command line means: a file of that path, or one that is shipped.

    What ends as a file does is taken for a path, so that the error names it where it was looked for.
    """
    word = os.fspath(word)
    if os.path.exists(word) and not os.path.isdir(word):
        return Path(word)
    every = shipped()
    own = [each for each in every if each.kind == kind]
    for each in own:
        if word in (each.name, each.short):
            return each.path
    if os.path.isdir(word):
        return Path(word)
    if word.endswith(ENDINGS):
        _point_to_name(Path(word), own)
        return Path(word)
    for each in every:
        if word in (each.name, each.short):
            raise AvalignError(f"{word} is a {each.kind}, not a {kind}: {COMMAND[each.kind]} {word}")
    raise AvalignError(
        f"{word}: no such file, and no {kind} that avalign ships is named so."
        + suggest(word, [each.short for each in own])
    )


def copy(word: str, to: Path) -> list[tuple[Path, bool]]:
    """Write a shipped file below `to`, and those that it extends or is made of, laid out as they are here.

    Returns each file's new path and whether it was written; one that lies there already and says the same is
    left. AvalignError, and nothing written, if one says something else.
    """
    every = shipped()
    chosen = [e for e in every if e.name == word] or [e for e in every if e.short == word]
    if not chosen:
        raise AvalignError(
            f"avalign ships nothing that is named {word!r}." + suggest(word, [e.name for e in every])
        )
    root = folder()
    contents = {to / path.relative_to(root): path.read_bytes() for path in _with_parents(chosen[0].path)}
    there = {path: path.is_file() and path.read_bytes() == text for path, text in contents.items()}
    other = [path for path, same in there.items() if path.exists() and not same]
    if other:
        raise AvalignError(
            f"{', '.join(map(str, other))}: lies there already and differs; name another --to."
        )
    for path, text in contents.items():
        if not there[path]:
            atomic_write(path, text)
    return [(path, not same) for path, same in there.items()]


def _with_parents(path: Path) -> list[Path]:
    """A file and all that it extends, is based on or names as an arm's recipe."""
    said = yaml.safe_load(path.read_text(encoding="utf-8"))
    arms = [arm for arm in (said.get("arms") or {}).values() if isinstance(arm, dict)]
    named = [said.get("extends"), said.get("base"), *(arm.get("recipe") for arm in arms)]
    parents = [Path(os.path.normpath(path.parent / name)) for name in named if name is not None]
    return list(dict.fromkeys([path, *(each for parent in parents for each in _with_parents(parent))]))


def _point_to_name(path: Path, own: list[Shipped]) -> None:
    """Where no recipe lies, but one of that name is shipped: recipes/meerkat.yaml outside of a checkout."""
    if path.stem in [each.short for each in own] and not any(path.parent.glob("*.y*ml")):
        raise AvalignError(f"{path}: no such file. What avalign ships goes by its name: {path.stem}")
