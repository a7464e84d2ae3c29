"""What no single value of a recipe can tell: names that name nothing, stages in which nothing is learnt."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import fields

from avalign.config.recipe import Model, Recipe, weight_at
from avalign.config.yaml import KeyPath, Node
from avalign.errors import suggest
from avalign.types import TASKS

PARTS = tuple(f.name for f in fields(Model) if "kind" in f.metadata)  # what a stage's `train` may name


def check(tree: Node, recipe: Recipe, report: Callable[[str, KeyPath, str], None]) -> None:
    """Tell what is wrong, each with the location of the value in its file and its path in the recipe."""

    def refuse(path: str, what: str) -> None:
        keys = tuple(path.split("/"))
        report(tree.at(keys).where, keys, what)

    def known(path: str, named: Iterable[str], names: Collection[str], noun: str) -> None:
        for key, name in enumerate(named) if isinstance(named, list) else ((k, k) for k in named):
            if name is not None and name not in names:
                refuse(f"{path}/{key}", f"no {noun} is named {name!r}.{suggest(name, names)}")

    def folder(path: str, name: str | None) -> None:
        size = len((name or "").encode("utf-8", "replace"))  # of 255 that a file's name may have
        if name in ("", ".", "..") or re.search(r"[/\\\x00]", name or "") or size > 200:
            refuse(path, f"{name!r:.80} cannot name a folder.")

    train, evaluation = recipe.train, recipe.evaluation
    folder("name", recipe.name)
    if not recipe.losses:
        refuse("losses", "a recipe needs at least one loss.")
    if not train.stages:
        refuse("train/stages", "a recipe needs at least one stage.")
    for i, stage in enumerate(train.stages):
        path = f"train/stages/{i}"
        folder(f"{path}/name", stage.name)
        if stage.name in [earlier.name for earlier in train.stages[:i]]:
            refuse(f"{path}/name", f"an earlier stage is named {stage.name!r} too.")
        known(f"{path}/train", stage.train, PARTS, "part of the model")
        known(f"{path}/weights", stage.weights, recipe.losses, "loss of this recipe")
        known(f"{path}/tasks", stage.tasks, TASKS, "task")
        weights = {label: term.weight for label, term in recipe.losses.items()} | stage.weights
        step = _nothing_on(list(weights.values()), stage.steps or 0)
        if step is not None and recipe.losses:
            refuse(f"{path}/weights", f"every loss has weight 0 at step {step}: nothing would be learnt.")
        if not any(stage.tasks.values()):
            refuse(f"{path}/tasks", "no task has a share above 0.")
    known("evaluation/tasks", evaluation.tasks, TASKS, "task")
    if train.batch_size % train.gradient_accumulation:
        parts = train.gradient_accumulation
        refuse("train/batch_size", f"{train.batch_size} is no multiple of gradient_accumulation, {parts}.")


def _nothing_on(weights: Sequence[float | dict[int, float]], steps: int) -> int | None:
    """The first of a stage's steps at which all weights are 0, if there is one."""
    # Straight lines that are never below 0: their sum comes down to 0 only where one of them bends.
    bends = {step for weight in weights if isinstance(weight, dict) for step in weight if step < steps}
    off = [s for s in sorted({0, *bends}) if not any(weight_at(weight, s) for weight in weights)]
    return off[0] if off else None
