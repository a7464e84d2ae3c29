"""Counts as text: what there is of which task, source, split and class, beside the paper's table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from avalign.avfit.paper import of_paper
from avalign.avfit.record_counts import BOX_AREAS, LENGTHS, RecordCounts, between
from avalign.types import SPLITS, TASKS

CLASSES = 8  # of each task and split, the most frequent ones


def columns(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Lines of a table; what begins with a digit stands to the right."""
    table = [tuple(header), *map(tuple, rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    numbers = [all(not c or c[0].isdigit() for c in column[1:]) for column in zip(*table, strict=True)]
    for row in table:
        cells = zip(row, widths, numbers, strict=True)
        yield "  ".join(c.rjust(width) if number else c.ljust(width) for c, width, number in cells).rstrip()


def by_source(record_counts: RecordCounts) -> Iterator[str]:
    """task, source, split, records, classes, and the paper's count."""
    classes = Counter(key[:3] for key in record_counts.by["class"])
    rows = [
        (*key, f"{record_counts.records[key]:,}", f"{classes[key]:,}" if classes[key] else "", of_paper(*key))
        for key in sorted(record_counts.records, key=_order)
    ]
    rows += [
        (task, "all", split, f"{total:,}", "", "")
        for task in TASKS
        for split in SPLITS
        if (total := sum(n for key, n in record_counts.records.items() if key[0] == task and key[2] == split))
    ]
    yield from columns(("task", "source", "split", "records", "classes", "paper"), rows)


def by_class(record_counts: RecordCounts) -> Iterator[str]:
    """The most frequent classes of each task and split, and how many there are."""
    for task, split, found in _summed(record_counts, "class"):
        top = ", ".join(f"{name} {count:,}" for name, count in _first(found, CLASSES))
        more = (
            f", and {len(found) - CLASSES} more down to {min(found.values()):,}"
            if len(found) > CLASSES
            else ""
        )
        yield f"{task} {split}, {len(found)} classes: {top}{more}"


def by_kind(record_counts: RecordCounts) -> Iterator[str]:
    """Kinds of questions, and how many answers are True."""
    for task, split, found in _summed(record_counts, "kind"):
        if task != "avfc":
            yield f"{task} {split}: " + ", ".join(
                f"{name} {count:,}" for name, count in sorted(found.items())
            )
    for _, split, found in _summed(record_counts, "verdict"):
        kinds = sorted({name.rpartition(" ")[0] for name in found})
        rows = [(kind, found[f"{kind} True"], found[f"{kind} False"]) for kind in kinds]
        rows.append(("together", sum(row[1] for row in rows), sum(row[2] for row in rows)))
        yield from columns(
            (f"avfc {split}", "True", "False", "True %"),
            [(k, f"{t:,}", f"{f:,}", f"{100 * t / (t + f):.1f}" if t + f else "") for k, t, f in rows],
        )


def sizes(record_counts: RecordCounts) -> Iterator[str]:
    """Box areas and interval lengths."""
    for name, unit, limits in (
        ("box_area", "share of the picture", BOX_AREAS),
        ("interval_length", "s", LENGTHS),
    ):
        bins = [between(low, limits) for low in (0.0, *limits)]
        rows = [
            (f"{task} {split}", *(f"{found[b]:,}" for b in bins))
            for task, split, found in _summed(record_counts, name)
        ]
        if rows:
            yield from columns((f"{name.replace('_', ' ')}, {unit}", *bins), rows)


def refusals(accounts: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """What became of the items of each data set; every reason with its number and first items."""
    rows = [
        (label, *(f"{a['items'][k]:,}" for k in ("read", "used", "refused")), f"{a['made']['kept']:,}")
        for label, a in accounts.items()
    ]
    yield from columns(("data set", "items", "used", "refused", "kept"), rows)
    for title, key in (("refused", "reasons"), ("noted, item used", "noted")):
        for label, account in accounts.items():
            for reason, count in sorted(account[key].items(), key=lambda pair: (-pair[1], pair[0])):
                yield f"{title}: {label}: {reason}: {count:,}"
                if key == "reasons":
                    yield from (f"    {first}" for first in account["first"].get(reason, ()))


def _summed(record_counts: RecordCounts, name: str) -> Iterator[tuple[str, str, Counter[str]]]:
    """A count over all sources of each task and split."""
    found: dict[tuple[str, str], Counter[str]] = {}
    for (task, _, split, what), count in record_counts.by[name].items():
        found.setdefault((task, split), Counter())[what] += count
    for task, split in sorted(found, key=lambda key: _order((key[0], "", key[1]))):
        yield task, split, found[task, split]


def _first(counts: Counter[str], many: int) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:many]


def _order(key: tuple[str, str, str]) -> tuple[int, str, int]:
    return TASKS.index(key[0]), key[1], SPLITS.index(key[2])
