"""The recipe that a run keeps, with the files that it names, and what tells another recipe from it.

runs/mine/
    recipe.yaml       names components from files as ./code/my_loss.py:MyLoss
    code/my_loss.py   the file as it was
    code/files.json   where each came from, and its sha256
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import fields, is_dataclass
from difflib import ndiff
from pathlib import Path
from typing import Any

from avalign import registry
from avalign.config.recipe import Component, Recipe
from avalign.config.recipe_file import dump
from avalign.errors import AvalignError
from avalign.local_components import digest, is_local, resolved, split, trust
from avalign.system.atomic_write import atomic_write
from avalign.system.json_file import json_if_there

# may be another on resuming: they belong to the machine
FREE = ("workers", "root", "report_to", "features_gib")
CODE, FILES = "code", "files.json"


def differing(before: Recipe, now: Recipe, evaluation: bool = False) -> list[str]:
    """ "was: ..." and "now: ..." of every line in which two recipes would train, and score, otherwise.

    Files of components are compared by their content, wherever they lie.
    """
    words = {"- ": "was", "+ ": "now"}
    lines = ndiff(_lines(before, evaluation), _lines(now, evaluation))
    return [f"{words[line[:2]]}: {line[2:]}" for line in lines if line[:2] in words]


def _lines(recipe: Recipe, evaluation: bool) -> list[str]:
    """The dumped recipe without what may change: workers, where data lies, evaluation if not asked for."""
    shown, skip = [], False
    for line in dump(recipe, _by_content).splitlines():
        if line and not line.startswith(" "):
            skip = line.startswith("evaluation:") and not evaluation
        if not skip and line.strip().partition(":")[0] not in FREE:
            shown.append(line)
    return shown


def _by_content(name: str) -> str:
    if not is_local(name):
        return name
    file, class_name = split(resolved(name, Path()))
    return f"{file.name}@{digest(file)[:12]}:{class_name}"


# ---- files ---------------------------------------------------------------------------------------


def keep(recipe: Recipe, run: Path) -> Recipe:
    """The recipe with every file that it names copied into the run folder, and named there.

    Whoever trains with these files runs them of his own will: they are noted as trusted.
    """
    trust.note(file for component in components(recipe) for file in registry.own_files(component.name) or ())
    saved = deepcopy(recipe)
    folder = run.absolute() / CODE
    known = _known(run)
    for component in components(saved):
        if not is_local(component.name):
            continue
        file, class_name = split(resolved(component.name, Path()))
        if file.parent != folder:
            copy = _name_of_copy(known, file)
            if copy not in known:
                atomic_write(folder / copy, file.read_bytes())
                known[copy] = {"from": str(file), "sha256": digest(folder / copy)}
                atomic_write(folder / FILES, json.dumps(known, indent=1) + "\n")
            component.name = f"{folder / copy}:{class_name}"
    return saved


def forget_copies(run: Path, recipe: Recipe) -> None:
    """Remove the copies that a start made, but those that the recipe is read from or that were edited."""
    named = {name for component in components(recipe) if is_local(name := component.name)}
    used = {split(resolved(name, Path()))[0].absolute() for name in named}
    known = _known(run)
    for name in list(known):
        copy = (run / CODE / name).absolute()
        if copy not in used and copy.is_file() and digest(copy) == known[name]["sha256"]:
            copy.unlink()
            del known[name]
    if (run / CODE / FILES).is_file():
        atomic_write(run / CODE / FILES, json.dumps(known, indent=1) + "\n")


def changed_files(run: Path) -> dict[Path, str]:
    """Files of a run that are not what they were, the copy or where it came from -> what to say of it."""
    found = {}
    for name, known in _known(run).items():
        copy, source = run / CODE / name, Path(known["from"])
        if not copy.is_file():
            found[copy] = f"{copy} is gone: the run was made with it"
        elif digest(copy) != known["sha256"]:
            found[copy] = f"{copy} has changed since the run was made with it"
        if source.is_file() and digest(source) != known["sha256"]:
            found[source] = (
                f"{source} has changed since {run} was made with it; the run's copy, {copy}, counts"
            )
    return found


def refuse_changed_copies(run: Path) -> None:
    """A run cannot go on with other code than it was begun with."""
    problems = [what for file, what in changed_files(run).items() if file.parent == run / CODE]
    if problems:
        raise AvalignError(f"{'; '.join(problems)}. Resuming would not repeat it")


def _known(run: Path) -> dict[str, dict[str, str]]:
    return json_if_there(run / CODE / FILES) or {}


def _name_of_copy(known: dict[str, dict[str, str]], file: Path) -> str:
    """The file's own name; "my_loss-2.py" for another file of that name."""
    number, name, content = 1, file.name, digest(file)
    while name in known and known[name]["sha256"] != content:
        number += 1
        name = f"{file.stem}-{number}{file.suffix}"
    return name


def components(section: Any) -> Iterator[Component]:
    """Every component in a recipe, or in a part of one."""
    if isinstance(section, Component):
        yield section
    elif is_dataclass(section):
        for field in fields(section):
            yield from components(getattr(section, field.name))
    elif isinstance(section, dict):
        for value in section.values():
            yield from components(value)
