"""The recipe that a run keeps beside its checkpoints, and what tells another from it."""

from __future__ import annotations

from difflib import ndiff

from avalign.recipe import Recipe
from avalign.recipe_io import dump

FREE = ("workers", "root", "report_to")  # may be another on resuming: they belong to the machine


def differing(before: Recipe, now: Recipe, evaluation: bool = False) -> list[str]:
    """ "was: ..." and "now: ..." of every line in which two recipes would train, and score, otherwise."""
    words = {"- ": "was", "+ ": "now"}
    lines = ndiff(_lines(before, evaluation), _lines(now, evaluation))
    return [f"{words[line[:2]]}: {line[2:]}" for line in lines if line[:2] in words]


def _lines(recipe: Recipe, evaluation: bool) -> list[str]:
    """The dumped recipe without what may change: workers, where data lies, evaluation if not asked for."""
    shown, skip = [], False
    for line in dump(recipe).splitlines():
        if line and not line.startswith(" "):
            skip = line.startswith("evaluation:") and not evaluation
        if not skip and line.strip().partition(":")[0] not in FREE:
            shown.append(line)
    return shown
