"""Small drawings of the report in SVG: loss curves and intervals of scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 340, 160, 44, 6, 18, 20  # pixels
BLUE, FAINT, SHADES = "#0072b2", "#9aa4ab", ("#f3f6f8", "#ffffff")


def curves(log: Sequence[dict[str, Any]]) -> str:
    """One plot for every logged number, over steps counted through all stages; stages are shaded and named.

    log: {"stage", "step", name: number, ...} a line. Of a step logged twice (after a resume) the last counts.
    """
    lines = _in_order(log)
    names = list(
        dict.fromkeys(key for _, _, line in lines for key, value in line.items() if _is_curve(key, value))
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
        points = [(x, float(line[name])) for x, _, line in lines if _is_curve(name, line.get(name))]
        points = [(x, y) for x, y in points if math.isfinite(y)]
        if points:
            plots.append(_curve(name, points, stages))
    return f"<div class=curves>{''.join(plots)}</div>"


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


def _is_curve(key: str, value: Any) -> bool:
    return key not in ("stage", "step") and isinstance(value, int | float) and not isinstance(value, bool)


def _curve(name: str, points: Sequence[tuple[int, float]], stages: Sequence[tuple[str, int, int]]) -> str:
    low, high = min(y for _, y in points), max(y for _, y in points)
    logarithmic = low > 0 and high / low > 20
    scale = math.log10 if logarithmic else float
    bottom, top = scale(low), scale(high)
    if top - bottom < 1e-12:
        bottom, top = bottom - 0.5, top + 0.5
    end = max(1, stages[-1][2])

    def at(x: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * x / end

    def up(y: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (top - scale(y)) / (top - bottom)

    drawn = []
    for k, (stage, start, stop) in enumerate(stages):
        width = at(stop) - at(start)
        drawn.append(
            f'<rect x="{at(start):.1f}" y="{TOP}" width="{width:.1f}" height="{HEIGHT - TOP - BOTTOM}" '
            f'fill="{SHADES[k % 2]}"/>'
        )
        if width > 7 * len(stage):
            drawn.append(f'<text x="{at(start) + 2:.1f}" y="{TOP - 6}">{escape(stage)}</text>')
    for y in _ticks(low, high, logarithmic):
        drawn.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(y):.1f}" y2="{up(y):.1f}" stroke="#dde3e6"/>'
            f'<text x="{LEFT - 5}" y="{up(y) + 4:.1f}" text-anchor="end">{y:.3g}</text>'
        )
    path = " ".join(f"{at(x):.1f},{up(y):.1f}" for x, y in points)
    drawn.append(
        f'<polyline points="{path}" fill="none" stroke="{BLUE}" stroke-width="1.4" stroke-linejoin="round"/>'
    )
    if len(points) == 1:
        drawn.append(
            f'<circle cx="{at(points[0][0]):.1f}" cy="{up(points[0][1]):.1f}" r="2.5" fill="{BLUE}"/>'
        )
    drawn.append(f'<text x="{LEFT}" y="{HEIGHT - 5}">0</text>')
    drawn.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 5}" text-anchor="end">{end} steps</text>')
    note = f"last {points[-1][1]:.4g}" + (", log scale" if logarithmic else "")
    return (
        f"<figure><figcaption>{escape(name)}<small>{note}</small></figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(name)}">{"".join(drawn)}</svg>'
        "</figure>"
    )


def _ticks(low: float, high: float, logarithmic: bool) -> list[float]:
    """Two to five round numbers within low..high; powers of ten on a logarithmic scale, 2 and 5 if few."""
    if logarithmic:
        powers = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
        leading = (1, 2, 5) if len(powers) < 4 else (1,)
        ticks = [m * 10.0**k for k in powers for m in leading if low <= m * 10.0**k <= high]
        return ticks[:: max(1, math.ceil(len(ticks) / 5))]
    if high - low < 1e-12:
        return [low]
    unit = 10.0 ** math.floor(math.log10((high - low) / 2))
    step = next(m * unit for m in (1, 2, 5, 10) if (high - low) / (m * unit) <= 4)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def interval_bar(score: dict[str, Any], others: Sequence[dict[str, Any]], *, most: float) -> str:
    """A score with its interval in blue on 0..most, those of the trivial answers in grey."""
    width, height, edge = 170, 26, 4

    def at(x: float) -> float:
        return edge + (width - 2 * edge) * min(max(x / most, 0.0), 1.0)

    def mark(one: dict[str, Any], y: float, colour: str, thick: float) -> str:
        if one["value"] is None:
            return ""
        low, high = (one["value"] if one[end] is None else one[end] for end in ("low", "high"))
        return (
            f'<line x1="{at(low):.1f}" x2="{at(high):.1f}" y1="{y}" y2="{y}" stroke="{colour}" '
            f'stroke-width="{thick}" stroke-linecap="round"/>'
            f'<circle cx="{at(one["value"]):.1f}" cy="{y}" r="{thick + 1.2}" fill="{colour}"/>'
        )

    frame = f'<line x1="{edge}" x2="{width - edge}" y1="{height - 4}" y2="{height - 4}" stroke="#dde3e6"/>'
    marks = "".join(mark(other, 16.5, FAINT, 1.6) for other in others) + mark(score, 8, BLUE, 2.8)
    size = f'width="{width}" height="{height}"'
    return f'<svg class="bar" {size} role="img" aria-label="intervals">{frame}{marks}</svg>'
