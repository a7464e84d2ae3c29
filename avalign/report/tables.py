"""scores.json as text: one number with its interval, and the tables of scores.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from avalign.system.escape import markdown
from avalign.system.markdown_table import table

CHECKS = {"without_audio": "no sound", "without_image": "no picture"}


def best_trivial(task: Mapping[str, Any]) -> str | None:
    """The trivial answer with the highest headline."""
    values = {name: t["metrics"][task["headline"]]["value"] for name, t in task["trivial"].items()}
    return max(
        (name for name in values if values[name] is not None), key=lambda name: values[name], default=None
    )


def shown(score: dict[str, float | None] | None) -> str:
    """{"value": 0.5123, "low": 0.48, "high": 0.545} -> "0.512 [0.480, 0.545]"; not available -> "n/a"."""
    if score is None or score["value"] is None:
        return "n/a"
    if score["low"] is None or score["high"] is None:
        return f"{score['value']:.3f}"
    return f"{score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}]"


def remarks(scores: Mapping[str, Any]) -> list[str]:
    """What predictions and records had in common, and how long clips were taken to be; none for a model's
    own answers."""
    said = []
    predictions = scores.get("predictions")
    if predictions:
        absent, found = (
            predictions["missing"]["count"],
            predictions["records"] - predictions["missing"]["count"],
        )
        line = f"{found} of {predictions['records']} records were answered in {predictions['file']}"
        if absent and predictions["partial"]:
            line += ": ONLY THESE ARE SCORED, this is not the whole test list"
        elif absent:
            line += f": the {absent} others count as wrong and unparsed"
        said.append(line + _named(predictions["missing"]["first"], absent))
        for kind, what in (
            ("unknown", "predictions are of no record asked for and were left out"),
            ("repeated", "lines repeat an id; its first line counts"),
            ("unreadable", "lines could not be read"),
            ("unusable heat map", "heat maps could not be used and count as 0"),
        ):
            count = predictions[kind]["count"]
            if count:
                said.append(f"{count} {what}{_named(predictions[kind]['first'], count)}")
    lengths = scores.get("clip_lengths")
    if lengths:
        known = ", ".join(
            f"{lengths[way]} by {said_by}"
            for way, said_by in (
                ("span", "the record's span"),
                ("provenance", "its provenance"),
                ("prediction", "the prediction's line"),
                ("file", "the sound's file"),
            )
            if lengths[way]
        )
        line = f"igatl: lengths of clips known: {known or 'none'}"
        if lengths["unknown"]:
            line += (
                f"; not known: {lengths['unknown']}, taken as {lengths['unknown_taken_as']:g} s, or as the "
                "last true end where that is later"
            )
        said.append(line + ".")
    return said


def _named(first: Sequence[str], count: int, most: int = 5) -> str:
    some = ", ".join(text if len(text) <= 160 else text[:160] + "..." for text in first[:most])
    return f": {some}{', ...' if count > most else ''}." if first else "."


def task_remarks(task: Mapping[str, Any]) -> list[str]:
    """How its trivial answers were learnt, and how many answers came with a heat map."""
    said = []
    if task.get("trained_on") == 0:
        said.append("no training records: trivial answers that are learnt from them are left out")
    elif task.get("trained_on"):
        said.append(f"trivial answers learnt from the first {task['trained_on']} training samples")
    if task.get("maps") is not None:
        said.append(f"heat maps came with {task['maps']} of {task['n']} answers; the others' count as 0")
    unread = task.get("unparsed")
    if unread and unread["count"]:
        first = ", ".join(f"«{' '.join(answer.split())}»" for answer in unread["first"])
        said.append(
            f"{unread['count']} of {task['n']} answers could not be read and count as wrong, such as {first}"
        )
    return said


def as_markdown(scores: Mapping[str, Any]) -> str:
    """scores.json as tables: one line a task, then every metric of each task beside the trivial answers."""
    resamples = scores["bootstrap"]["resamples"]
    lines = [
        "# Scores",
        "",
        f"Split {markdown(scores['split'])}; in brackets 95 % bootstrap intervals ({resamples} resamples).",
    ]
    if scores["skipped"]["count"]:
        lines.append(
            f"{scores['skipped']['count']} samples could not be read and were skipped: see scores.json."
        )
    lines += [f"\n{markdown(remark)}" for remark in remarks(scores)]
    rows = []
    for name, task in scores["tasks"].items():
        rows.append(_headline(name, task))
        sources = task.get("sources") or {}
        rows += [_headline(f"{name} of {source}", part) for source, part in sources.items()]
    best, checks = "best trivial answer", CHECKS.values()
    lines += ["", *table(["task", "metric", "score", best, "clear", *checks, "unparsed", "n"], rows)]
    for task in scores["tasks"].values():
        lines += _section(f"## {markdown(task['title'])}", task)
        for source, part in (task.get("sources") or {}).items():
            lines += _section(f"### {markdown(task['title'])}, of {markdown(source)}", part)
    return "\n".join(lines) + "\n"


def _headline(name: str, task: Mapping[str, Any]) -> list[str]:
    metric, best = task["headline"], best_trivial(task)
    return [
        name,
        metric,
        shown(task["metrics"][metric]),
        f"{shown(task['trivial'][best]['metrics'][metric])} ({best})" if best else "n/a",
        {True: "yes", False: "no", None: "n/a"}[task["clear_of_trivial"]],
        *(shown(task[check]["metrics"][metric]) if check in task else "" for check in CHECKS),
        f"{100 * task['parse_failures']:.1f} %",
        str(task["n"]),
    ]


def _section(title: str, task: Mapping[str, Any]) -> list[str]:
    trivial = task["trivial"]
    lines = ["", title, "", f"{task['n']} samples, test list {markdown(task['test_list'])}", ""]
    lines += [f"{markdown(remark)}\n" for remark in task_remarks(task)]
    lines += table(
        ["metric", "score", *trivial, "definition"],
        [
            [
                metric,
                shown(score),
                *(shown(t["metrics"].get(metric)) for t in trivial.values()),
                task["definitions"].get(metric, ""),
            ]
            for metric, score in task["metrics"].items()
        ],
    )
    paper = task.get("paper")
    if paper:
        lines += ["", f"Beside the paper's results on {markdown(paper['title'])}, in percent:", ""]
        lines += table(["", *paper["columns"]], paper["rows"])
        lines += ["", *(f"- {markdown(remark)}" for remark in paper["remarks"])]
    if task["groups"]:
        rows = task["groups"]["rows"]
        columns = list(next(iter(rows.values()))["metrics"])
        lines.append("")
        lines += table(
            [task["groups"]["by"], "n", *columns],
            [
                [group, str(found["n"]), *(shown(found["metrics"].get(column)) for column in columns)]
                for group, found in rows.items()
            ],
        )
    return lines
