"""What every loss keeps to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from avalign.losses import LossValue
from avalign.losses.objective import Objective
from tests.contract.components import every
from tests.contract.kept import assert_compiles
from tests.test_objective import example, rows
from tests.tolerances import assert_close

LEARNT = {"image", "audio", "image_map", "audio_map", "logits"}  # what a loss may teach, of what it may name


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
        """Each by itself: batch mates change nothing, and a shard of a batch weighs its share."""
        objective = Objective({name: (build("loss", name), 1.0)})
        outputs, batch, _ = example()
        together = objective.terms(outputs, batch)[name]
        alone = [objective.terms(*rows(outputs, batch, slice(k, k + 1)))[name] for k in range(len(batch))]
        assert_close(together.total, torch.stack([one.total for one in alone]).mean(), torch.float32)
        if together.samples is not None:
            assert_close(together.samples, torch.cat([one.samples for one in alone]), torch.float32)

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
