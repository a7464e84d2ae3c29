"""What every task of the benchmark has: score answers, sum them up, answer without looking or listening."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from avalign.batch import Sample
from avalign.meerkatbench.bootstrap import Metric

Trivial = Callable[[Sample], str]  # an answer that uses neither picture nor sound


@dataclass(frozen=True)
class Scored:
    """One answer, judged. `parsed`: what was read in it, ready for JSON; None when it could not be read, and
    then every value is 0. `values`: this sample's share in the metrics."""

    parsed: Any
    values: dict[str, float]


class Task(Protocol):
    """One task, one file. Adding one is such a class and a line in evaluate.py."""

    name: str  # as in batch.TASKS
    title: str
    headline: str  # the metric that decides
    group_name: str  # what `group` tells apart: class, type, question
    definitions: dict[str, str]  # metric -> its definition and variant, printed as the protocol

    def score(self, samples: Sequence[Sample], answers: Sequence[str]) -> list[Scored]:
        """Judge each answer against its sample's truth."""
        ...

    def metrics(self, samples: Sequence[Sample], scored: Sequence[Scored]) -> Iterator[Metric]:
        """The scores over all samples, the headline first."""
        ...

    def trivial(self, train: Sequence[Sample], seed: int) -> dict[str, Trivial]:
        """By name, answers that a model must beat, learnt from training samples; where there is none, those
        that need none."""
        ...

    def group(self, sample: Sample) -> str | None:
        """The row of the per-group table that a sample belongs to; None: no table."""
        ...


@runtime_checkable
class Mapped(Task, Protocol):
    """A task whose answers may come with a heat map over the picture."""

    def map_values(self, sample: Sample, heat: np.ndarray | None) -> dict[str, float]:
        """This sample's share in the map's metrics; heat (rows, columns), None where none was given."""
        ...

    def trivial_maps(self) -> dict[str, np.ndarray]:
        """Maps that go with the trivial answers of these names."""
        ...


def most_common(answers: Sequence[str]) -> str:
    """The most frequent; the first in the alphabet of equals."""
    return min(set(answers), key=lambda answer: (-answers.count(answer), answer))
