"""What the tasks share. What a task must offer stands in avalign/interfaces.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from avalign.types import Sample

Trivial = Callable[[Sample], str]  # an answer that uses neither image nor audio


@dataclass(frozen=True)
class Scored:
    """One answer, scored. `parsed`: what was read in it, ready for JSON; None when it could not be read, and
    then every value is 0. `values`: this sample's share in the metrics."""

    parsed: Any
    values: dict[str, float]


def most_common(answers: Sequence[str]) -> str:
    """The most frequent; the first in the alphabet of equals."""
    return min(set(answers), key=lambda answer: (-answers.count(answer), answer))
