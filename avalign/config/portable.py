"""A recipe that says nothing of the machine it was trained on, for an export that goes elsewhere.

Files of components go along, in code/. What an option names by its whole path (a model's folder) keeps its
last name alone, and is looked for beside the export, in the working directory, and in AVALIGN_MODELS.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from avalign.config.recipe import Recipe
from avalign.config.saved_recipe import CODE, FILES, components, keep
from avalign.system.atomic_write import atomic_write
from avalign.system.json_file import json_if_there

CONFIG = "elsewhere.json"  # the last names that were left


def portable(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe for an export in `folder`, which gets the files that it names."""
    recipe = keep(replace(recipe, data=replace(recipe.data, root=None)), folder)
    listed = json_if_there(folder / CODE / FILES)
    if listed is not None:
        told = {name: {"sha256": known["sha256"]} for name, known in listed.items()}
        atomic_write(folder / CODE / FILES, json.dumps(told, indent=1) + "\n")
    left: list[str] = []
    for component in components(recipe):
        component.options = _without_paths(component.options, left, [])
    if left:
        atomic_write(folder / CONFIG, json.dumps({"names": sorted(set(left))}, indent=1) + "\n")
    return recipe


def paths_of(recipe: Recipe) -> dict[str, str]:
    """Last name -> whole path, of what an export of the recipe leaves elsewhere."""
    paths: list[str] = []
    for component in components(recipe):
        _without_paths(component.options, [], paths)
    return {PureWindowsPath(path).name: path for path in paths}


def found_again(
    recipe: Recipe, folder: Path, known: Mapping[str, str] | None = None
) -> tuple[Recipe, list[str]]:
    """The recipe of an export with what was left elsewhere named where it lies here; what is nowhere.

    known: last name -> whole path, where the caller knows
    """
    names = left_elsewhere(folder)
    roots = [folder.absolute().parent, Path.cwd()]
    if os.environ.get("AVALIGN_MODELS"):
        roots.append(Path(os.environ["AVALIGN_MODELS"]))
    here = {name: path for name, path in (known or {}).items() if name in names}
    for name in names:
        if (
            name not in here and PurePosixPath(name).name == name != ".."
        ):  # a file of the export, so it may say anything
            found = [str(root / name) for root in roots if (root / name).exists()]
            here |= dict.fromkeys([name], found[0]) if found else {}
    recipe = deepcopy(recipe)
    for component in components(recipe):
        component.options = _renamed(component.options, here)
    return recipe, [name for name in names if name not in here]


def needed(recipe: Recipe, name: str) -> bool:
    """Whether the model is built from what an option calls so. Tokenizer and template lie in the export."""
    return any(
        name == value
        for component in components(recipe.model)
        for key, value in component.options.items()
        if key not in ("tokenizer", "template")
    )


def left_elsewhere(folder: Path) -> list[str]:
    return list((json_if_there(folder / CONFIG) or {}).get("names", []))


def _without_paths(value: Any, left: list[str], paths: list[str]) -> Any:
    if isinstance(value, dict):
        return {key: _without_paths(inner, left, paths) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_without_paths(inner, left, paths) for inner in value)
    if not isinstance(value, str):
        return value
    windows = PureWindowsPath(value)
    if not (value.startswith(("/", "~")) or (windows.drive and windows.root)) or "\n" in value:
        return value
    left.append(windows.name)
    paths.append(value)
    return windows.name


def _renamed(value: Any, here: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _renamed(inner, here) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_renamed(inner, here) for inner in value)
    return here.get(value, value) if isinstance(value, str) else value
