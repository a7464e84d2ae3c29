"""The report of a run, or of predictions: one HTML file that holds all it shows and asks the network for
nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from avalign.json_file import json_if_there
from avalign.meerkatbench.curves import curves
from avalign.meerkatbench.page import folded, table, whole_page
from avalign.meerkatbench.sections import doubts, missing, rows_of, summary, task_section, warnings


def write_report(run: Path) -> Path:
    """Write run/report.html from what the run folder holds; what is not there yet is said to be missing."""
    scores = json_if_there(run / "eval" / "scores.json")
    versions = json_if_there(run / "versions.json")
    recipe = (run / "recipe.yaml").read_text(encoding="utf-8") if (run / "recipe.yaml").is_file() else None
    log, unread = rows_of(run / "log.jsonl")
    tasks = scores["tasks"] if scores else {}
    title = _recipe_name(recipe) or run.resolve().name
    body = [
        f"<header><h1>{escape(title)}</h1><p>{escape(_subtitle(run, versions, log))}</p></header>",
        warnings((doubts(scores) if scores else []) + _of_the_log(log, unread)),
        "<h2 id=scores>Scores</h2>",
        summary(scores)
        if scores
        else missing("No scores yet: run <code>avalign eval</code> on this folder."),
        "<h2 id=training>Training</h2>",
        curves(log) if log else missing("No training log yet (log.jsonl)."),
        *(task_section(run / "eval", name, task) for name, task in tasks.items()),
        "<h2 id=recipe>Recipe and versions</h2>",
        _versions(versions) if versions else missing("No versions.json."),
        folded("recipe.yaml, every setting", recipe) if recipe else missing("No recipe.yaml."),
    ]
    links = [
        ("scores", "Scores"),
        ("training", "Training"),
        *((n, n.upper()) for n in tasks),
        ("recipe", "Recipe"),
    ]
    page = whole_page(title, links, body)
    path = run / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def write_scores_page(folder: Path, title: str) -> Path:
    """Write folder/report.html of the scores in that folder, such as those of predictions."""
    scores = json_if_there(folder / "scores.json")
    if scores is None:
        raise FileNotFoundError(f"{folder / 'scores.json'}: there are no scores to show")
    tasks = scores["tasks"]
    body = [
        f"<header><h1>{escape(title)}</h1><p>split {escape(scores['split'])}</p></header>",
        warnings(doubts(scores)),
        "<h2 id=scores>Scores</h2>",
        summary(scores),
        *(task_section(folder, name, task, who="predictions") for name, task in tasks.items()),
    ]
    page = whole_page(title, [("scores", "Scores"), *((n, n.upper()) for n in tasks)], body)
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


# ---- parts of the page ----


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


def _versions(versions: dict[str, Any]) -> str:
    flat = [
        (f"{key} {inner}", value)
        for key, whole in versions.items()
        for inner, value in (whole.items() if isinstance(whole, dict) else [("", whole)])
    ]
    return table(("", ""), [[escape(key.strip()), escape(str(value))] for key, value in flat], "versions")


def _recipe_name(recipe: str | None) -> str | None:
    """The recipe's `name:`, read without a parser: the report must not fail on a recipe that does."""
    for line in (recipe or "").splitlines():
        if line.startswith("name:"):
            return line.removeprefix("name:").strip().strip("\"'") or None
    return None
