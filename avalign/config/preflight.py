"""What a recipe asks for that this machine does not have: told before anything is begun, all at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from avalign import registry
from avalign.config.recipe import Component, Recipe
from avalign.errors import AvalignError, suggest
from avalign.interfaces import Source
from avalign.offered import attribute

TRACKERS = {  # transformers' names -> what is imported for each
    "azure_ml": "azureml",
    "clearml": "clearml",
    "codecarbon": "codecarbon",
    "comet_ml": "comet_ml",
    "dagshub": "dagshub",
    "dvclive": "dvclive",
    "flyte": "flytekit",
    "mlflow": "mlflow",
    "neptune": "neptune",
    "swanlab": "swanlab",
    "tensorboard": "tensorboard",
    "trackio": "trackio",
    "wandb": "wandb",
}
MAKES_ITS_DATA = "avworld"  # its root is a folder to write
PATHS = ("model", "checkpoint", "config", "tokenizer", "media")  # options of components that may name a file


def lacking(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """(location in the recipe, what is wrong with it), location as in "train/report_to"."""
    yield from _data(recipe)
    yield from _files(recipe)
    for i, name in enumerate(recipe.train.report_to):
        location = f"train/report_to/{i}"
        if name in ("none", "all"):
            continue
        if name not in TRACKERS:
            yield location, f"no tracker is named {name!r}.{suggest(name, TRACKERS)}"
        elif find_spec(TRACKERS[name]) is None:
            yield location, f"tracker {name!r} is not installed: pip install {TRACKERS[name]}"


def _data(recipe: Recipe) -> Iterator[tuple[str, str]]:
    source, root = recipe.data.source.name, recipe.data.root
    if root is not None and source != MAKES_ITS_DATA and _missing(root):
        yield "data/root", f"{root}: no such file or folder."
    try:
        tasks = attribute(registry.load("source", source), Source, "tasks")
    except AvalignError:
        return  # said of its name already
    if tasks and isinstance(tasks, tuple | list):  # others know when they have read their data
        asked = [
            (f"train/stages/{i}/tasks/{name}", name)
            for i, stage in enumerate(recipe.train.stages)
            for name, share in (stage.tasks or {}).items()
            if share
        ]
        asked += [(f"evaluation/tasks/{i}", name) for i, name in enumerate(recipe.evaluation.tasks)]
        for location, name in asked:
            if name not in tasks:
                yield location, f"source {source!r} has no task {name!r}.{suggest(name, tasks)}"


def _files(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Paths only: what may be a name in a hub is asked for when it is loaded."""
    parts = {f"model/{name}": part for name, part in vars(recipe.model).items()}
    for location, part in {**parts, "data/source": recipe.data.source}.items():
        if not isinstance(part, Component):
            continue
        for option in PATHS:
            value = part.options.get(option)
            if isinstance(value, str) and _is_path(value) and _missing(value):
                yield f"{location}/{option}", f"{value}: no such file or folder."


def _is_path(text: str) -> bool:
    return text.startswith(("/", "./", "../", "~"))


def _missing(path: str) -> bool:
    return not any(os.path.exists(p) for p in (path, Path(path).expanduser()))
