"""The smallest runs: settings that make one in seconds, their world, and what is compared of them."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import avalign
from avalign.config.recipe_file import read
from avalign.training import train as training
from avalign.training.train import train
from tests.helpers.paths import RECIPE

ALIGN, ANSWER, BATCH = 3, 4, 8  # steps of the stages; the first does not run the language model


SMALL = [
    "data.source={name: avworld, train: 40, val: 20, test: 20}",
    "data.workers=0",
    "model.width=16",
    "model.image_encoder={name: small, width: 16}",
    "model.audio_encoder={name: small, width: 16}",
    "model.llm={name: small, hidden: 16, layers: 1, heads: 2}",
    "train.precision=fp32",
    f"train.batch_size={BATCH}",
    "train.log_every=1",
    "train.checkpoint_every=2",
    "train.report_to=[]",
    f"train.stages=[{{name: align, steps: {ALIGN}, learning_rate: 2.0e-3, schedule: constant, "
    f"weights: {{language_modelling: 0, avace: 1.0}}}}, {{name: answer, steps: {ANSWER}}}]",
    *("losses.language_modelling.weight=1.0", "losses.avopt.weight=0.1", "losses.avace.weight=0.5"),
    "evaluation.tasks=[arig, avfc]",
    "evaluation.samples=1",
    *("evaluation.bootstrap=20", "evaluation.figures=1"),
    "evaluation.max_new_tokens=4",
    "evaluation.modality_check=false",
]


# a loss with a weight of its own, off in the first step of each stage
CONTRASTIVE = "losses.contrastive={weight: {0: 0.0, 3: 0.3}, temperature: 0.2}"


# so that a resumed run needs the state of the random generators, a temperature, and the step of its stage
RICH = ("model.llm.dropout=0.2", CONTRASTIVE)


ONE_STAGE = "train.stages=[{name: only, steps: 2, weights: {language_modelling: 0}}]"


ENVIRONMENT = {
    **os.environ,
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(Path(avalign.__file__).parents[1]),
}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """As in the processes started here: sums over several threads differ in the last bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.freeze()  # the Trainer collects garbage after every stage, from among all that is imported
    yield
    gc.unfreeze()
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("world")


def settings(world: Path, *more: str) -> list[str]:
    return [*SMALL, f"data.root={world}", *more]


@pytest.fixture
def quick(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Train with these settings too; no scores."""
    monkeypatch.setattr(training, "score", lambda *_: {})

    def run(*more: str, run: Path | None = None, resume: bool = False) -> Path:
        return train(read(RECIPE, settings(world, *more)), run or tmp_path / "run", resume)

    return run


def weights(run: Path) -> dict[str, Tensor]:
    return load_file(run / "model" / "weights.safetensors")


def log(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


TERMS = ("loss", "avopt", "avace", "language_modelling", "contrastive", "grad_norm")


def assert_same_losses(run: Path, other: Path, relative: float) -> None:
    """Step by step, every term and the norm of the gradient."""
    for one, two in zip(log(run), log(other), strict=True):
        assert (one["stage"], one["step"]) == (two["stage"], two["step"])
        terms = [term for term in TERMS if term in two]
        assert [one[term] for term in terms] == pytest.approx([two[term] for term in terms], rel=relative)
