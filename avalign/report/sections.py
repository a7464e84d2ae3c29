"""Scores as data of a page (templates/tasks.html): what to know first, a line for every task, and all that is
said of one task."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from avalign.report.drawings import interval_bar
from avalign.report.page import data_url
from avalign.report.tables import CHECKS, best_trivial, remarks, shown, task_remarks

CARDS, ROWS = 6, 20  # samples of each task shown as figures, and at most as lines


def doubts(scores: Mapping[str, Any]) -> list[str]:
    """What speaks against these scores."""
    said = []
    problems = scores["skipped"]["problems"]
    if problems:
        some = "; ".join(problems[:5]) + ("; ..." if len(problems) > 5 else "")
        said.append(f"{len(problems)} samples could not be read and were skipped: {some}")
    predictions = scores.get("predictions")
    said += remarks(scores)[
        predictions is not None and not predictions["missing"]["count"] :
    ]  # all answered: no doubt
    for name, task in scores["tasks"].items():
        if task["clear_of_trivial"] is False:
            said.append(
                f"{name}: {task['headline']} is not clear of the answer {best_trivial(task)!r}, "
                "which uses neither picture nor sound."
            )
        if task["parse_failures"] > 0.05:
            said.append(f"{name}: {100 * task['parse_failures']:.0f} % of the answers could not be read.")
    return said


def summary(scores: Mapping[str, Any]) -> dict[str, Any]:
    """A line for every task, and for each source if there are several: its headline beside the best trivial
    answer and the modality check."""
    checks = [check for check in CHECKS if any(check in task for task in scores["tasks"].values())]
    return {
        "split": scores["split"],
        "resamples": scores["bootstrap"]["resamples"],
        "checks": [CHECKS[check] for check in checks],
        "rows": [
            _headline(name, source, part, checks)
            for name, task in scores["tasks"].items()
            for source, part in ((None, task), *_sources(task))
        ],
    }


def task(folder: Path, name: str, scored: Mapping[str, Any]) -> dict[str, Any]:
    """All metrics of a task, of each of its sources, and its samples, out of `folder`."""
    return {
        **{"name": name, "title": scored["title"], "numbers": _numbers(scored)},
        "sources": [(source, _numbers(part)) for source, part in _sources(scored)],
        "samples": _samples(folder, name),
    }


def rows_of(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The JSON objects of a .jsonl file, and how many lines are none (a killed run may leave half a line)."""
    if not path.is_file():
        return [], 0
    rows, unread = [], 0
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            unread += 1
    return rows, unread


# ---- one task ----


def _sources(scored: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return list((scored.get("sources") or {}).items())


def _headline(
    name: str, source: str | None, scored: Mapping[str, Any], checks: Sequence[str]
) -> dict[str, Any]:
    metric, best = scored["headline"], best_trivial(scored)
    trivial = {other: found["metrics"][metric] for other, found in scored["trivial"].items()}
    return {
        **{"task": name, "source": source, "metric": metric, "n": scored["n"]},
        "score": shown(scored["metrics"][metric]),
        "bar": interval_bar(
            scored["metrics"][metric], list(trivial.values()), most=10 if metric == "CIDEr-D" else 1
        ),
        "best": best,
        "best_score": None if best is None else shown(trivial[best]),
        "is_clear": {True: "yes", False: "no", None: None}[scored["clear_of_trivial"]],
        "checks": [shown(scored[check]["metrics"][metric] if check in scored else None) for check in checks],
        "unparsed": _percent(scored),
    }


def _numbers(scored: Mapping[str, Any]) -> dict[str, Any]:
    """Every metric beside the trivial answers, and what is needed to understand it."""
    trivial, definitions, gain = scored["trivial"], scored["definitions"], scored.get("over_best_trivial")
    return {
        "trivial": list(trivial),
        "metrics": [
            {
                **{"metric": metric, "definition": definitions.get(metric, ""), "score": shown(score)},
                "trivial": [shown(other["metrics"].get(metric)) for other in trivial.values()],
            }
            for metric, score in scored["metrics"].items()
        ],
        "protocol": [
            *(f"{metric}: {definitions[metric]}" for metric in scored["metrics"] if metric in definitions),
            f"{scored['n']} samples, test list {scored['test_list']}",
            f"{_percent(scored)} of the answers could not be parsed; they count as wrong",
            *task_remarks(scored),
        ],
        "gain": gain
        and f"{scored['headline']} over the best trivial answer: {gain['value']:+.3f} "
        f"[{gain['low']:+.3f}, {gain['high']:+.3f}], paired bootstrap.",
        "paper": scored.get("paper"),
        "groups": scored["groups"] and _groups(scored["groups"]),
    }


def _groups(groups: Mapping[str, Any]) -> dict[str, Any]:
    columns = list(dict.fromkeys(metric for row in groups["rows"].values() for metric in row["metrics"]))
    return {
        **{"by": groups["by"], "columns": columns, "folded": len(groups["rows"]) > ROWS},
        "rows": [
            (group, row["n"], [shown(row["metrics"].get(column)) for column in columns])
            for group, row in groups["rows"].items()
        ],
    }


def _percent(scored: Mapping[str, Any]) -> str:
    return f"{100 * scored['parse_failures']:.1f} %"


def _samples(folder: Path, name: str) -> dict[str, Any]:
    """The first with their figures, as far as there are any; the others as lines."""
    rows, _ = rows_of(folder / f"{name}.jsonl")
    cards: list[dict[str, Any]] = []
    lines: list[dict[str, Any]] = []
    for index, row in enumerate(rows[:ROWS]):
        figure = folder / "pictures" / f"{name}-{index:03d}.png"
        question = str(row["instruction"]).replace("<image>", " ").replace("<audio>", " ").strip()
        truth = row["truth"].get("response", "")
        score = ", ".join(f"{metric} {value:.2f}" for metric, value in row["values"].items())
        if figure.is_file() and len(cards) < CARDS:
            alt = f"{question} Answer: {row['answer']} Truth: {truth}"
            cards.append({"id": row["id"], "score": score, "alt": alt, "picture": _embedded(figure)})
        else:
            score_read = None if row["parsed"] is None else score
            lines.append({"question": question, "answer": row["answer"], "truth": truth, "score": score_read})
    return {"folder": folder.name, "count": len(rows), "cards": cards, "lines": lines}


def _embedded(figure: Path) -> str:
    """The figure as a data URL; as JPEG, for spectrograms make PNGs of half a megabyte."""
    from PIL import Image

    jpeg = io.BytesIO()
    with Image.open(figure) as opened:
        opened.convert("RGB").save(jpeg, "JPEG", quality=88, subsampling=0)
    return data_url("image/jpeg", jpeg.getvalue())
