"""The report of a run, or of predictions: one HTML file that holds all it shows and asks the network for
nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from avalign.report.drawings import metric_curves
from avalign.report.page import render
from avalign.report.sections import doubts, rows_of, summary, task
from avalign.system.atomic_write import atomic_write
from avalign.system.json_file import json_if_there


def write_report(run: Path) -> Path:
    """Write run/report.html from what the run folder holds."""
    path = run / "report.html"
    atomic_write(path, report_page(run, run / "eval"))
    return path


def report_page(run: Path, answers: Path) -> str:
    """The page of a run; what is not there yet is said to be missing.

    answers: the folder of its scores, with scores.json and what was answered
    """
    scores = json_if_there(answers / "scores.json")
    versions = json_if_there(run / "versions.json")
    recipe = (run / "recipe.yaml").read_text(encoding="utf-8") if (run / "recipe.yaml").is_file() else None
    log, unread = rows_of(run / "log.jsonl")
    tasks = scores["tasks"] if scores else {}
    return render(
        "run.html",
        title=_recipe_name(recipe) or run.resolve().name,
        subtitle=_subtitle(run, versions, log),
        links=[("scores", "Scores"), ("training", "Training"), *_links(tasks), ("recipe", "Recipe")],
        doubts=(doubts(scores) if scores else []) + _of_the_log(log, unread),
        scores=summary(scores) if scores else None,
        plots=metric_curves(log) if log else None,
        tasks=[task(answers, name, scored) for name, scored in tasks.items()],
        versions=_flat(versions or {}),
        recipe=recipe,
    )


def write_scores_page(folder: Path, title: str) -> Path:
    """Write folder/report.html of the scores in that folder, such as those of predictions."""
    scores = json_if_there(folder / "scores.json")
    if scores is None:
        raise FileNotFoundError(f"{folder / 'scores.json'}: there are no scores to show")
    page = render(
        "scores.html",
        title=title,
        subtitle=f"split {scores['split']}",
        links=[("scores", "Scores"), *_links(scores["tasks"])],
        doubts=doubts(scores),
        scores=summary(scores),
        tasks=[task(folder, name, scored) for name, scored in scores["tasks"].items()],
    )
    path = folder / "report.html"
    atomic_write(path, page)
    return path


# ---- parts of the page ----


def _links(tasks: Iterable[str]) -> list[tuple[str, str]]:
    return [(name, name.upper()) for name in tasks]


def _subtitle(run: Path, versions: dict[str, Any] | None, log: Sequence[dict[str, Any]]) -> str:
    said = [f"run folder {run.resolve().name}"]
    if versions and versions.get("avalign"):
        said.append(f"avalign {versions['avalign']}")
    if log:
        said.append(
            f"{len(log)} logged steps in {len(dict.fromkeys(line.get('stage') for line in log))} stages"
        )
    return ", ".join(said)


def _of_the_log(log: Sequence[dict[str, Any]], unread: int) -> list[str]:
    """What is wrong with the training log."""
    said = []
    strange = sum(not math.isfinite(v) for line in log for v in line.values() if isinstance(v, float))
    if strange:
        said.append(f"{strange} logged values are not finite.")
    if unread:
        said.append(f"{unread} lines of log.jsonl could not be read.")
    return said


def _flat(versions: dict[str, Any]) -> list[tuple[str, str]]:
    """{"avalign": "0.1", "packages": {"torch": "2.10"}} -> ("avalign", "0.1"), ("packages torch", "2.10")"""
    return [
        (f"{key} {inner}".strip(), str(value))
        for key, group in versions.items()
        for inner, value in (group.items() if isinstance(group, dict) else [("", group)])
    ]


def _recipe_name(recipe: str | None) -> str | None:
    """The recipe's `name:`, read without a parser: the report must not fail on a recipe that does."""
    for line in (recipe or "").splitlines():
        if line.startswith("name:"):
            return line.removeprefix("name:").strip().strip("\"'") or None
    return None
