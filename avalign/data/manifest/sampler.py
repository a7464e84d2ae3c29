"""Which record of a table is number n of a split and task; in training shuffled, and mixed by source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from avalign.data.manifest.record import Record
from avalign.data.mixture import Mixture
from avalign.data.permutation import permuted
from avalign.errors import AvalignError, suggest
from avalign.types import SPLITS, TASKS

SOURCES = 1 << 16  # in a seed: apart from those that tasks are mixed by


class Columns(Protocol):
    """What is known of every record: (n,) indices into SPLITS, TASKS and `sources`."""

    split: np.ndarray
    task: np.ndarray
    source: np.ndarray
    sources: list[str]


class Records(Columns, Protocol):
    """A table of records by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> Record: ...

    def location(self, number: int) -> str: ...


class Sampler:
    """The sampler of a table: which record is asked for by which number.

    weights: source -> weight in the training samples of each task; by its number of records by default

    tasks: those that some split has records of
    """

    def __init__(self, table: Columns, weights: Mapping[str, float] | None, seed: int) -> None:
        self.seed = seed
        groups = table.split.astype(np.int64) * len(TASKS) + table.task
        self._rows = dict(zip(_split_tasks(), _grouped(groups, len(SPLITS) * len(TASKS)), strict=True))
        self.tasks = tuple(task for task in TASKS if any(len(self._rows[s, task]) for s in SPLITS))
        self._mixtures: dict[str, Mixture] = {}
        self._of_source: dict[tuple[str, str], np.ndarray] = {}
        if weights is not None:
            self._mix(table, weights)

    def _mix(self, table: Columns, weights: Mapping[str, float]) -> None:
        unknown = next((name for name in weights if name not in table.sources), None)
        if unknown is not None:
            raise AvalignError(f"sources: no record is of {unknown!r}.{suggest(unknown, table.sources)}")
        for task in self.tasks:
            rows = self._rows["train", task]
            parts = _grouped(table.source[rows], len(table.sources))
            there = {name: rows[part] for name, part in zip(table.sources, parts, strict=True) if len(part)}
            lacking = [name for name in there if name not in weights]
            if lacking:
                raise AvalignError(
                    f"sources: {', '.join(lacking)}: no weight, but training records of {task}. "
                    "Each source needs one; 0 leaves it out"
                )
            shares = {name: weights[name] for name in there}
            if any(shares.values()):
                self._mixtures[task] = Mixture(shares, (self.seed, TASKS.index(task), SOURCES))
                self._of_source |= {(task, name): there[name] for name in self._mixtures[task].names}
            else:
                self._rows["train", task] = rows[:0]

    def size(self, split: str, task: str) -> int:
        """How many records a split has of a task."""
        return len(self._rows.get((split, task), ()))

    def rows(self, split: str, task: str) -> np.ndarray:
        """All of them, as indices into the table."""
        return self._rows[split, task]

    def at(self, split: str, task: str, index: int) -> tuple[int, int]:
        """The index in the table of number `index`, and how often all of its source came before.

        In training `index` goes on for ever: when all have come they come again in another order.
        """
        if split not in SPLITS:
            raise AvalignError(f"manifest: no split {split!r}.{suggest(split, SPLITS)}")
        count = self.size(split, task)
        if count == 0:
            raise AvalignError(f"manifest: no records of task {task!r} in split {split!r}. {self._counted()}")
        rows = self._rows[split, task]
        if split != "train":
            if not 0 <= index < count:
                raise AvalignError(
                    f"manifest: split {split!r} has {count} records of task {task!r}, number {index} was "
                    f"asked for. {self._counted()}"
                )
            return int(rows[index]), 0
        key = [self.seed, TASKS.index(task)]
        if task in self._mixtures:
            source, index = self._mixtures[task][index]
            rows = self._of_source[task, source]
            count = len(rows)
            key.append(self._mixtures[task].names.index(source))
        epoch, position = divmod(index, count)
        return int(rows[permuted(position, count, (*key, epoch))]), epoch

    def _counted(self) -> str:
        counts = ", ".join(
            f"{split} {task} {len(rows)}" for (split, task), rows in sorted(self._rows.items())
        )
        return f"There are: {counts}."


def _split_tasks() -> list[tuple[str, str]]:
    return [(split, task) for split in SPLITS for task in TASKS]


def _grouped(groups: np.ndarray, count: int) -> list[np.ndarray]:
    """Where each of the numbers 0..count-1 stands in `groups`, rising."""
    order = np.argsort(groups.astype(np.uint16), kind="stable")  # of 16 bits: by counting, not comparing
    ends = np.cumsum(np.bincount(groups, minlength=count))
    return np.split(order, ends[:-1])
