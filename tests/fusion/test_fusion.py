"""Attention goes by content and is handed out as it is; what is masked is not attended to."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from avalign.fusion.avace import AvaceAdapters, attention
from avalign.fusion.none import NoFusion
from avalign.types import Fused, Tokens
from tests.helpers.fusions import DIM, SECONDS, masked, tokens
from tests.helpers.strategies import generator, quick, seeds
from tests.helpers.tolerances import assert_close


def fusion(seed: int = 0) -> AvaceAdapters:
    torch.manual_seed(seed)
    return AvaceAdapters(DIM, seconds=SECONDS)


def real(fused: Fused) -> list[Tensor]:
    """What counts: tokens that are real, and the maps' rows that belong to them."""
    assert fused.image_map is not None
    assert fused.audio_map is not None
    image, audio = fused.image.mask, fused.audio.mask
    return [
        fused.image.values[image],
        fused.audio.values[audio],
        fused.image_map[audio],
        fused.audio_map[image],
    ]


# -- the maps ------------------------------------------------------------------------------------------------


@quick
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 6), seeds)
def test_rows_sum_to_one_over_what_is_real_and_are_zero_where_nothing_is(
    b: int, side: int, m: int, seed: int
) -> None:
    image, audio = masked(seed, b, side, m)
    fused = fusion()(image, audio)
    for weights, keys, queries in ((fused.image_map, image, m), (fused.audio_map, audio, side * side)):
        assert weights.shape == (b, queries, keys.mask.shape[1])
        assert (weights >= 0).all()
        assert (weights.masked_select(~keys.mask[:, None]) == 0).all()
        expected = keys.mask.any(1)[:, None].expand(b, queries)
        assert_close(weights.sum(2), expected.float(), torch.float32)
        assert (weights.masked_select(keys.mask[:, None]) > 0).all()
    assert all(values.isfinite().all() for values in real(fused))
    assert fused.image.values.isfinite().all()  # also where nothing can be attended to
    assert fused.audio.values.isfinite().all()
    assert torch.equal(fused.image.mask, image.mask)
    assert torch.equal(fused.audio.mask, audio.mask)


@quick
@given(seeds)
def test_attention_is_the_softmax_over_real_keys(seed: int) -> None:
    random = generator(seed)
    query, key = (torch.randn(2, k, 3, generator=random, dtype=torch.float64) for k in (4, 5))
    mask = torch.rand(2, 5, generator=random) < 0.5
    mask[:, 2] = True
    weights = attention(query, key, mask)
    for sample in range(2):
        for row in range(4):
            scores = [
                float(query[sample, row] @ key[sample, k]) / math.sqrt(3) if mask[sample, k] else -math.inf
                for k in range(5)
            ]
            powers = [math.exp(score) for score in scores]
            assert_close(weights[sample, row], [p / sum(powers) for p in powers], torch.float32)


def test_maps_are_of_what_is_seen_and_heard() -> None:
    """Fault 2 of the released code: its attention was one constant, whatever was seen and heard."""
    module, (image, audio), (other_image, other_audio) = fusion(), tokens(0), tokens(1)
    fused = module(image, audio)
    for weights in (fused.image_map, fused.audio_map):
        assert weights.std(2).min() > 1e-3, "uniform over keys"
        assert weights.std(1).max() > 1e-3, "the same for every query"
        assert not torch.allclose(weights[0], weights[1], atol=1e-3), "the same for every sample"
    for changed in (module(other_image, audio), module(image, other_audio)):
        for name in ("image_map", "audio_map"):
            assert (getattr(changed, name) - getattr(fused, name)).abs().max() > 1e-2


@pytest.mark.parametrize(("name", "direction"), [("image_map", "over_image"), ("audio_map", "over_audio")])
def test_a_loss_on_a_map_reaches_queries_and_keys_of_its_own_direction(name: str, direction: str) -> None:
    module = fusion()
    image, audio = tokens(0)
    image.values.requires_grad_()
    audio.values.requires_grad_()
    weights = getattr(module(image, audio), name)
    (weights * torch.randn(weights.shape, generator=generator(5))).sum().backward()
    attend = getattr(module, direction)
    for learnt in (attend.query.weight, attend.key.weight, image.values, audio.values):
        assert learnt.grad.abs().max() > 1e-4
    touched = {part.split(".")[0] for part, weight in module.named_parameters() if weight.grad is not None}
    assert touched == {direction}


