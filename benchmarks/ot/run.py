"""The transport losses on four shapes, at three settings: python benchmarks/ot/run.py --out results

Each setting is one process of `avalign bench-loss`, OpenMP threads pinned, and leaves NAME.json and
NAME.png; table.md has them all. Small sizes for a try: --shape 2x20x13x16 --repeats 2.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

SHAPES = ("16x196x64x512", "64x196x64x512", "16x196x512x768", "4x1024x1024x512")
SETTINGS = {
    "eps0.05-tol1e-3": ("--epsilon", "0.05", "--tolerance", "1e-3"),
    "eps0.01-tol1e-3": ("--epsilon", "0.01", "--tolerance", "1e-3"),
    "eps0.05-50iterations": ("--epsilon", "0.05", "--iterations", "50"),
}


def measure(words: list[str], out: Path) -> dict[str, Any]:
    """What `avalign bench-loss` found, in a process of its own whose threads are pinned from the start."""
    environment = {"OMP_PROC_BIND": "true", "OMP_PLACES": "cores"} | os.environ
    command = [sys.executable, "-m", "avalign", "bench-loss", *words, "--json", str(out)]
    subprocess.run(command, check=True, env=environment)
    return json.loads(out.read_text(encoding="utf-8"))


def table(problem: dict[str, Any]) -> str:
    """Markdown: a row for each loss, the quickest first, and why the others are missing."""
    shape = "x".join(str(problem["shape"][k]) for k in "bnmd")
    head = [
        "loss",
        "ms",
        "quartiles",
        "x ours",
        "of floor",
        "marginal error",
        "value error",
        "gradient error",
        "MiB",
    ]
    lines = [head, ["---"] * len(head)]
    measured = [row for row in problem["rows"] if row["status"] == "measured"]
    lines += [_cells(row) for row in sorted(measured, key=lambda row: row["step"]["median"])]
    missing = [f"{row['name']} ({row['note']})" for row in problem["rows"] if row["status"] != "measured"]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"### {shape}\n\n{text}\n\nNot measured: {'; '.join(missing) or 'none'}.\n"


def _cells(row: dict[str, Any]) -> list[str]:
    low, high = row["step"]["quartiles"]
    memory = row["peak_memory"]
    errors = (row["marginal_error"]["worst"], row["value_error"], row["gradient_error"])
    return [
        row["name"],
        f"{1e3 * row['step']['median']:.3g}",
        f"{1e3 * low:.3g} .. {1e3 * high:.3g}",
        f"{row['ratio']:.2f}" if "ratio" in row else "",
        f"{row['share_of_floor']:.0%}",
        *("not finite" if error is None else f"{error:.1e}" for error in errors),
        "" if memory is None else f"{memory / 2**20:.0f}",
    ]


def about(report: dict[str, Any]) -> str:
    machine, versions = report["machine"], report["versions"]
    packages = ", ".join(f"{p} {versions[p]}" for p in ("torch", "pot", "jax", "ott-jax", "geomloss"))
    return (
        f"{machine.get('gpu', machine['processor'])}, {machine['threads']} of {machine['cores']} threads, "
        f"pinned: {machine['pinned']}, load before {machine['load_before']}; {packages}; "
        f"avalign at {versions['commit']}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shape", action="append", help="again for more; the four of the study if not given")
    parser.add_argument("--backend", action="append", help="again for more; all if not given")
    parser.add_argument("--repeats", default="20")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    common = ["--repeats", given.repeats, "--device", given.device, "--dtype", given.dtype]
    for option, values in (("--shape", given.shape or SHAPES), ("--backend", given.backend or ["all"])):
        common += [word for value in values for word in (option, value)]
    parts = []
    for name, setting in SETTINGS.items():
        picture = ["--plot", str(given.out / f"{name}.png")]
        report = measure([*common, *setting, *picture], given.out / f"{name}.json")
        parts += [f"## {name}\n\n{about(report)}\n", *map(table, report["problems"])]
    (given.out / "table.md").write_text("\n".join(parts), encoding="utf-8")
    print(given.out / "table.md")


if __name__ == "__main__":
    main()
