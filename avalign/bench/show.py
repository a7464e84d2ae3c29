"""A report of bench-loss as tables, as JSON and as a figure."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from avalign.bench.machine import warnings_of
from avalign.system.atomic_write import atomic_write, unfinished

HEADER = (
    "loss",
    "engine",
    "forward ms",
    "fwd + bwd ms",
    "quartiles",
    "x ours",
    "of floor",
    "memory MiB",
    "iterations",
    "marginal error",
    "value error",
    "gradient error",
)


def header(report: dict[str, Any]) -> tuple[str, ...]:
    return (*HEADER, "GPU ms") if "gpu" in report["machine"] else HEADER


def heading(report: dict[str, Any]) -> list[str]:
    """What was measured on what, and what spoils it."""
    machine, setup, rates = report["machine"], report["settings"], report["rates"]
    ends = (
        f"{setup['iterations']} iterations"
        if setup["tolerance"] is None
        else f"marginal error {setup['tolerance']:g} (L1 of mass 1, worst item)"
    )
    lines = [
        f"{machine.get('gpu', machine['processor'])}, {machine['threads']} of {machine['cores']} threads, "
        f"torch {report['versions']['torch']}, avalign {report['versions']['commit'][:12]}",
        f"epsilon {setup['epsilon']:g}, {ends}, {setup['dtype']}, {setup['repeats']} repeats, interleaved",
    ]
    for name, rate in rates["product"].items():
        lines.append(f"products in {name}: {rate['value'] / 1e9:.0f} G operations/s ({rate['source']})")
    lines.append(
        f"copy: {rates['copy']['value'] / 1e9:.1f} GB/s read and written ({rates['copy']['source']})"
    )
    return lines + [f"warning: {line}" for line in warnings_of(machine)]


def tables(report: dict[str, Any]) -> list[tuple[str, list[tuple[str, ...]], list[str]]]:
    """For each problem a title, its rows under the header, quickest first, and the notes below them."""
    found = []
    on_gpu = "gpu" in report["machine"]
    width = len(header(report))
    for problem in report["problems"]:
        measured = [row for row in problem["rows"] if row["status"] == "measured"]
        measured.sort(key=lambda row: row["step"]["median"])
        rows = [_row(row, on_gpu) for row in measured]
        notes = [f"{row['name']}: {row['note']}" for row in measured if row["note"]]
        for row in problem["rows"]:
            if row["status"] != "measured":
                rows.append((row["name"], row["status"], *[""] * (width - 2)))
                notes.append(f"{row['name']}: {row['status']}: {row['note']}")
        for item in problem["bracket"]:
            notes.append(
                f"certified: {item['lower']:.5f} <= exact cost {item['exact']:.5f} <= {item['upper']:.5f}"
            )
        floors = ", ".join(f"{name} {_ms(seconds)} ms" for name, seconds in problem["floor"].items())
        shape = "x".join(str(problem["shape"][k]) for k in "bnmd")
        found.append((f"{shape}  (floor: {floors})", rows, notes))
    return found


def write_json(report: dict[str, Any], path: Path) -> None:
    """NaN and infinity, which JSON has not, are written as null."""
    atomic_write(path, json.dumps(_finite(report), indent=1, allow_nan=False) + "\n")


def plot(report: dict[str, Any], path: Path) -> bool:
    """For each problem: time with its quartiles, and the error of the gradient.

    Returns: whether there is a figure: not where nothing was measured
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    problems = [p for p in report["problems"] if any(r["status"] == "measured" for r in p["rows"])]
    if not problems:
        return False
    most = max(len(p["rows"]) for p in problems)
    figure = Figure(figsize=(11, len(problems) * (1.2 + 0.28 * most)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(problems), 2, squeeze=False)
    for (left, right), problem in zip(axes, problems, strict=True):
        rows = [row for row in problem["rows"] if row["status"] == "measured"]
        rows.sort(key=lambda row: -row["step"]["median"])
        names = [row["name"] for row in rows]
        colours = ["tab:blue" if row["ours"] else "tab:grey" for row in rows]
        medians = [1e3 * row["step"]["median"] for row in rows]
        ends = [[1e3 * end for end in row["step"]["quartiles"]] for row in rows]
        spread = [
            [m - low for m, (low, _) in zip(medians, ends, strict=True)],
            [high - m for m, (_, high) in zip(medians, ends, strict=True)],
        ]
        left.barh(names, medians, color=colours, xerr=spread, error_kw={"linewidth": 1})
        left.set_xscale("log")
        left.set_xlabel("forward + backward, ms (median, quartiles)")
        shape = "x".join(str(problem["shape"][k]) for k in "bnmd")
        left.set_title(f"{shape}, epsilon {report['settings']['epsilon']:g}", fontsize=10)
        for name, floor in problem["floor"].items():
            left.axvline(
                1e3 * floor, color="black", linewidth=0.8, linestyle=_STYLE[name], label=f"floor, {name}"
            )
        left.legend(fontsize=7)
        right.barh(names, [_drawable(row["gradient_error"]) for row in rows], color=colours)
        right.set_xscale("log")
        right.set_xlabel("gradient's relative error against float64, converged")
        right.set_yticklabels([])
    with unfinished(path) as beside:
        figure.savefig(beside, dpi=130, format=path.suffix[1:].lower() or "png")
    return True


_STYLE = {"float32": "-", "bfloat16": ":"}


def _row(row: dict[str, Any], on_gpu: bool) -> tuple[str, ...]:
    engine = row["engine"] + (" bf16" if row["products"] == "bfloat16" else "")
    low, high = row["step"]["quartiles"]
    memory, iterations = row["peak_memory"], row["iterations"]
    cells = (
        row["name"],
        engine,
        _ms(row["forward"]["median"]),
        _ms(row["step"]["median"]),
        f"{_ms(low)} .. {_ms(high)}",
        f"{row['ratio']:.2f}" if "ratio" in row else "",
        f"{row['share_of_floor']:.0%}",
        "" if memory is None else f"{memory / 2**20:.1f}",
        "" if iterations is None else f"{iterations:.0f}",
        f"{row['marginal_error']['worst']:.1e}",
        f"{row['value_error']:.1e}",
        f"{row['gradient_error']:.1e}",
    )
    return (*cells, _ms(row["step"]["device_seconds"])) if on_gpu else cells


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3g}" if seconds < 1 else f"{1e3 * seconds:.0f}"


def _drawable(error: float) -> float:
    """An error of 0 or NaN has no place on a logarithmic axis: an empty bar."""
    return error if math.isfinite(error) and error > 0 else math.nan


def _finite(found: Any) -> Any:
    if isinstance(found, dict):
        return {name: _finite(each) for name, each in found.items()}
    if isinstance(found, list | tuple):
        return [_finite(each) for each in found]
    return None if isinstance(found, float) and not math.isfinite(found) else found
