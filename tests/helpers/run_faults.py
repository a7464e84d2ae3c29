"""Runs that something befalls, and what is compared of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from avalign.config.recipe_file import read
from avalign.training import train as training
from avalign.training.train import train
from tests.helpers.paths import RECIPE
from tests.helpers.runs import settings

STEPS = "train.stages=[{name: only, steps: 6, weights: {language_modelling: 0}}]"


ODD = (STEPS, "train.log_every=4", "train.checkpoint_every=2", "model.llm.dropout=0.2")


@pytest.fixture(scope="module")
def whole(world: Path) -> Path:
    """A run that was never stopped; no scores."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "score", lambda *_: {})
        return train(read(RECIPE, settings(world, *ODD)), world / "never stopped; it's whole")


def everything(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def assert_equal(run: Path, other: Path) -> None:
    assert everything(run / "model") == everything(other / "model")
    assert (run / "log.jsonl").read_bytes() == (other / "log.jsonl").read_bytes()
