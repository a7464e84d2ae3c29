"""Recipes as files: read with every problem named at its location, and written with every default filled in.

    recipe = read("recipes/mine.yaml", ["model.fusion=none", "train.stages.align.steps=10"])

A file may say `extends: other.yaml`, or `extends: meerkat`, the name of a shipped one: mappings merge, lists
replace, a changed component name drops the parent's options, `avopt: null` drops a loss term. `key=value` is
one more such child, and wins.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from avalign.config.reader import Reader, RecipeError
from avalign.config.recipe import Recipe
from avalign.config.tree import as_plain
from avalign.config.validation import check
from avalign.config.yaml import Node, to_text
from avalign.local_components import beside
from avalign.system.atomic_write import atomic_write


def read(
    path: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    changes: Sequence[Node] = (),
    by: str = "",
    lacking: Callable[[Recipe], Iterable[tuple[str, str]]] | None = None,
) -> Recipe:
    """The recipe of a file, checked, with every default filled in. RecipeError names all that is wrong.

    overrides: key=value, over everything else
    changes:   mappings of settings from another file, such as a study's, over the recipe's own. A key may
               be dotted, as an override's, and an entry of a list is named as there: `stages: {align: ...}`
    by:        the location that named the file, ahead of what is said of a file that cannot be read
    lacking:   more problems, each its location ("train/batch_size") and what is wrong, told with the others
    """
    reader = Reader()
    tree, recipe = reader.read(Path(path), overrides, changes, by)
    assert isinstance(recipe, Recipe)
    check(tree, recipe, reader.report)
    for location, what in () if lacking is None else lacking(recipe):
        keys = tuple(location.split("/"))
        reader.report(tree.at(keys).where, keys, what)
    if reader.problems:
        raise RecipeError(reader.problems)
    return recipe


def dump(recipe: Recipe, named: Callable[[str], str] = str) -> str:
    """YAML that reads back as this recipe, the components' own defaults filled in.

    named: how the name of a component is written
    """
    return to_text(as_plain(recipe, named=named))


def write(recipe: Recipe, path: str | os.PathLike[str]) -> None:
    """`dump` into a file, atomically: a run killed here leaves no half recipe.

    Components from files in the recipe's own folder are named from there, so that it can be moved.
    """
    path = Path(path)
    atomic_write(path, dump(recipe, lambda name: beside(name, path.parent)))
