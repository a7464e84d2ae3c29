"""What a manifest holds, counted: by task, source, split, class and kind, beside the paper's table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from avalign.avfit import tables
from avalign.avfit.paper import of_paper
from avalign.avfit.tally import Tally
from avalign.data.manifest.table import Table


def count(manifest: Path, progress: Callable[[str], None] = lambda line: None) -> Tally:
    """Every record of a manifest's folder or file, counted. AvalignError names a line that is none."""
    table = Table(manifest, lambda file, done: progress(f"... {file.name}: {done:,} records read"))
    tally = Tally()
    for number in range(len(table)):
        tally.add(table[number])
        if (number + 1) % 100_000 == 0:
            progress(f"... {number + 1:,} of {len(table):,} records counted")
    return tally


def as_text(tally: Tally) -> Iterator[str]:
    """All counts as tables, a blank line between two."""
    sections = (tables.by_source, tables.by_class, tables.by_kind, tables.sizes)
    for number, section in enumerate(sections):
        lines = list(section(tally))
        yield from ([""] if number and lines else [])
        yield from lines


def as_plain(tally: Tally) -> dict[str, Any]:
    """The same for JSON: one row for each task, source and split, with the paper's count where it has one."""
    rows = tally.rows()
    for row in rows:
        paper = of_paper(row["task"], row["source"], row["split"])
        if paper:
            row["paper"] = paper
    return {"records": len(tally), "counts": rows}
