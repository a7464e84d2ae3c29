"""Real excerpts of public annotation files, laid out as published."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from avalign.avfit.annotation import Reading
from tests.helpers.real_data import REAL_DATA

EXCERPTS = REAL_DATA / "annotation-samples"


def excerpt(name: str) -> Path:
    """A file of the excerpts, such as "vgg-ss/vggss.json"; where there is none the test is skipped."""
    file = EXCERPTS / name
    if not file.exists():
        pytest.skip(f"no real annotations: {file} is missing (AVALIGN_DATA names the folder of real data)")
    return file


def reasons(readings: Sequence[Reading[Any]]) -> Counter[str]:
    """How often each problem was told of the items that were used or refused."""
    return Counter(problem.reason for reading in readings for problem in reading.problems)


def record_counts(readings: Sequence[Reading[Any]]) -> tuple[int, int]:
    """Items used, items refused."""
    used = sum(bool(reading.made) for reading in readings)
    return used, len(readings) - used
