"""One Markdown table of several runs: python benchmarks/compare_runs.py runs/meerkat runs/other

Each cell is a task's headline score with its 95 % bootstrap interval, read from eval/scores.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from avalign.report.tables import best_trivial


def cell(metric: dict[str, float]) -> str:
    return f"{metric['value']:.3f} [{metric['low']:.3f}, {metric['high']:.3f}]"


def table(runs: list[Path]) -> str:
    scores = [json.loads((run / "eval" / "scores.json").read_text(encoding="utf-8")) for run in runs]
    lists = {task: {s["tasks"][task]["test_list"] for s in scores} for task in scores[0]["tasks"]}
    unlike = [task for task, seen in lists.items() if len(seen) > 1]
    if unlike:
        raise SystemExit(f"these runs were scored on different samples of {', '.join(unlike)}")
    rows = [["task (metric, n)", *(run.name for run in runs), "best trivial answer"]]
    rows.append(["---"] * len(rows[0]))
    for task, first in scores[0]["tasks"].items():
        trivial = best_trivial(first)
        rows.append(
            [
                f"{task.upper()} ({first['headline']}, {first['n']})",
                *(cell(s["tasks"][task]["metrics"][first["headline"]]) for s in scores),
                f"{cell(first['trivial'][trivial]['metrics'][first['headline']])}, {trivial}",
            ]
        )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    print(table(parser.parse_args().runs))
