"""What every projector keeps to, given pictures, films and sounds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from avalign.types import Tokens
from tests.helpers.contract.components import every
from tests.helpers.contract.saved import (
    assert_compiles,
    assert_every_weight_learns,
    assert_near_in_bf16,
    assert_saved_to_the_bit,
    stir,
)
from tests.helpers.contract.tokens import DIM_OUT, KINDS, given
from tests.helpers.tolerances import assert_close

kinds = pytest.mark.parametrize("kind", KINDS)


def projected(projector: Any) -> list[Tensor]:
    """What it makes of a picture, a film and a sound."""
    return [projector(tokens(), **given(projector)).values for tokens in KINDS.values()]


@every("projector")
class TestProjector:
    @kinds
    def test_its_tokens_are_as_many_and_as_wide_as_it_says(self, build: Any, name: str, kind: str) -> None:
        projector, before = build("projector", name), KINDS[kind]()
        count = projector.token_count(before.values.shape[1], before.frames)
        tokens = projector(before, **given(projector))
        assert count > 0
        assert tokens.values.shape == (3, count, DIM_OUT)
        assert tokens.values.isfinite().all()
        assert tokens.mask.shape == (3, count)
        assert tokens.mask.all()
        assert tokens.mask.dtype == torch.bool
        assert tokens.frame_times is None or tokens.frame_times.shape == (3, count)
        assert tokens.boxes is None or kind != "sound"
        assert tokens.times is None or kind == "sound"
        if tokens.times is not None:  # spans go on from each other, from the start of the clip to its end
            starts, ends = tokens.times.unbind(1)
            assert (starts[0], ends[-1]) == (0, 3)
            assert torch.equal(starts[1:], ends[:-1])
        if tokens.boxes is not None:  # patches still tile the picture
            left, top, right, bottom = tokens.boxes.view(tokens.frames, -1, 4)[0].unbind(1)
            assert ((right - left) * (bottom - top)).sum().item() == pytest.approx(1, abs=1e-5)

    @kinds
    def test_it_takes_tokens_without_a_place(self, build: Any, name: str, kind: str) -> None:
        projector, before = build("projector", name), KINDS[kind]()
        placed = projector(before, **given(projector))
        bare = projector(replace(before, boxes=None, times=None, frame_times=None), **given(projector))
        assert bare.boxes is None
        assert bare.times is None
        assert bare.frame_times is None
        assert bare.values.shape == placed.values.shape
        assert bare.values.isfinite().all()
        assert torch.equal(bare.mask, placed.mask)

    @kinds
    def test_padding_and_batch_mates_change_nothing(self, build: Any, name: str, kind: str) -> None:
        projector, before = build("projector", name), KINDS[kind]()
        stir(projector)
        mask = before.mask.clone()
        mask[0, 3], mask[1] = False, False
        one = projector(replace(before, mask=mask), **given(projector))
        loud = before.values.masked_fill(~mask[..., None], 1e4)
        beside = given(projector)
        if "instruction" in beside:
            words = beside["instruction"]
            padding = torch.full((3, 2, DIM_OUT), 1e4)
            beside["instruction"] = Tokens(
                torch.cat([words.values.masked_fill(~words.mask[..., None], 1e4), padding], 1),
                torch.cat([words.mask, torch.zeros(3, 2, dtype=torch.bool)], 1),
            )
        other = projector(replace(before, values=loud, mask=mask), **beside)
        assert torch.equal(one.mask, other.mask)
        assert not one.mask[1].any()
        assert one.mask[2].all()
        assert one.values.isfinite().all()
        assert_close(one.values[one.mask], other.values[one.mask], torch.float32)
        when = None if before.frame_times is None else before.frame_times[2:]
        last = replace(before, values=before.values[2:], mask=mask[2:], frame_times=when)
        alone = projector(last, **given(projector, 1, first=2))
        assert_close(one.values[2], alone.values[0], torch.float32)

    def test_every_weight_learns(self, build: Any, name: str) -> None:
        projector = build("projector", name)
        assert_every_weight_learns(projector, projected(projector))

    @kinds
    def test_no_weight_is_left_out_of_a_step(self, build: Any, name: str, kind: str) -> None:
        """Several processes do not train together otherwise, whatever the data are."""
        projector = build("projector", name)
        for tokens in (KINDS[kind](), replace(KINDS[kind](), boxes=None, times=None, frame_times=None)):
            trained = [weight for weight in projector.parameters() if weight.requires_grad]
            total = projector(tokens, **given(projector)).values.sum()
            assert all(gradient is not None for gradient in torch.autograd.grad(total, trained))

    def test_it_works_in_bf16(self, build: Any, name: str) -> None:
        projector = build("projector", name)
        assert_near_in_bf16(lambda: projected(projector))

    def test_it_compiles(self, build: Any, name: str) -> None:
        projector, tokens = build("projector", name), KINDS["film"]()
        beside = given(projector)
        assert_compiles(projector, projector.parameters(), lambda: [projector(tokens, **beside).values])

    def test_it_is_saved_and_loaded_to_the_bit(self, build: Any, name: str, tmp_path: Path) -> None:
        first, second = (build("projector", name, seed) for seed in (1, 2))
        assert_saved_to_the_bit(first, second, projected, tmp_path / "w.safetensors")

    def test_it_builds_without_memory(self, build: Any, name: str) -> None:
        """On the meta device, with the weights it has elsewhere."""
        real = {key: weight.shape for key, weight in build("projector", name).named_parameters()}
        with torch.device("meta"):
            ghost = build("projector", name)
        assert {key: weight.shape for key, weight in ghost.named_parameters()} == real
        assert all(weight.is_meta for weight in ghost.parameters())
