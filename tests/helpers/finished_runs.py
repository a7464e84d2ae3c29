"""What the tests beside each other share."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from safetensors.torch import load_file

from avalign.config.recipe_file import read
from avalign.training.train import train
from tests.helpers.paths import RECIPE
from tests.helpers.runs import (  # noqa: F401 (fixtures)
    RICH,
    settings,
    world,
)


@pytest.fixture(scope="module")
def finished(world: Path) -> Path:
    """A run that was never stopped, with its scores."""
    return train(read(RECIPE, settings(world, *RICH)), world / "whole")


def temperature(run: Path) -> float:
    (weight,) = load_file(run / "model" / "losses.safetensors").values()
    return math.exp(weight)
