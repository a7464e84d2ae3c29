"""Scores as parts of a page: what to know first, a line for every task, and all that is said of one task."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from avalign.meerkatbench.curves import interval_bar
from avalign.meerkatbench.page import table
from avalign.meerkatbench.tables import CHECKS, best_trivial, remarks, shown, task_remarks

CARDS, ROWS = 6, 20  # samples of each task shown as pictures, and at most as lines


def warnings(texts: Sequence[str]) -> str:
    """What a reader must know before believing a number; each line is text."""
    return f"<ul class=warnings>{''.join(f'<li>{escape(text)}</li>' for text in texts)}</ul>" if texts else ""


def doubts(scores: Mapping[str, Any]) -> list[str]:
    """What speaks against these scores."""
    said = []
    problems = scores["skipped"]["problems"]
    if problems:
        some = "; ".join(problems[:5]) + ("; ..." if len(problems) > 5 else "")
        said.append(f"{len(problems)} samples could not be read and were skipped: {some}")
    given = scores.get("predictions")
    said += remarks(scores)[given is not None and not given["missing"]["count"] :]  # all answered: no doubt
    for name, task in scores["tasks"].items():
        if task["clear_of_trivial"] is False:
            said.append(
                f"{name}: {task['headline']} is not clear of the answer {best_trivial(task)!r}, "
                "which uses neither picture nor sound."
            )
        if task["parse_failures"] > 0.05:
            said.append(f"{name}: {100 * task['parse_failures']:.0f} % of the answers could not be read.")
    return said


def summary(scores: Mapping[str, Any]) -> str:
    """A line for every task, and for each source if there are several: its headline beside the best trivial
    answer and the modality check."""
    lines = [
        line
        for name, task in scores["tasks"].items()
        for line in (
            (f'<a href="#{escape(name)}">{escape(name)}</a>', task),
            *((f"&nbsp;&nbsp;of {escape(source)}", part) for source, part in _sources(task).items()),
        )
    ]
    checks = [check for check in CHECKS if any(check in task for task in scores["tasks"].values())]
    rows = []
    for title, task in lines:
        metric, best = task["headline"], best_trivial(task)
        clear = {True: "<b class=yes>yes</b>", False: "<b class=no>no</b>", None: "n/a"}
        bar = interval_bar(
            task["metrics"][metric],
            [trivial["metrics"][metric] for trivial in task["trivial"].values()],
            most=10 if metric == "CIDEr-D" else 1,
        )
        rows.append(
            [
                title,
                escape(metric),
                f"<b>{_score(task['metrics'][metric])}</b>",
                bar,
                f"{_score(task['trivial'][best]['metrics'][metric])}<small>{escape(best)}</small>"
                if best
                else "n/a",
                clear[task["clear_of_trivial"]],
                *(_score(task[check]["metrics"][metric] if check in task else None) for check in checks),
                f"{100 * task['parse_failures']:.1f} %",
                str(task["n"]),
            ]
        )
    names = [CHECKS[check] for check in checks]
    header = ("task", "metric", "score", "", "best trivial answer", "clear of it", *names, "unparsed", "n")
    resamples = scores["bootstrap"]["resamples"]
    checked = " No sound, no picture: the same questions with that taken away." if checks else ""
    return (
        table(header, rows)
        + f"<p class=note>Split {escape(scores['split'])}. In brackets: 95 % bootstrap intervals, "
        f"{resamples} resamples. Blue: these answers; grey: the trivial answers, which use neither picture "
        f"nor sound.{checked}</p>"
    )


def task_section(folder: Path, name: str, task: Mapping[str, Any], who: str = "this model") -> str:
    """All metrics of a task, of each of its sources, and its page of samples, out of `folder`."""
    parts = [f"<h2 id={escape(name)}>{escape(task['title'])}</h2>", *_numbers(task, who)]
    for source, part in _sources(task).items():
        parts += [f"<h3 class=source>{escape(name)} of {escape(source)}</h3>", *_numbers(part, who)]
    parts.append(_samples(folder, name))
    return "\n".join(parts)


def missing(html: str) -> str:
    return f"<p class=missing>{html}</p>"


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


def _sources(task: Mapping[str, Any]) -> dict[str, Any]:
    return dict(task.get("sources") or {})


def _numbers(task: Mapping[str, Any], who: str) -> list[str]:
    trivial = task["trivial"]
    rows = [
        [
            f'<span title="{escape(task["definitions"].get(metric, ""))}">{escape(metric)}</span>',
            f"<b>{_score(score)}</b>",
            *(_score(t["metrics"].get(metric)) for t in trivial.values()),
        ]
        for metric, score in task["metrics"].items()
    ]
    parts = [table(("metric", who, *map(escape, trivial)), rows), _protocol(task)]
    gain = task.get("over_best_trivial")
    if gain:
        parts.append(
            f"<p class=note>{escape(task['headline'])} over the best trivial answer: {gain['value']:+.3f} "
            f"[{gain['low']:+.3f}, {gain['high']:+.3f}], paired bootstrap.</p>"
        )
    paper = task.get("paper")
    if paper:
        lines = [
            [f"<b>{escape(cell)}</b>" if row[0].startswith("this model") else escape(cell) for cell in row]
            for row in paper["rows"]
        ]
        listed = "".join(f"<li>{escape(text)}</li>" for text in paper["remarks"])
        parts += [
            f"<h3>Beside the paper's results on {escape(paper['title'])}, in percent</h3>",
            table(("", *map(escape, paper["columns"])), lines),
            f"<ul class=note>{listed}</ul>",
        ]
    groups = task["groups"]
    if groups:
        columns = list(dict.fromkeys(metric for row in groups["rows"].values() for metric in row["metrics"]))
        lines = [
            [escape(group), str(row["n"]), *(_score(row["metrics"].get(column)) for column in columns)]
            for group, row in groups["rows"].items()
        ]
        shown_table = table((groups["by"], "n", *map(escape, columns)), lines)
        if len(lines) > ROWS:
            told = f"{len(lines)} rows, by {escape(groups['by'])}"
            shown_table = f"<details><summary>{told}</summary>{shown_table}</details>"
        parts.append(f"<h3>By {escape(groups['by'])}</h3>{shown_table}")
    return parts


def _protocol(task: Mapping[str, Any]) -> str:
    lines = [
        f"{metric}: {task['definitions'][metric]}"
        for metric in task["metrics"]
        if metric in task["definitions"]
    ]
    lines += [
        f"{task['n']} samples, test list {task['test_list']}",
        f"{100 * task['parse_failures']:.1f} % of the answers could not be parsed; they count as wrong",
        *task_remarks(task),
    ]
    listed = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<details><summary>protocol</summary><ul>{listed}</ul></details>"


def _samples(folder: Path, name: str) -> str:
    rows, _ = rows_of(folder / f"{name}.jsonl")
    if not rows:
        return missing(f"No samples: {escape(folder.name)}/{escape(name)}.jsonl is missing or empty.")
    cards: list[str] = []
    lines: list[list[str]] = []
    for index, row in enumerate(rows[:ROWS]):
        picture = folder / "pictures" / f"{name}-{index:03d}.png"
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
