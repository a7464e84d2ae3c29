"""How many records there are of what: by task, source, split, class and kind, sizes and lengths."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from typing import Any

from avalign.data.manifest.record import Record

BOX_AREAS = (0.01, 0.05, 0.1, 0.25, 0.5)  # shares of the image, between which boxes are counted
LENGTHS = (0.5, 1.0, 2.0, 5.0, 10.0)  # seconds, between which intervals are counted
Key = tuple[str, str, str]  # task, source, split


class RecordCounts:
    """Counts that add up, whoever counted them: whole numbers only, so that their order is nothing.

    records: (task, source, split) -> records; by: name of a count -> (task, source, split, what) -> number
    """

    COUNTS = ("class", "kind", "verdict", "boxes", "box_area", "intervals", "interval_length")

    def __init__(self) -> None:
        self.records: Counter[Key] = Counter()
        self.by: dict[str, Counter[tuple[str, str, str, str]]] = {name: Counter() for name in self.COUNTS}

    def add(self, record: Record) -> None:
        key = (record.task, record.source, record.split)
        by = self.by
        self.records[key] += 1
        if record.label is not None:
            by["class"][*key, record.label] += 1
        if record.kind is not None:
            by["kind"][*key, record.kind] += 1
        if record.task == "avfc":
            by["verdict"][*key, f"{record.kind or 'avfc'} {record.response}"] += 1
        if record.boxes:
            by["boxes"][*key, str(len(record.boxes))] += 1
        for x0, y0, x1, y1 in record.boxes:
            by["box_area"][*key, between((x1 - x0) * (y1 - y0), BOX_AREAS)] += 1
        if record.intervals:
            by["intervals"][*key, str(len(record.intervals))] += 1
        for start, end in record.intervals:
            by["interval_length"][*key, between(end - start, LENGTHS)] += 1

    def update(self, other: RecordCounts) -> None:
        self.records.update(other.records)
        for name, counts in other.by.items():
            self.by[name].update(counts)

    def __len__(self) -> int:
        return sum(self.records.values())

    def rows(self) -> list[dict[str, Any]]:
        """One mapping for each task, source and split, in that order; counts of one in it by their names."""
        found = []
        for task, source, split in sorted(self.records):
            row: dict[str, Any] = {"task": task, "source": source, "split": split}
            row["records"] = self.records[task, source, split]
            for name in self.COUNTS:
                row[name] = {}
            found.append(row)
        rows = {(row["task"], row["source"], row["split"]): row for row in found}
        for name, counts in self.by.items():
            for (task, source, split, what), count in sorted(counts.items()):
                rows[task, source, split][name][what] = count
        return [{key: value for key, value in row.items() if value != {}} for row in found]

    @classmethod
    def of_rows(cls, rows: Iterable[dict[str, Any]]) -> RecordCounts:
        """What `rows` gave."""
        record_counts = cls()
        for row in rows:
            key = (row["task"], row["source"], row["split"])
            record_counts.records[key] += row["records"]
            for name in cls.COUNTS:
                for what, count in row.get(name, {}).items():
                    record_counts.by[name][*key, what] += count
        return record_counts


def between(value: float, limits: tuple[float, ...]) -> str:
    """0.03 of (0.01, 0.05, ...) -> "0.01-0.05"; a limit belongs to what lies above it."""
    bucket = bisect_right(limits, value)
    low = f"{limits[bucket - 1]:g}" if bucket else "0"
    return f"{low}-{limits[bucket]:g}" if bucket < len(limits) else f"{low}-"
