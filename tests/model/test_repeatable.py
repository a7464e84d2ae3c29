"""What is kept of a preprocessing's work has to be what it would make again."""

from __future__ import annotations

import importlib
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from avalign.encoders.preprocessing import PaddedClip, SmallClip, SmallImage, SquareImage
from avalign.model import repeatable
from avalign.model.feature_cache import EXAMPLES
from avalign.model.repeatable import identity
from tests.helpers.paths import ROOT
from tests.helpers.runs import ENVIRONMENT

IMAGE, AUDIO = EXAMPLES["image_encoder"], EXAMPLES["audio_encoder"]


@dataclass
class By:
    """A preprocessing that draws from a generator, shared or its own."""

    draw: str
    seed: int = 0

    def __post_init__(self) -> None:
        self.own = np.random.default_rng(self.seed)

    def __call__(self, image: np.ndarray) -> Tensor:
        chance: dict[str, Callable[[], Any]] = {
            "torch": lambda: torch.rand(1),
            "numpy": lambda: np.random.rand(),  # noqa: NPY002
            "random": random.random,
            "own": lambda: self.own.random(),
            "unused": lambda: 0 * torch.rand(1),  # as a crop that an image is too small for
        }
        return torch.from_numpy(image.astype(np.float32)) * float(chance[self.draw]())


def mean(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image).float().mean((0, 1))


@pytest.mark.parametrize("draw", ["torch", "numpy", "random", "own", "unused"])
def test_what_draws_by_chance_has_none_and_draws_nothing(draw: str) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    assert identity(By(draw), *IMAGE) is None
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert random.getstate() == before[2]


def test_what_cannot_be_pickled_or_run_has_none() -> None:
    assert identity(lambda image: mean(image), *IMAGE) is None
    assert identity(mean) is None
    assert identity(mean, *IMAGE) is not None


def test_every_setting_is_part_of_it() -> None:
    images = [
        SmallImage(16),
        SmallImage(24),
        SquareImage(16, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        SquareImage(16, (0.5, 0.5, 0.5), (0.5, 0.5, 0.51)),
        SquareImage(16, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bilinear"),
    ]
    clips = [SmallClip(8000, 1.0), PaddedClip(8000, 1.0, "x"), PaddedClip(8000, 1.0, "x", normalised=True)]
    found = [identity(each, *IMAGE) for each in images] + [identity(each, *AUDIO) for each in clips]
    assert len(set(found)) == len(found)
    assert None not in found
    assert identity(SmallImage(16), *IMAGE) == found[0]


def test_it_is_the_same_in_another_process() -> None:
    code = (
        "from avalign.encoders.preprocessing import SmallImage\n"
        "from avalign.model.feature_cache import EXAMPLES\n"
        "from avalign.model.repeatable import identity\n"
        "print(identity(SmallImage(16), *EXAMPLES['image_encoder']).hex())"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, cwd=ROOT, check=True, capture_output=True, text=True
    )
    found = identity(SmallImage(16), *IMAGE)
    assert found is not None
    assert said.stdout.strip() == found.hex()


def test_code_of_its_own_is_part_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    found = []
    for number in (1, 2):
        (tmp_path / "strangers_own.py").write_text(
            f"import torch\ndef prepared(image):\n    return torch.full((3,), {number}.0)\n"
        )
        sys.modules.pop("strangers_own", None)
        importlib.invalidate_caches()
        found.append(identity(importlib.import_module("strangers_own").prepared, *IMAGE))
    sys.modules.pop("strangers_own")
    assert None not in found
    assert found[0] != found[1]


def test_what_reads_media_is_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = identity(SmallImage(16), *IMAGE)
    real = repeatable.version
    monkeypatch.setattr(repeatable, "version", lambda name: "0" if name == "pillow" else real(name))
    repeatable._readers.cache_clear()
    try:
        assert identity(SmallImage(16), *IMAGE) != found
    finally:
        repeatable._readers.cache_clear()
