"""What every fusion keeps to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tests.helpers.contract.components import every
from tests.helpers.contract.fusions import fused_tensors
from tests.helpers.contract.saved import (
    assert_compiles,
    assert_every_weight_learns,
    assert_near_in_bf16,
    assert_saved_to_the_bit,
    stir,
)
from tests.helpers.contract.tokens import GRID, SPANS, clip_tokens, patches
from tests.helpers.tolerances import assert_close


@every("fusion")
class TestFusion:
    def test_it_keeps_the_tokens_shapes_masks_and_places(self, build: Any, name: str) -> None:
        image, audio = patches(), clip_tokens()
        fused = build("fusion", name)(image, audio)
        for before, after in ((image, fused.image), (audio, fused.audio)):
            assert after.values.shape == before.values.shape
            assert after.values.isfinite().all()
            assert torch.equal(after.mask, before.mask)
            assert after.boxes is before.boxes
            assert after.times is before.times

    def test_its_maps_are_over_real_keys_and_can_be_wrong(self, build: Any, name: str) -> None:
        """Rows sum to 1 over what is real. Fault 2 of the released code: a map that is the same whatever is
        seen and heard."""
        fusion = build("fusion", name)
        stir(fusion)
        heard = torch.ones(3, SPANS, dtype=torch.bool)
        heard[0, 4:], heard[1] = False, False  # a short clip, and none
        seen = torch.ones(3, GRID * GRID, dtype=torch.bool)
        seen[2] = False
        fused = fusion(patches(mask=seen), clip_tokens(heard))
        assert all(tensor.isfinite().all() for tensor in fused_tensors(fused))
        for found, keys in ((fused.image_map, seen), (fused.audio_map, heard)):
            if found is None:
                assert not any(True for _ in fusion.parameters()), "a fusion that learns shows what it does"
                continue
            assert found.shape[2] == keys.shape[1]
            assert (found >= 0).all()
            assert (found.transpose(1, 2)[~keys] == 0).all()
            expected = keys.any(1).float()[:, None].expand(found.shape[:2])
            assert_close(found.sum(2), expected, torch.float32)
            assert found[0].std(0).max() > 1e-4, "the same for every query"
            assert (found[0][:, keys[0]].std(1) > 1e-4).any(), "the same for every key"

    def test_padding_and_batch_mates_change_nothing(self, build: Any, name: str) -> None:
        fusion = build("fusion", name)
        stir(fusion)
        heard = torch.ones(3, SPANS, dtype=torch.bool)
        heard[0, 4:] = False
        image, audio = patches(), clip_tokens(heard)
        loud = replace(audio, values=audio.values.masked_fill(~heard[..., None], 1e3))
        one, other = fusion(image, audio), fusion(image, loud)
        assert_close(one.image.values, other.image.values, torch.float32)
        assert_close(one.audio.values[heard], other.audio.values[heard], torch.float32)
        alone = fusion(
            replace(image, values=image.values[:1], mask=image.mask[:1]),
            replace(audio, values=audio.values[:1], mask=heard[:1]),
        )
        for together, single in zip(fused_tensors(one), fused_tensors(alone), strict=True):
            assert_close(together[0], single[0], torch.float32)

    def test_it_takes_tokens_without_a_place(self, build: Any, name: str) -> None:
        bare = [replace(tokens, boxes=None, times=None) for tokens in (patches(), clip_tokens())]
        fused = build("fusion", name)(*bare)
        assert all(tensor.isfinite().all() for tensor in fused_tensors(fused))

    def test_every_weight_learns(self, build: Any, name: str) -> None:
        fusion = build("fusion", name)
        stir(fusion)
        assert_every_weight_learns(fusion, fused_tensors(fusion(patches(), clip_tokens())))

    def test_it_works_in_bf16(self, build: Any, name: str) -> None:
        fusion = build("fusion", name)
        assert_near_in_bf16(lambda: fused_tensors(fusion(patches(), clip_tokens())))

    def test_it_compiles(self, build: Any, name: str) -> None:
        fusion = build("fusion", name)
        image, audio = patches(), clip_tokens()  # drawn before: not every torch traces a generator
        assert_compiles(fusion, fusion.parameters(), lambda: fused_tensors(fusion(image, audio)))

    def test_it_is_saved_and_loaded_to_the_bit(self, build: Any, name: str, tmp_path: Path) -> None:
        first, second = (build("fusion", name, seed) for seed in (1, 2))
        assert_saved_to_the_bit(
            first, second, lambda f: fused_tensors(f(patches(), clip_tokens())), tmp_path / "w.safetensors"
        )

    def test_it_builds_without_memory(self, build: Any, name: str) -> None:
        """On the meta device, with the weights it has elsewhere."""
        real = {key: weight.shape for key, weight in build("fusion", name).named_parameters()}
        with torch.device("meta"):
            ghost = build("fusion", name)
        assert {key: weight.shape for key, weight in ghost.named_parameters()} == real
        assert all(weight.is_meta for weight in ghost.parameters())
