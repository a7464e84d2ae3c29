"""What a build says at its end: build.yaml, counts.json, the refused items, and tables."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from avalign.avfit import tables
from avalign.avfit.build.state import State
from avalign.avfit.plan import Plan, dump_plan
from avalign.avfit.record_counts import RecordCounts
from avalign.errors import AvalignError
from avalign.system.atomic_write import atomic_write, unfinished
from avalign.system.versions import versions
from avalign.types import TASKS

RECIPE = "meerkat-avfit"
ASKED, STAGES, SAMPLES = ["arig", "avfc"], ("align", "answer"), 500  # what it asks for, and how many of each


def finished_report(
    state: State, plan: Plan, units: Sequence[str], root: Path, say: Callable[[str], None]
) -> dict[str, Any]:
    """Write what stands beside the parts, and return counts.json."""
    done = {unit: state.finished(unit) for unit in units}
    _refuse_strangers(state, {part for entry in done.values() if entry for part in entry["parts"]})
    record_counts = RecordCounts()
    accounts: dict[str, Any] = {}
    for unit, entry in done.items():
        assert entry is not None
        record_counts.update(RecordCounts.of_rows(entry["tally"]))
        if "account" in entry:
            accounts[unit.removeprefix("read-")] = entry["account"]
    pools = {u.removeprefix("read-"): entry["pool"] for u, entry in done.items() if entry and "pool" in entry}
    counts = {
        "records": len(record_counts),
        "datasets": accounts,
        "pools": pools,
        "counts": record_counts.rows(),
    }
    known = versions()
    made_with = ", ".join(f"{name} {known[name]}" for name in ("avalign", "commit", "python", "numpy"))
    atomic_write(state.out / "build.yaml", f"# made with {made_with}\n{dump_plan(plan)}")
    for name in ("rejected", "noted"):
        with unfinished(state.out / "reports" / f"{name}.jsonl") as beside, open(beside, "wb") as joined:
            for label in accounts:
                with open(state.folder / "books" / f"{label}.{name}.jsonl", "rb") as rows:
                    shutil.copyfileobj(rows, joined)
    atomic_write(state.out / "counts.json", json.dumps(counts, indent=1) + "\n")
    state.finish("all", {"parts": []})
    sections = (tables.by_source, tables.by_class, tables.by_kind)
    for lines in (tables.refusals(accounts), *(section(record_counts) for section in sections)):
        say("")
        for line in lines:
            say(line)
    say("")
    rejected = state.out / "reports" / "rejected.jsonl"
    say(f"{len(record_counts):,} records in {state.out}; refused items: {rejected}")
    _say_next(state, record_counts, root, say)
    return counts


def _say_next(state: State, record_counts: RecordCounts, root: Path, say: Callable[[str], None]) -> None:
    """The exact commands that come next."""
    words = shlex.join(["avalign", "data", "check", str(state.out), "--media", str(root)])
    say(f"look at it:   {words}")
    training = _training_words(record_counts)
    if training is not None:
        settings = [f"data.root={state.out}", f"data.source.media={root}", *training]
        say(f"train on it:  {shlex.join(['avalign', 'train', RECIPE, *settings])}")


def _training_words(record_counts: RecordCounts) -> list[str] | None:
    """What the recipe has to be told of the tasks that there are; None if there is nothing to train on."""
    train, test = ([t for t in TASKS if _count(record_counts, t, split)] for split in ("train", "test"))
    if not train:
        return None
    words = []
    if train != ASKED:
        asked = [task for task in TASKS if task in (*train, *ASKED)]
        shares = "{" + ", ".join(f"{task}: {int(task in train)}" for task in asked) + "}"
        words += [f"train.stages.{stage}.tasks={shares}" for stage in STAGES]
    if test != ASKED:
        words.append(f"evaluation.tasks=[{', '.join(test)}]")
    fewest = min([_count(record_counts, task, "test") for task in test], default=SAMPLES)
    return words if fewest >= SAMPLES else [*words, f"evaluation.samples={fewest}"]


def _count(record_counts: RecordCounts, task: str, split: str) -> int:
    return sum(count for (t, _, s), count in record_counts.records.items() if (t, s) == (task, split))


def _refuse_strangers(state: State, parts: set[str]) -> None:
    """The manifest is every .jsonl and .parquet file of the folder."""
    there = {file.name for file in state.out.iterdir() if file.suffix in (".jsonl", ".parquet")}
    if there - parts:
        raise AvalignError(
            f"{state.out}: holds {', '.join(sorted(there - parts)[:3])}, which this build did not write and "
            "which would be read as part of the manifest: move it away"
        )