def test_a_loss_on_the_tokens_reaches_every_weight() -> None:
    module = fusion()
    fused = module(*tokens(0))
    total = sum(
        (t.values * torch.randn(t.values.shape, generator=generator(4))).sum()
        for t in (fused.image, fused.audio)
    )
    total.backward()
    for name, weight in module.named_parameters():
        assert weight.grad.abs().max() > 1e-6, name


def test_maps_stay_exact_under_half_precision() -> None:
    module, (image, audio) = fusion(), tokens(0, side=6)
    with torch.autocast("cpu", torch.bfloat16):
        fused = module(image, audio)
    assert fused.image_map.dtype == fused.audio_map.dtype == torch.float32
    assert_close(fused.image_map.sum(2), torch.ones(2, 5), torch.float32)


# -- what attends to what ------------------------------------------------------------------------------------


@quick
@given(seeds)
def test_masked_tokens_change_nothing(seed: int) -> None:
    image, audio = masked(seed)
    module = fusion()
    before = real(module(image, audio))
    for changed in (image, audio):
        noise = 50 * torch.randn(changed.values.shape, generator=generator(seed + 2))
        changed.values = torch.where(changed.mask[..., None], changed.values, noise)
    for old, new in zip(before, real(module(image, audio)), strict=True):
        assert_close(new, old, torch.float32)


@quick
@given(seeds)
def test_samples_of_a_batch_do_not_see_each_other(seed: int) -> None:
    image, audio = masked(seed)
    module = fusion()
    whole = module(image, audio)
    for k in range(3):
        alone = module(
            replace(image, values=image.values[k : k + 1], mask=image.mask[k : k + 1]),
            replace(audio, values=audio.values[k : k + 1], mask=audio.mask[k : k + 1]),
        )
        assert_close(alone.image.values[0], whole.image.values[k], torch.float32)
        assert_close(alone.audio.values[0], whole.audio.values[k], torch.float32)
        assert_close(alone.image_map[0], whole.image_map[k], torch.float32)
        assert_close(alone.audio_map[0], whole.audio_map[k], torch.float32)


def test_the_order_of_tokens_says_nothing_that_their_places_do_not() -> None:
    image, audio = tokens(0)
    order = torch.tensor([2, 0, 3, 1])
    module = fusion()
    plain = module(image, audio)
    turned = module(replace(image, values=image.values[:, order], boxes=image.boxes[order]), audio)
    assert_close(turned.image_map, plain.image_map[:, :, order], torch.float32)
    assert_close(turned.audio.values, plain.audio.values, torch.float32)
    assert_close(turned.image.values, plain.image.values[:, order], torch.float32)


def test_places_are_in_what_attention_brings_and_never_in_where_it_goes() -> None:
    image, audio = tokens(0)
    module = fusion()
    plain = module(image, audio)
    moved = replace(image, boxes=image.boxes.roll(1, 0))
    later = replace(audio, times=audio.times.roll(1, 0))
    for fused in (module(moved, audio), module(image, later)):
        assert torch.equal(fused.image_map, plain.image_map)
        assert torch.equal(fused.audio_map, plain.audio_map)
        for name in ("image", "audio"):  # a token knows its own place, and those of what it attends to
            change = getattr(fused, name).values - getattr(plain, name).values
            assert change.abs().amax(2).min() > 1e-3
    assert torch.equal(module(moved, audio).image.boxes, moved.boxes)


def test_tokens_without_places_are_taken() -> None:
    image, audio = tokens(0)
    module = fusion()
    placed = module(image, audio)
    nowhere = module(Tokens(image.values, image.mask), Tokens(audio.values, audio.mask))
    assert torch.equal(nowhere.image_map, placed.image_map)
    assert nowhere.image.boxes is None
    assert not torch.allclose(nowhere.image.values, placed.image.values)


def test_without_fusion_tokens_pass_as_they_are() -> None:
    image, audio = tokens(0)
    module = NoFusion(DIM)
    fused = module(image, audio)
    assert fused.image is image
    assert fused.audio is audio
    assert fused.image_map is None
    assert fused.audio_map is None
    assert not list(module.parameters())
