"""How time and memory grow with items, patches, tokens, size of a feature and epsilon.

    python benchmarks/ot/scaling.py --out results

One of the five is changed at a time from 16x196x64x512 at epsilon 0.05, to a marginal error of 1e-3.
Leaves results.csv, each line with its machine, versions and commit, and scaling.png. Small sizes for a
try: --base 2x20x13x16 --factor 1 --factor 2 --repeats 2.
"""

from __future__ import annotations

import argparse
import csv
import re
from pathlib import Path
from typing import Any

from run import measure

BASE = "16x196x64x512"
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
EPSILONS = ("0.2", "0.1", "0.05", "0.02", "0.01", "0.005")
# The quickest of each library, and both of ours that differ in kind.
BACKENDS = ("sinkhorn", "sinkhorn-torch", "exact", "pot-batch-detached", "ott-kernel", "ott-log", "geomloss")
SIDES = {"b": "items", "n": "patches", "m": "audio tokens", "d": "size of a feature"}
PACKAGES = ("torch", "pot", "jax", "ott-jax", "geomloss", "commit")


def sweep(base: tuple[int, ...], factors: list[float], side: str) -> list[str]:
    """Shapes in which one side is so many times as large."""
    at = "bnmd".index(side)
    sizes = sorted({max(1, round(factor * base[at])) for factor in factors})
    return ["x".join(map(str, (*base[:at], size, *base[at + 1 :]))) for size in sizes]


def lines(report: dict[str, Any], swept: str) -> list[dict[str, Any]]:
    """A line of the CSV for each loss at each point."""
    machine = report["machine"]
    same = {
        "processor": machine.get("gpu", machine["processor"]),
        "threads": machine["threads"],
        "pinned": machine["pinned"],
        "load_before": machine["load_before"],
    } | {name: report["versions"][name] for name in PACKAGES}
    found = []
    for problem in report["problems"]:
        for row in problem["rows"]:
            step = row.get("step", {"median": None, "quartiles": [None, None], "seconds": []})
            errors = row.get("marginal_error", {"worst": None})
            line = {"swept": swept} | problem["shape"] | {"epsilon": report["settings"]["epsilon"]}
            line |= {"loss": row["name"], "status": row["status"], "engine": row.get("engine")}
            line |= {"seconds": step["median"], "low": step["quartiles"][0], "high": step["quartiles"][1]}
            line |= {"repeats": len(step["seconds"]), "forward": row.get("forward", {}).get("median")}
            line |= {name: row.get(name) for name in ("peak_memory", "iterations", "gradient_error", "floor")}
            found.append(line | {"marginal_error": errors["worst"]} | same)
    return found


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(18, 7), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(SIDES) + 1, squeeze=False)
    losses = list(dict.fromkeys(row["loss"] for row in rows))
    for column, (swept, label) in enumerate((SIDES | {"epsilon": "epsilon"}).items()):
        ticks = sorted({row[swept] for row in rows if row["swept"] == swept})
        for upper, quantity, scale, name in ((0, "seconds", 1e3, "ms"), (1, "peak_memory", 2**-20, "MiB")):
            axis = axes[upper][column]
            for k, loss in enumerate(losses):
                points = sorted(
                    (row[swept], scale * row[quantity])
                    for row in rows
                    if row["swept"] == swept and row["loss"] == loss and row[quantity]
                )
                if points:
                    style = "-" if loss.startswith(("sinkhorn", "exact")) else "--"
                    axis.plot(*zip(*points, strict=True), style, color=f"C{k}", marker="o", ms=3, label=loss)
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axis.set_xticks([], minor=True)
            axis.set_xlabel(label)
            if column == 0:
                axis.set_ylabel(f"forward + backward, {name}" if upper == 0 else f"peak memory, {name}")
    axes[0][0].legend(fontsize=7)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--base", default=BASE)
    parser.add_argument("--factor", action="append", type=float, help="of each side; again for more")
    parser.add_argument("--epsilon", action="append", help="again for more")
    parser.add_argument("--backend", action="append", help="again for more")
    parser.add_argument("--repeats", default="10")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    common = ["--repeats", given.repeats, "--device", given.device]
    common += [word for name in given.backend or BACKENDS for word in ("--backend", name)]
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){3}", given.base):
        raise SystemExit(f"--base: {given.base!r} is not BxNxMxD")
    base = tuple(map(int, given.base.split("x")))
    rows = []
    for side in SIDES:
        shapes = sweep(base, given.factor or list(FACTORS), side)
        words = [word for shape in shapes for word in ("--shape", shape)]
        rows += lines(measure([*common, *words], given.out / f"scaling-{side}.json"), side)
    for epsilon in given.epsilon or EPSILONS:
        words = ["--shape", given.base, "--epsilon", epsilon]
        rows += lines(measure([*common, *words], given.out / f"scaling-epsilon-{epsilon}.json"), "epsilon")
    with (given.out / "results.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    plot(rows, given.out / "scaling.png")
    print(given.out / "results.csv")


if __name__ == "__main__":
    main()
