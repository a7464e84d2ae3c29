"""What a manifest holds, counted: by task, source, split, class and kind, beside the paper's table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from avalign.avfit import tables
from avalign.avfit.paper import of_paper
from avalign.avfit.record_counts import RecordCounts
from avalign.data.manifest.table import Table


def count(manifest: Path, progress: Callable[[str], None] = lambda line: None) -> RecordCounts:
    """Every record of a manifest's folder or file, counted. AvalignError names a line that is none."""
    table = Table(manifest, lambda file, done: progress(f"... {file.name}: {done:,} records read"))
    record_counts = RecordCounts()
    for number in range(len(table)):
        record_counts.add(table[number])
        if (number + 1) % 100_000 == 0:
            progress(f"... {number + 1:,} of {len(table):,} records counted")
    return record_counts


def as_text(record_counts: RecordCounts) -> Iterator[str]:
    """All counts as tables, a blank line between two."""
    sections = (tables.by_source, tables.by_class, tables.by_kind, tables.sizes)
    for number, section in enumerate(sections):
        lines = list(section(record_counts))
        yield from ([""] if number and lines else [])
        yield from lines


def as_plain(record_counts: RecordCounts) -> dict[str, Any]:
    """The same for JSON: one row for each task, source and split, with the paper's count where it has one."""
    rows = record_counts.rows()
    for row in rows:
        paper = of_paper(row["task"], row["source"], row["split"])
        if paper:
            row["paper"] = paper
    return {"records": len(record_counts), "counts": rows}
