"""What every loss keeps to."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from avalign import registry
from avalign.losses import LossValue
from avalign.losses.objective import SUPPLIES, Objective, ObjectiveError
from tests.helpers.contract.components import every
from tests.helpers.contract.processes import VARIANTS, found
from tests.helpers.contract.saved import assert_compiles
from tests.helpers.objectives import example, rows
from tests.helpers.paths import ROOT
from tests.helpers.tolerances import assert_close

LEARNT = {"image", "audio", "image_map", "audio_map", "logits"}  # what a loss may teach, of what it may name


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes found that hold half of a batch each: of every loss, a file each."""
    folder = tmp_path_factory.mktemp("processes")
    command = [sys.executable, "-m", "tests.helpers.contract.processes", str(folder)]
    root = ROOT
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, cwd=root)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return folder


@every("loss")
class TestLoss:
    def test_it_teaches_what_it_names_and_nothing_else(self, build: Any, name: str) -> None:
        objective = Objective({name: (build("loss", name), 1.0)})
        outputs, batch, parameters = example()
        value = objective.terms(outputs, batch)[name]
        assert isinstance(value, LossValue)
        assert value.total.shape == ()
        assert value.total.isfinite()
        value.total.backward()
        named = LEARNT & set(objective._arguments[name])
        assert named, "it reads nothing that can learn"
        for key, tensor in parameters.items():
            if key in named:
                assert tensor.grad.isfinite().all()
                assert tensor.grad.count_nonzero(), f"the gradient of {key} is 0"
            else:
                assert tensor.grad is None, f"{key} is taught, which it does not name"

    def test_it_is_the_mean_of_its_samples(self, build: Any, name: str) -> None:
        """In any order, and whether or not others stand beside them to which it does not apply."""
        objective = Objective({name: (build("loss", name), 1.0)})
        outputs, batch, _ = example(8)
        value = objective.terms(outputs, batch)[name]
        assert value.samples is not None, "what each sample adds is not said"
        assert value.applies is not None
        assert_close(value.total, value.samples.mean(), torch.float32)
        assert (value.samples[~value.applies] == 0).all()
        order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
        assert_close(
            objective.terms(*rows(outputs, batch, order))[name].samples, value.samples[order], torch.float32
        )
        fewer = objective.terms(*rows(outputs, batch, value.applies))[name]
        assert_close(fewer.samples, value.samples[value.applies], torch.float32)

    def test_called_by_itself_it_gives_a_tensor_as_torchs_own_do(self, name: str) -> None:
        """A scalar on which backward works: the mean over all samples, or their sum, or each one's own."""
        found, gradients = {}, {}
        for reduction in ("mean", "sum", "none"):
            loss = registry.load("loss", name)(reduction=reduction)
            outputs, batch, parameters = example()
            named = SUPPLIES.keys() & signature(loss.terms).parameters.keys()
            arguments = {key: SUPPLIES[key](outputs, batch) for key in named}
            value = loss.terms(**arguments)
            found[reduction] = loss(**arguments)
            weights = torch.ones_like(found[reduction])
            taught = [parameters[key] for key in sorted(LEARNT & named)]
            gradients[reduction] = torch.autograd.grad(found[reduction], taught, weights)
        assert torch.equal(found["mean"], value.total)
        assert torch.equal(found["none"], value.samples)
        assert (found["mean"].shape, found["sum"].shape, found["none"].shape) == ((), (), (4,))
        assert_close(found["sum"], 4 * found["mean"], torch.float32)
        for mean, total, each in zip(*gradients.values(), strict=True):
            assert mean.any()
            assert_close(total, 4 * mean, torch.float32)
            assert_close(each, total, torch.float32)
        with pytest.raises(ValueError, match="reduction must be 'mean', 'sum' or 'none', not 'avg'"):
            registry.load("loss", name)(reduction="avg")

    def test_its_reduction_is_no_option_of_a_recipe(self, name: str) -> None:
        """Whose terms are means, so that a batch's total is the mean of its shards'."""
        assert "reduction" not in registry.options(registry.load("loss", name))

    def test_a_sample_depends_on_others_only_if_the_loss_says_so(self, build: Any, name: str) -> None:
        """By `couples_samples = True`. Without it a shard of a batch weighs its share, whoever is in it."""
        loss = build("loss", name)
        objective = Objective({name: (loss, 1.0)})
        outputs, batch, _ = example()
        together = objective.terms(outputs, batch)[name].samples
        pair = objective.terms(*rows(outputs, batch, slice(0, 2)))[name].samples
        assert_close(pair, together[:2], torch.float32)  # the other two are no pairs, or add what they add
        strangers, _, _ = example(seed=1)
        outputs.image.values.data[1] = strangers.image.values[1].detach()
        outputs.audio.values.data[1] = strangers.audio.values[1].detach()
        first = objective.terms(outputs, batch)[name].samples[0]
        if loss.couples_samples:
            assert (first - together[0]).abs() > 1e-3, "it says that samples are coupled, and they are not"
            with suppress(ObjectiveError):  # that one sample is too few may be said, but not be a nan
                assert objective.terms(*rows(outputs, batch, slice(0, 1)))[name].total.isfinite()
        else:
            assert_close(first, together[0], torch.float32)
            alone = [objective.terms(*rows(outputs, batch, slice(k, k + 1)))[name].samples for k in range(4)]
            assert_close(torch.cat(alone), objective.terms(outputs, batch)[name].samples, torch.float32)

    def test_what_is_masked_is_not_read(self, build: Any, name: str) -> None:
        """NaN in the place of absent pictures and sounds changes neither value nor gradient."""
        objective = Objective({name: (build("loss", name), 1.0)})
        outputs, batch, _ = example()
        spoilt = replace(
            outputs,
            **{
                side: replace(tokens, values=tokens.values.masked_fill(~tokens.mask[..., None], torch.nan))
                for side, tokens in (("image", outputs.image), ("audio", outputs.audio))
            },
        )
        expected, found = (objective.terms(out, batch)[name].total for out in (outputs, spoilt))
        assert_close(found, expected, torch.float32)

    def test_it_works_in_bf16(self, build: Any, name: str) -> None:
        objective = Objective({name: (build("loss", name), 1.0)})
        outputs, batch, _ = example()
        fused = replace(
            outputs.fused,
            image_map=outputs.fused.image_map.bfloat16(),
            audio_map=outputs.fused.audio_map.bfloat16(),
        )
        low = replace(
            outputs,
            image=replace(outputs.image, values=outputs.image.values.bfloat16()),
            audio=replace(outputs.audio, values=outputs.audio.values.bfloat16()),
            fused=fused,
            logits=outputs.logits.bfloat16(),
        )
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = objective.terms(low, batch)[name].total
        assert found.dtype in (torch.float32, torch.float64)
        assert_close(found, objective.terms(outputs, batch)[name].total, torch.bfloat16)

    def test_it_compiles(self, build: Any, name: str) -> None:
        """To the value and to the gradients of what it teaches."""
        loss = build("loss", name)
        objective = Objective({name: (loss, 1.0)})
        outputs, batch, parameters = example()
        taught = [parameters[key] for key in LEARNT & set(objective._arguments[name])]

        def run() -> list[Tensor]:
            return [objective.terms(outputs, batch)[name].total]

        assert_compiles(loss, taught, run)


@pytest.mark.parametrize("name", [*registry.names("loss"), *VARIANTS])
def test_two_processes_make_what_one_does(two_processes: Path, name: str) -> None:
    """The mean of their totals and gradients, which is what they learn by, is the whole batch's."""
    whole = found(name, slice(None))
    halves = [load_file(two_processes / f"{name}-{rank}") for rank in range(2)]
    assert whole.keys() == halves[0].keys() == halves[1].keys()
    assert not torch.equal(halves[0]["total"], halves[1]["total"])
    for key, expected in whole.items():
        assert_close((halves[0][key] + halves[1][key]) / 2, expected, torch.float32)
