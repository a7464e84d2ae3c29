"""A study's table as text: an arm a line, a metric a column; then the differences to the reference."""

from __future__ import annotations

from typing import Any

from avalign.studies.grid import duration
from avalign.system.escape import markdown
from avalign.system.markdown_table import table as markdown_table


def shown(score: dict[str, Any] | None, sign: bool = False) -> str:
    """{"mean": 0.5123, "low": 0.48, "high": 0.545, ...} -> "0.512 [0.480, 0.545]"; nothing there -> "n/a"."""
    if score is None or score["mean"] is None:
        return "n/a"
    form = "+.3f" if sign else ".3f"
    if score["low"] is None:
        return f"{score['mean']:{form}}"
    return f"{score['mean']:{form}} [{score['low']:{form}}, {score['high']:{form}}]"


def clear(difference: dict[str, Any] | None) -> bool:
    """Whether the interval over seeds leaves out 0."""
    return (
        difference is not None
        and difference["low"] is not None
        and difference["low"] * difference["high"] > 0
    )


def took(seconds: dict[str, Any]) -> str:
    return "n/a" if seconds["mean"] is None else duration(seconds["mean"])


def heading(table: dict[str, Any]) -> list[str]:
    """What the numbers are, a sentence a line."""
    seeds = len(table["seeds"])
    scored = sorted({n for counts in table["test_samples"].values() for n in counts})
    samples = " or ".join(map(str, scored)) or "no"
    threads = sorted({n for arm in table["arms"].values() for run in arm["runs"] for n in run["threads"]})
    at_once = sorted({n for arm in table["arms"].values() for run in arm["runs"] for n in run["at_once"]})
    said = [
        f"{seeds} seeds ({', '.join(map(str, table['seeds']))}), {samples} test samples a task and seed.",
        "Each score is the mean over seeds, in brackets Student's 95 % interval over seeds (other seeds, "
        "other test samples); it may pass the ends of the metric's range.",
        f"Differences are to {table['reference']!r}, seed by seed on the same test samples; * marks an "
        "interval that leaves out 0. No correction for the number of comparisons.",
    ]
    if threads:
        said.append(
            f"Time is of training and scoring, on {' or '.join(map(str, threads))} threads, "
            f"{' or '.join(map(str, at_once))} runs at once."
        )
    return said


def header(table: dict[str, Any]) -> list[str]:
    return ["arm", *(name.replace("/", " (", 1) + ")" for name in table["metrics"]), "time", "n"]


def n_of(arm: dict[str, Any]) -> str:
    """Finished runs of those asked for: "3", "2 of 3"."""
    there = sum(run["finished"] for run in arm["runs"])
    return str(there) if there == len(arm["runs"]) else f"{there} of {len(arm['runs'])}"


def as_markdown(table: dict[str, Any]) -> str:
    names = list(table["metrics"])
    columns = header(table)
    lines = [f"# {markdown(table['study'])}", ""]
    lines += [markdown(table["about"]), ""] if table["about"] else []
    lines += [" ".join(map(markdown, heading(table))), ""]
    lines += [f"- {markdown(warning)}" for warning in table["warnings"]] + [""] * bool(table["warnings"])
    scores = [
        [label, *(shown(arm["scores"][name]) for name in names), took(arm["seconds"]), n_of(arm)]
        for label, arm in table["arms"].items()
    ]
    scores.append(["best trivial answer", *(_trivial(table["trivial"][name]) for name in names), "", ""])
    lines += markdown_table(columns, scores)
    less = {
        label: [arm["scores"][name]["difference"] for name in names]
        for label, arm in table["arms"].items()
        if label != table["reference"]
    }
    columns = columns[: len(names) + 1]
    lines += ["", f"## Less {markdown(table['reference'])}", ""]
    starred = {x: [shown(one, sign=True) + " *" * clear(one) for one in found] for x, found in less.items()}
    lines += markdown_table(columns, [[label, *cells] for label, cells in starred.items()])
    lines += ["", "In the same models, on other test samples (bootstrap within each seed):", ""]
    lines += markdown_table(columns, [[label, *map(within, found)] for label, found in less.items()])
    return "\n".join(lines) + "\n"


def within(difference: dict[str, Any] | None) -> str:
    """The interval over test samples, of one difference."""
    if difference is None or difference["samples"] is None:
        return "n/a"
    low, high = difference["samples"]
    return f"{difference['mean']:+.3f} [{low:+.3f}, {high:+.3f}]"


def _trivial(trivial: dict[str, Any] | None) -> str:
    return "n/a" if trivial is None else f"{shown(trivial)}, {trivial['name']}"
