"""`avalign data show`: samples of a manifest on one page of HTML, with all they are made of."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from avalign import __version__
from avalign.avfit.show_card import card
from avalign.data.manifest.phrasings import Phrasings
from avalign.data.manifest.record import Record
from avalign.data.manifest.table import Table
from avalign.errors import AvalignError, suggest
from avalign.media.links import below
from avalign.report.figures import STYLES
from avalign.report.page import render
from avalign.system.atomic_write import atomic_write
from avalign.types import SPLITS, TASKS

FILTERS = ("task", "source", "split")


def show(
    folder: Path,
    root: Path,
    out: Path,
    *,
    task: str | None = None,
    split: str | None = None,
    source: str | None = None,
    label: str | None = None,
    count: int = 24,
    seed: int = 0,
    seconds: float = 10.0,
    follow_links: bool = False,
) -> int:
    """Write `count` records of the manifest in `folder`, sampled by `seed`, as a page. Returns their count.

    Each task that fits has its share of them, as far as it has so many. root: what media paths start from;
    a file that cannot be read is told on the page in its place. seconds: of each audio clip, from its begin.
    follow_links: also read what a link leads to outside the root
    """
    for name, value, known in (("task", task, TASKS), ("split", split, SPLITS)):
        if value is not None and value not in known:
            raise AvalignError(f"no {name} {value!r}.{suggest(value, known)}")
    table = Table(folder)
    phrasings = Phrasings(folder if folder.is_dir() else folder.parent)
    chosen = _chosen(table, task, split, source, label, count, seed)
    find = partial(below, root, follow_links=follow_links)
    cards = [card(record, find, seconds, phrasings) for record in chosen]
    said = f"{len(chosen)} of {len(table):,} records, drawn by seed {seed}, avalign {__version__}"
    atomic_write(out, page_of(cards, folder.resolve().name, said))
    return len(chosen)


def page_of(cards: list[dict[str, Any]], title: str, subtitle: str) -> str:
    """Cards of records under their tasks, with a choice of what is shown."""
    tasks = [
        (task, [one for one in cards if one["task"] == task])
        for task in TASKS
        if any(one["task"] == task for one in cards)
    ]
    return render(
        "samples.html",
        title=title,
        subtitle=subtitle,
        links=[(task, task.upper()) for task, _ in tasks],
        filters=[(name, sorted({one[name] for one in cards})) for name in FILTERS],
        tasks=tasks,
        colours={name: colour for name, (colour, _) in STYLES.items()},
    )


def _chosen(
    table: Table,
    task: str | None,
    split: str | None,
    source: str | None,
    label: str | None,
    count: int,
    seed: int,
) -> list[Record]:
    """Records that fit, in turn from every task; in the order of tasks and then as sampled."""
    rng = np.random.default_rng(seed)
    iterators: list[Iterator[Record]] = []
    seen: dict[str, set[str]] = {"source": set(), "label": set()}
    for number, name in enumerate(TASKS):
        fits = table.task == number
        if split is not None:
            fits &= table.split == SPLITS.index(split)
        if task in (None, name) and fits.any():
            iterators.append(_matching(table, rng.permutation(np.flatnonzero(fits)), source, label, seen))
    found: list[Record] = []
    while iterators and len(found) < count:
        for iterator in list(iterators):
            record = next(iterator, None)
            if record is None:
                iterators.remove(iterator)
            elif len(found) < count:
                found.append(record)
    if not found and count > 0:
        asked = {"task": task, "split": split, "source": source, "label": label}
        said = ", ".join(f"{name} {value!r}" for name, value in asked.items() if value is not None)
        hints = "".join(
            suggest(value, list(seen[name])[:200])
            for name, value in (("source", source), ("label", label))
            if value is not None and value not in seen[name]
        )
        raise AvalignError(f"{table.root}: no record has {said}.{hints}")
    return found


def _matching(
    table: Table, rows: np.ndarray, source: str | None, label: str | None, seen: dict[str, set[str]]
) -> Iterator[Record]:
    for row in rows.tolist():
        record = table[row]
        seen["source"].add(record.source)
        if source in (None, record.source):
            if record.label is not None:
                seen["label"].add(record.label)
            if label in (None, record.label):
                yield record
