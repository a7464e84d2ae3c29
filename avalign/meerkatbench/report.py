"""The report of a run: one HTML file that holds all it shows and asks the network for nothing."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from avalign.json_file import json_if_there
from avalign.meerkatbench.curves import curves, interval_bar
from avalign.meerkatbench.page import folded, table, whole_page
from avalign.meerkatbench.tables import CHECKS, best_trivial, shown

CARDS, ROWS = 6, 20  # samples of each task shown as pictures, and at most as lines


def write_report(run: Path) -> Path:
    """Write run/report.html from what the run folder holds; what is not there yet is said to be missing."""
    scores = json_if_there(run / "eval" / "scores.json")
    versions = json_if_there(run / "versions.json")
    recipe = (run / "recipe.yaml").read_text(encoding="utf-8") if (run / "recipe.yaml").is_file() else None
    log, unread = _lines(run / "log.jsonl")
    tasks = scores["tasks"] if scores else {}
    title = _recipe_name(recipe) or run.resolve().name
    body = [
        f"<header><h1>{escape(title)}</h1><p>{escape(_subtitle(run, versions, log))}</p></header>",
        _warnings(scores, log, unread),
        "<h2 id=scores>Scores</h2>",
        _summary(scores)
        if scores
        else _missing("No scores yet: run <code>avalign eval</code> on this folder."),
        "<h2 id=training>Training</h2>",
        curves(log) if log else _missing("No training log yet (log.jsonl)."),
        *(_task(run, name, task) for name, task in tasks.items()),
        "<h2 id=recipe>Recipe and versions</h2>",
        _versions(versions) if versions else _missing("No versions.json."),
        folded("recipe.yaml, every setting", recipe) if recipe else _missing("No recipe.yaml."),
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


def _warnings(scores: dict[str, Any] | None, log: Sequence[dict[str, Any]], unread: int) -> str:
    """What a reader must know before believing a number; each line is text."""
    said = []
    if scores:
        problems = scores["skipped"]["problems"]
        if problems:
            some = "; ".join(problems[:5]) + ("; ..." if len(problems) > 5 else "")
            said.append(f"{len(problems)} samples could not be read and were skipped: {some}")
        for name, task in scores["tasks"].items():
            if task["clear_of_trivial"] is False:
                said.append(
                    f"{name}: {task['headline']} is not clear of the answer {best_trivial(task)!r}, "
                    "which uses neither picture nor sound."
                )
            if task["parse_failures"] > 0.05:
                said.append(f"{name}: {100 * task['parse_failures']:.0f} % of the answers could not be read.")
    strange = sum(not math.isfinite(v) for line in log for v in line.values() if isinstance(v, float))
    if strange:
        said.append(f"{strange} logged values are not finite.")
    if unread:
        said.append(f"{unread} lines of log.jsonl could not be read.")
    return f"<ul class=warnings>{''.join(f'<li>{escape(text)}</li>' for text in said)}</ul>" if said else ""


def _summary(scores: dict[str, Any]) -> str:
    """A line for every task: its headline beside the best trivial answer and the modality check."""
    rows = []
    for name, task in scores["tasks"].items():
        metric, best = task["headline"], best_trivial(task)
        checks = [task[check]["metrics"][metric] if check in task else None for check in CHECKS]
        clear = {True: "<b class=yes>yes</b>", False: "<b class=no>no</b>", None: "n/a"}[
            task["clear_of_trivial"]
        ]
        bar = interval_bar(
            task["metrics"][metric],
            [trivial["metrics"][metric] for trivial in task["trivial"].values()],
            most=10 if metric == "CIDEr-D" else 1,
        )
        rows.append(
            [
                f'<a href="#{escape(name)}">{escape(name)}</a>',
                escape(metric),
                f"<b>{_score(task['metrics'][metric])}</b>",
                bar,
                f"{_score(task['trivial'][best]['metrics'][metric])}<small>{escape(best)}</small>"
                if best
                else "n/a",
                clear,
                *(_score(check) for check in checks),
                f"{100 * task['parse_failures']:.1f} %",
                str(task["n"]),
            ]
        )
    header = (
        "task",
        "metric",
        "score",
        "",
        "best trivial answer",
        "clear of it",
        *CHECKS.values(),
        "unparsed",
        "n",
    )
    resamples = scores["bootstrap"]["resamples"]
    return (
        table(header, rows)
        + f"<p class=note>Split {escape(scores['split'])}. In brackets: 95 % bootstrap intervals, "
        f"{resamples} resamples. Blue: this model; grey: the trivial answers, which use neither picture nor "
        "sound. No sound, no picture: the same questions with that taken away.</p>"
    )


def _task(run: Path, name: str, task: dict[str, Any]) -> str:
    """All metrics, the table of groups, and the page of samples of one task."""
    trivial = task["trivial"]
    rows = [
        [
            f'<span title="{escape(task["definitions"].get(metric, ""))}">{escape(metric)}</span>',
            f"<b>{_score(score)}</b>",
            *(_score(t["metrics"].get(metric)) for t in trivial.values()),
        ]
        for metric, score in task["metrics"].items()
    ]
    parts = [
        f"<h2 id={escape(name)}>{escape(task['title'])}</h2>",
        table(("metric", "this model", *map(escape, trivial)), rows),
        _protocol(task),
    ]
    gain = task.get("over_best_trivial")
    if gain:
        parts.append(
            f"<p class=note>{escape(task['headline'])} over the best trivial answer: {gain['value']:+.3f} "
            f"[{gain['low']:+.3f}, {gain['high']:+.3f}], paired bootstrap.</p>"
        )
    groups = task["groups"]
    if groups:
        columns = list(dict.fromkeys(metric for row in groups["rows"].values() for metric in row["metrics"]))
        lines = [
            [escape(group), str(row["n"]), *(_score(row["metrics"].get(column)) for column in columns)]
            for group, row in groups["rows"].items()
        ]
        parts.append(f"<h3>By {escape(groups['by'])}</h3>" + table((groups["by"], "n", *columns), lines))
    parts.append(_samples(run, name))
    return "\n".join(parts)


def _protocol(task: dict[str, Any]) -> str:
    lines = [
        f"{metric}: {task['definitions'][metric]}"
        for metric in task["metrics"]
        if metric in task["definitions"]
    ]
    lines += [
        f"{task['n']} samples, test list {task['test_list']}",
        f"{100 * task['parse_failures']:.1f} % of the answers could not be parsed; they count as wrong",
    ]
    listed = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<details><summary>protocol</summary><ul>{listed}</ul></details>"


def _samples(run: Path, name: str) -> str:
    rows, _ = _lines(run / "eval" / f"{name}.jsonl")
    if not rows:
        return _missing(f"No samples: eval/{escape(name)}.jsonl is missing or empty.")
    cards: list[str] = []
    lines: list[list[str]] = []
    for index, row in enumerate(rows[:ROWS]):
        picture = run / "eval" / "pictures" / f"{name}-{index:03d}.png"
        if picture.is_file() and len(cards) < CARDS:
            alt = escape(
                f"{_question(row)} Answer: {row['answer']} Truth: {row['truth'].get('response', '')}"
            )
            cards.append(
                f'<figure><img loading=lazy alt="{alt}" src="{_embedded(picture)}">'
                f"<figcaption>{escape(row['id'])} {_values(row)}</figcaption></figure>"
            )
        else:
            lines.append(
                [
                    escape(_question(row)),
                    escape(row["answer"]) or "<i>(nothing)</i>",
                    escape(str(row["truth"].get("response", ""))),
                    "<i>unparsed</i>" if row["parsed"] is None else _values(row),
                ]
            )
    shown_cards = f"<div class=cards>{''.join(cards)}</div>" if cards else ""
    others = table(("question", "answer", "truth", "score"), lines, "samples") if lines else ""
    if cards and others:
        others = f"<details><summary>{len(lines)} more samples</summary>{others}</details>"
    return f"<h3>Samples, the first of {len(rows)}</h3>{shown_cards}{others}"


def _question(row: dict[str, Any]) -> str:
    return str(row["instruction"]).replace("<image>", " ").replace("<audio>", " ").strip()


def _values(row: dict[str, Any]) -> str:
    return escape(", ".join(f"{name} {value:.2f}" for name, value in row["values"].items()))


def _versions(versions: dict[str, Any]) -> str:
    flat = [
        (f"{key} {inner}", value)
        for key, whole in versions.items()
        for inner, value in (whole.items() if isinstance(whole, dict) else [("", whole)])
    ]
    return table(("", ""), [[escape(key.strip()), escape(str(value))] for key, value in flat], "versions")


# ---- pieces ----


def _score(score: dict[str, Any] | None) -> str:
    """The number, and its interval in a fainter hand."""
    value, _, interval = shown(score).partition(" ")
    return f"{value}<small>{interval}</small>" if interval else value


def _embedded(picture: Path) -> str:
    """The picture as a data URL; as JPEG, for spectrograms make PNGs of half a megabyte."""
    from PIL import Image

    jpeg = io.BytesIO()
    with Image.open(picture) as opened:
        opened.convert("RGB").save(jpeg, "JPEG", quality=88, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.getvalue()).decode("ascii")


def _missing(html: str) -> str:
    return f"<p class=missing>{html}</p>"


def _recipe_name(recipe: str | None) -> str | None:
    """The recipe's `name:`, read without a parser: the report must not fail on a recipe that does."""
    for line in (recipe or "").splitlines():
        if line.startswith("name:"):
            return line.removeprefix("name:").strip().strip("\"'") or None
    return None


def _lines(path: Path) -> tuple[list[dict[str, Any]], int]:
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
