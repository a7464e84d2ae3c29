"""scores.json as text: one number with its interval, and the tables of scores.md."""

from __future__ import annotations

from typing import Any

CHECKS = {"without_audio": "no sound", "without_image": "no picture"}


def best_trivial(task: dict[str, Any]) -> str | None:
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


def as_markdown(scores: dict[str, Any]) -> str:
    """scores.json as tables: one line a task, then every metric of each task beside the trivial answers."""
    resamples = scores["bootstrap"]["resamples"]
    lines = [
        "# Scores",
        "",
        f"Split {scores['split']}; in brackets 95 % bootstrap intervals ({resamples} resamples).",
    ]
    if scores["skipped"]["count"]:
        lines.append(
            f"{scores['skipped']['count']} samples could not be read and were skipped: see scores.json."
        )
    lines += [
        "",
        "| task | metric | score | best trivial answer | clear | no sound | no picture | unparsed | n |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, task in scores["tasks"].items():
        metric = task["headline"]
        best = best_trivial(task)
        cells = [
            name,
            metric,
            shown(task["metrics"][metric]),
            f"{shown(task['trivial'][best]['metrics'][metric])} ({best})" if best else "n/a",
            {True: "yes", False: "no", None: "n/a"}[task["clear_of_trivial"]],
            *(shown(task[check]["metrics"][metric]) if check in task else "" for check in CHECKS),
            f"{100 * task['parse_failures']:.1f} %",
            str(task["n"]),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    for task in scores["tasks"].values():
        trivial = task["trivial"]
        lines += ["", f"## {task['title']}", "", f"{task['n']} samples, test list {task['test_list']}", ""]
        lines.append("| metric | score | " + " | ".join(trivial) + " | definition |")
        lines.append("|---" * (len(trivial) + 3) + "|")
        for metric, score in task["metrics"].items():
            cells = [shown(score), *(shown(t["metrics"].get(metric)) for t in trivial.values())]
            lines.append(f"| {metric} | " + " | ".join(cells) + f" | {task['definitions'].get(metric, '')} |")
        if task["groups"]:
            rows = task["groups"]["rows"]
            columns = list(next(iter(rows.values()))["metrics"])
            lines += [
                "",
                f"| {task['groups']['by']} | n | " + " | ".join(columns) + " |",
                "|---" * (len(columns) + 2) + "|",
            ]
            for group, row in rows.items():
                cells = [shown(row["metrics"].get(column)) for column in columns]
                lines.append(f"| {group} | {row['n']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
