"""Small drawings of the pages, laid out for templates/drawings.html: loss curves, intervals of scores, forest
plots. Every length is in pixels, and rounded to a tenth where it came of a number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from avalign.report.ticks import ticks

# ---- what was logged, over steps ----


def metric_curves(log: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One plot for every logged number, over steps counted through all stages; stages are shaded and named.

    log: {"stage", "step", name: number, ...} a line. Of a step logged twice (after a resume) the last counts.
    """
    lines = _in_order(log)
    names = list(
        dict.fromkeys(key for _, _, line in lines for key, value in line.items() if _is_metric(key, value))
    )
    names.sort(
        key=lambda name: ("loss", "learning_rate").index(name) * 2 if name in ("loss", "learning_rate") else 1
    )
    stages: list[tuple[str, int, int]] = []
    for x, stage, _ in lines:
        if stages and stages[-1][0] == stage:
            stages[-1] = (stage, stages[-1][1], x)
        else:
            stages.append((stage, stages[-1][2] if stages else 0, x))
    plots = []
    for name in names:
        points = [(x, float(line[name])) for x, _, line in lines if _is_metric(name, line.get(name))]
        points = [(x, y) for x, y in points if math.isfinite(y)]
        if points:
            plots.append(_metric_curve(name, points, stages))
    return plots


def _in_order(log: Sequence[dict[str, Any]]) -> list[tuple[int, str, dict[str, Any]]]:
    """(step counted through all stages, stage, line), whether or not the log counts anew in each stage."""
    last = {(str(line.get("stage", "")), int(line.get("step", 0))): line for line in log}
    offset, latest, previous = 0, 0, None
    ordered = []
    for (stage, step), line in sorted(last.items(), key=lambda item: (_first(log, item[0][0]), item[0][1])):
        if stage != previous and step + offset < latest:
            offset = latest
        previous, latest = stage, step + offset
        ordered.append((latest, stage, line))
    return ordered


def _first(log: Sequence[dict[str, Any]], stage: str) -> int:
    return next(i for i, line in enumerate(log) if str(line.get("stage", "")) == stage)


def _is_metric(key: str, value: Any) -> bool:
    return key not in ("stage", "step") and isinstance(value, int | float) and not isinstance(value, bool)


def _metric_curve(
    name: str, points: Sequence[tuple[int, float]], stages: Sequence[tuple[str, int, int]]
) -> dict[str, Any]:
    width, height, left, right, top, bottom = 340, 160, 44, 334, 18, 140
    low, high = min(y for _, y in points), max(y for _, y in points)
    logarithmic = low > 0 and high / low > 20
    scale = math.log10 if logarithmic else float
    lowest, highest = scale(low), scale(high)
    if highest - lowest < 1e-12:
        lowest, highest = lowest - 0.5, highest + 0.5
    end = max(1, stages[-1][2])

    def at(x: float) -> float:
        return left + (right - left) * x / end

    def up(y: float) -> float:
        return top + (bottom - top) * (highest - scale(y)) / (highest - lowest)

    return {
        **{"name": name, "width": width, "height": height},
        **{"left": left, "right": right, "top": top, "bottom": bottom},
        "note": f"last {points[-1][1]:.4g}" + (", log scale" if logarithmic else ""),
        "stages": [
            {
                "name": stage,
                "x": round(at(start), 1),
                "width": round(at(stop) - at(start), 1),
                "name_fits": at(stop) - at(start) > 7 * len(stage),
            }
            for stage, start, stop in stages
        ],
        "ticks": [(round(up(y), 1), f"{y:.3g}") for y in ticks(low, high, logarithmic=logarithmic)],
        "points": [(round(at(x), 1), round(up(y), 1)) for x, y in points],
        "steps": end,
    }


# ---- scores ----


def interval_bar(
    score: Mapping[str, Any], others: Sequence[Mapping[str, Any]], *, most: float
) -> dict[str, Any]:
    """A score with its interval on 0..most, beside those of the trivial answers."""
    width, height, left, right = 170, 26, 4, 166

    def at(x: float) -> float:
        return round(left + (right - left) * min(max(x / most, 0.0), 1.0), 1)

    def mark(one: Mapping[str, Any]) -> dict[str, float] | None:
        if one["value"] is None:
            return None
        return {key: at(one["value"] if one[key] is None else one[key]) for key in ("low", "value", "high")}

    return {
        **{"width": width, "height": height, "left": left, "right": right},
        **{"score": mark(score), "others": [found for found in map(mark, others) if found is not None]},
    }


def forest_plot(
    name: str, rows: Sequence[tuple[str, Mapping[str, Any] | None]], dashed: float | None
) -> dict[str, Any]:
    """A row for each label: its values as dots, its mean and interval as a bar; a dashed line at a number.

    rows: (label, {"mean", "low", "high", "values": {seed: number}}); those without a mean are left out
    """
    width, left, right, row_height, top, below = 520, 150, 506, 24, 8, 20
    there = [(label, row) for label, row in rows if row is not None and row["mean"] is not None]
    if not there:
        return {"name": name, "rows": []}
    numbers = [
        x for _, row in there for x in (row["low"], row["high"], *row["values"].values()) if x is not None
    ]
    numbers += [] if dashed is None else [dashed]
    low, high = min(numbers), max(numbers)
    margin = 0.04 * (high - low) or 0.5
    low, high = low - margin, high + margin
    bottom = top + row_height * len(there)

    def at(x: float) -> float:
        return round(left + (right - left) * (x - low) / (high - low), 1)

    return {
        **{"name": name, "width": width, "height": bottom + below},
        **{"left": left, "top": top, "bottom": bottom},
        "dashed": None if dashed is None else at(dashed),
        "ticks": [(at(x), f"{x:.3g}") for x in ticks(low, high)],
        "rows": [
            {
                **{"label": label, "y": top + row_height * (i + 0.5), "mean": at(row["mean"])},
                "low": None if row["low"] is None else at(row["low"]),
                "high": None if row["low"] is None else at(row["high"]),
                "dots": [(at(value), f"seed {seed}: {value:.4f}") for seed, value in row["values"].items()],
            }
            for i, (label, row) in enumerate(there)
        ],
    }
