"""What every projector keeps to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.contract.components import every
from tests.contract.kept import (
    assert_compiles,
    assert_every_weight_learns,
    assert_near_in_bf16,
    assert_saved_to_the_bit,
    noise,
)
from tests.contract.tokens import DIM, GRID, patches
from tests.tolerances import assert_close


@every("projector")
class TestProjector:
    def test_its_tokens_are_as_many_and_as_wide_as_it_says(self, build: Any, name: str) -> None:
        projector = build("projector", name)
        count = projector.token_count(GRID * GRID)
        assert 0 < count <= GRID * GRID
        tokens = projector(patches())
        assert tokens.values.shape == (3, count, 24)
        assert tokens.mask.shape == (3, count)
        assert tokens.mask.all()
        assert tokens.mask.dtype == torch.bool
        if tokens.where is not None:  # patches still tile the picture
            left, top, right, bottom = tokens.where.unbind(1)
            assert ((right - left) * (bottom - top)).sum().item() == pytest.approx(1, abs=1e-5)

    def test_it_takes_tokens_without_a_place(self, build: Any, name: str) -> None:
        projector = build("projector", name)
        placed, bare = projector(patches()), projector(replace(patches(), where=None))
        assert bare.where is None
        assert torch.equal(placed.values, bare.values)

    def test_padding_and_batch_mates_change_nothing(self, build: Any, name: str) -> None:
        projector = build("projector", name)
        mask = torch.ones(3, GRID * GRID, dtype=torch.bool)
        mask[0, 3], mask[1] = False, False
        values = noise(3, GRID * GRID, DIM)
        one = projector(patches(values, mask))
        other = projector(patches(torch.where(mask[..., None], values, torch.full_like(values, 1e4)), mask))
        assert torch.equal(one.mask, other.mask)
        assert not one.mask[1].any()
        assert one.mask[2].all()
        assert_close(one.values[one.mask], other.values[one.mask], torch.float32)
        alone = projector(patches(values[2:], mask[2:]))
        assert_close(one.values[2], alone.values[0], torch.float32)

    def test_every_weight_learns(self, build: Any, name: str) -> None:
        projector = build("projector", name)
        assert_every_weight_learns(projector, [projector(patches()).values])

    def test_it_works_in_bf16(self, build: Any, name: str) -> None:
        projector = build("projector", name)
        assert_near_in_bf16(lambda: [projector(patches()).values])

    def test_it_compiles(self, build: Any, name: str) -> None:
        projector = build("projector", name)
        assert_compiles(projector, projector.parameters(), lambda: [projector(patches()).values])

    def test_it_is_saved_and_loaded_to_the_bit(self, build: Any, name: str, tmp_path: Path) -> None:
        first, second = (build("projector", name, seed) for seed in (1, 2))
        assert_saved_to_the_bit(first, second, lambda p: [p(patches()).values], tmp_path / "w.safetensors")
