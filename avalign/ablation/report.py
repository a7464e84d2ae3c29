"""A study's table as files: table.json, table.md, and report.html with a plot of every metric."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from avalign.ablation.tables import as_markdown, clear, heading, n_of, shown, took, within
from avalign.meerkatbench.page import folded, table, whole_page
from avalign.whole import write_whole

WIDTH, LEFT, RIGHT, ROW, TOP, BOTTOM = 520, 150, 14, 24, 8, 20  # pixels
BLUE, FAINT, GREY = "#0072b2", "#9aa4ab", "#dde3e6"


def write(results: dict[str, Any], folder: Path) -> Path:
    """Write the three files into `folder`, again and again while runs go on; returns the page."""
    write_whole(folder / "table.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
    write_whole(folder / "table.md", as_markdown(results))
    write_whole(folder / "report.html", page(results))
    return folder / "report.html"


def page(results: dict[str, Any]) -> str:
    names = list(results["metrics"])
    warnings = "".join(f"<li>{escape(text)}</li>" for text in results["warnings"])
    body = [
        f"<header><h1>{escape(results['study'])}</h1><p>{escape(results['about'])}</p></header>",
        f"<ul class=warnings>{warnings}</ul>" if warnings else "",
        "<h2 id=scores>Scores</h2>",
        _scores(results, names),
        f"<p class=note>{escape(' '.join(heading(results)))}</p>",
        f"<h2 id=differences>Less {escape(results['reference'])}</h2>",
        _differences(results, names),
        "<p class=note>Below each: the same models on other test samples, 95 % bootstrap within each seed, "
        f"{results['resamples']} resamples. It says nothing of other seeds.</p>",
        "<h2 id=plots>Plots</h2>",
        "<p class=note>Dots: seeds. Bars: Student's 95 % intervals over seeds. Dashed: the best trivial "
        "answer on the left, no difference on the right.</p>",
        *(_plots(results, name) for name in names),
        "<h2 id=runs>Runs</h2>",
        _runs(results),
        folded("what the metrics are", "\n".join(f"{k}: {v}" for k, v in results["metrics"].items())),
    ]
    links = [(x, x.capitalize()) for x in ("scores", "differences", "plots", "runs")]
    return whole_page(f"{results['study']}, a study", links, body)


def _two(text: str) -> str:
    """A number, and its interval in a fainter hand."""
    value, _, interval = text.partition(" ")
    return f"{escape(value)}<small>{escape(interval)}</small>" if interval else escape(value)


def _head(names: Sequence[str]) -> list[str]:
    return [f"{escape(task)}<br>{escape(metric)}" for task, _, metric in (n.partition("/") for n in names)]


def _scores(results: dict[str, Any], names: Sequence[str]) -> str:
    rows = [
        [
            f"<b>{escape(label)}</b>",
            *(_two(shown(arm["scores"][name])) for name in names),
            escape(took(arm["seconds"])),
            n_of(arm),
        ]
        for label, arm in results["arms"].items()
    ]
    trivial = [results["trivial"][name] for name in names]
    cells = (
        "n/a" if one is None else _two(shown(one)) + f"<small>{escape(one['name'])}</small>"
        for one in trivial
    )
    rows.append(["best trivial answer", *cells, "", ""])
    return table(("arm", *_head(names), "time", "n"), rows)


def _differences(results: dict[str, Any], names: Sequence[str]) -> str:
    rows = []
    for label, arm in results["arms"].items():
        if label != results["reference"]:
            cells = []
            for name in names:
                found = arm["scores"][name]["difference"]
                cell = _two(shown(found, sign=True))
                cell = f"<b>{cell}</b>" if clear(found) else cell
                cells.append(f"{cell}<small>{escape(within(found).partition(' ')[2])}</small>")
            rows.append([f"<b>{escape(label)}</b>", *cells])
    return table(("arm", *_head(names)), rows) + "<p class=note>Bold: the interval leaves out 0.</p>"


def _runs(results: dict[str, Any]) -> str:
    rows = [
        [
            escape(label),
            str(run["seed"]),
            f'<a href="{escape(run["folder"])}/report.html">{escape(run["folder"])}</a>'
            if run["finished"]
            else "not finished",
            run["took"] or "n/a",
            str(run["attempts"]),
        ]
        for label, arm in results["arms"].items()
        for run in arm["runs"]
    ]
    commits = ", ".join(results["commits"]) or "unknown"
    shown_rows = table(("arm", "seed", "report", "time", "times started"), rows)
    return f"{shown_rows}<p class=note>Commit: {escape(commits)}.</p>"


# ---- plots ----


def _plots(results: dict[str, Any], name: str) -> str:
    arms = results["arms"]
    scores = [(label, arm["scores"][name]) for label, arm in arms.items()]
    less = [(x, arm["scores"][name]["difference"]) for x, arm in arms.items() if x != results["reference"]]
    trivial = results["trivial"][name]
    left = _plot(name, scores, None if trivial is None else trivial["mean"])
    right = _plot(f"{name}, less {results['reference']}", less, 0.0)
    return f'<div class=curves style="grid-template-columns:1fr 1fr">{left}{right}</div>'


def _plot(title: str, rows: Sequence[tuple[str, dict[str, Any] | None]], line: float | None) -> str:
    """A row an arm: its seeds as dots, its mean and interval as a bar; a dashed line at `line`."""
    there = [(label, row) for label, row in rows if row is not None and row["mean"] is not None]
    if not there:
        return f"<figure><figcaption>{escape(title)}<small>nothing to show</small></figcaption></figure>"
    numbers = [
        x for _, row in there for x in (row["low"], row["high"], *row["values"].values()) if x is not None
    ]
    numbers += [] if line is None else [line]
    low, high = min(numbers), max(numbers)
    margin = 0.04 * (high - low) or 0.5
    low, high = low - margin, high + margin
    height = TOP + ROW * len(there) + BOTTOM

    def at(x: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (x - low) / (high - low)

    drawn = []
    for x in _round_numbers(low, high):
        drawn.append(
            f'<line x1="{at(x):.1f}" x2="{at(x):.1f}" y1="{TOP}" y2="{height - BOTTOM}" stroke="{GREY}"/>'
            f'<text x="{at(x):.1f}" y="{height - 5}" text-anchor="middle">{x:.3g}</text>'
        )
    if line is not None:
        drawn.append(
            f'<line x1="{at(line):.1f}" x2="{at(line):.1f}" y1="{TOP}" y2="{height - BOTTOM}" '
            f'stroke="{FAINT}" stroke-dasharray="4 3" stroke-width="1.4"/>'
        )
    for i, (label, row) in enumerate(there):
        y = TOP + ROW * (i + 0.5)
        drawn.append(f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{escape(label)}</text>')
        if row["low"] is not None:
            drawn.append(
                f'<line x1="{at(row["low"]):.1f}" x2="{at(row["high"]):.1f}" y1="{y}" y2="{y}" '
                f'stroke="{BLUE}" stroke-width="2.4" stroke-linecap="round" opacity="0.45"/>'
            )
        mean = at(row["mean"])
        drawn.append(
            f'<line x1="{mean:.1f}" x2="{mean:.1f}" y1="{y - 6}" y2="{y + 6}" stroke="{BLUE}" '
            'stroke-width="2.4"/>'
        )
        for seed, value in row["values"].items():
            drawn.append(
                f'<circle cx="{at(value):.1f}" cy="{y}" r="3" fill="{BLUE}"><title>seed {escape(seed)}: '
                f"{value:.4f}</title></circle>"
            )
    return (
        f"<figure><figcaption>{escape(title)}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">{"".join(drawn)}</svg>'
        "</figure>"
    )


def _round_numbers(low: float, high: float) -> list[float]:
    """Two to five multiples of 1, 2 or 5 times a power of ten, within low..high."""
    unit = 10.0 ** math.floor(math.log10((high - low) / 2))
    step = next(m * unit for m in (1, 2, 5, 10) if (high - low) / (m * unit) <= 4)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
