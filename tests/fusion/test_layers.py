"""Fusions made of transformer layers: gated cross attention, and self-attention over both modalities."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from avalign.fusion.concat import Concat
from avalign.fusion.gated_cross_attention import GatedCrossAttention
from avalign.types import Fused, Tokens
from tests.helpers.attention import torchs
from tests.helpers.contract.saved import stir
from tests.helpers.fusions import DIM, SECONDS, masked, tokens
from tests.helpers.strategies import quick, seeds
from tests.helpers.tolerances import assert_close


def gated(layers: int = 1, opened: bool = True) -> GatedCrossAttention:
    torch.manual_seed(0)
    module = GatedCrossAttention(DIM, heads=2, layers=layers, seconds=SECONDS)
    if opened:
        stir(module)
    return module


def concat(layers: int = 1) -> Concat:
    torch.manual_seed(0)
    return Concat(DIM, heads=2, layers=layers, seconds=SECONDS)


def joined(module: Concat, image: Tokens, audio: Tokens) -> torch.Tensor:
    """What the first layer reads."""
    seen = image.values + module.place(image) + module.image_kind
    return torch.cat([seen, audio.values + module.place(audio) + module.audio_kind], 1)


def moved(of: Tokens) -> Tokens:
    places = {name: place for name in ("boxes", "times") if (place := vars(of)[name]) is not None}
    assert places
    return replace(of, **{name: place.roll(1, 0) for name, place in places.items()})


# -- gated cross attention -----------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [1, 3])
def test_closed_gates_leave_the_tokens_as_they_are(layers: int) -> None:
    image, audio = masked(0)
    fused = gated(layers, opened=False)(image, audio)
    assert torch.equal(fused.image.values, image.values)
    assert torch.equal(fused.audio.values, audio.values)
    assert fused.image_map[1:].std(2).max() > 1e-3, "the maps are there from the first step"


def test_closed_gates_can_open() -> None:
    module = gated(opened=False)
    fused = module(*tokens(0))
    sum((t.values * torch.randn(t.values.shape)).sum() for t in (fused.image, fused.audio)).backward()
    for name, weight in module.named_parameters():
        assert bool(weight.grad.any()) == ("gate" in name), name


@quick
@given(seeds)
def test_a_gated_layer_is_flamingos(seed: int) -> None:
    """x += tanh(a) attention(norm x, norm y + place y); x += tanh(b) feed(x + place x)."""
    module, (image, audio) = gated(), tokens(seed)
    layer = module.over_image[0]
    query, key = layer.norm_asking(audio.values), layer.norm_asked(image.values)
    brought, weights = torchs(layer.attention)(query, key, key + module.place(image))
    x = audio.values + layer.gate_attention.tanh() * brought
    x = x + layer.gate_feed.tanh() * layer.feed(x + module.place(audio))
    fused = module(image, audio)
    assert_close(fused.audio.values, x, torch.float32)
    assert_close(fused.image_map, weights, torch.float32)


def test_gated_maps_go_by_content() -> None:
    module, (image, audio) = gated(), tokens(0)
    plain = module(image, audio)
    for other in (module(moved(image), audio), module(image, moved(audio))):
        assert torch.equal(other.image_map, plain.image_map)
        assert torch.equal(other.audio_map, plain.audio_map)
        for name in ("image", "audio"):
            assert (getattr(other, name).values - getattr(plain, name).values).abs().max() > 1e-5


# -- concatenation with self-attention -----------------------------------------------------------------------


def test_a_layer_over_both_is_torchs_own() -> None:
    module = concat(layers=2)
    image, audio = masked(0)
    image.mask[0, 0] = True  # torch's own has no answer to a sample without any token
    x, mask = joined(module, image, audio), torch.cat([image.mask, audio.mask], 1)
    for layer in module.layers:
        reference = nn.TransformerEncoderLayer(
            DIM, 2, 4 * DIM, dropout=0.0, activation="gelu", norm_first=True, batch_first=True
        )
        norm, wide, _, narrow = layer.feed
        reference.norm1, reference.norm2 = layer.norm, norm
        reference.linear1, reference.linear2 = wide, narrow
        reference.self_attn = torchs(layer.attention)
        x = reference(x, src_key_padding_mask=~mask)
    fused = module(image, audio)
    found = torch.cat([fused.image.values, fused.audio.values], 1)
    assert_close(found[mask], x[mask], torch.float32)


@quick
@given(seeds, st.integers(1, 3))
def test_a_map_is_a_block_of_the_last_attention_shared_out_anew(seed: int, layers: int) -> None:
    module = concat(layers)
    image, audio = masked(seed)
    image.mask[0, 0] = audio.mask[:, 0] = True
    x, mask = joined(module, image, audio), torch.cat([image.mask, audio.mask], 1)
    *before, layer = module.layers
    for one in before:
        x = one(x, mask)
    x, n = layer.norm(x), image.values.shape[1]
    whole = torchs(layer.attention)(x, x, x, key_padding_mask=~mask, average_attn_weights=False)[1]
    fused = module(image, audio)
    for found, block, keys in (
        (fused.image_map, whole[:, :, n:, :n], image.mask),
        (fused.audio_map, whole[:, :, :n, n:], audio.mask),
    ):
        some = keys.any(1)
        expected = (block / block.sum(-1, keepdim=True)).mean(1)
        assert_close(found[some], expected[some], torch.float32)


def test_modality_place_and_time_tell_tokens_apart() -> None:
    """The same vectors as patches and as sounds come out differently, and so where they lie elsewhere."""
    module = concat()
    stir(module)
    image, audio = tokens(0, side=2, m=4)
    plain = module(image, audio)
    for other in (module(moved(image), audio), module(image, moved(audio))):
        for name in ("image_map", "audio_map"):
            assert (getattr(other, name) - getattr(plain, name)).abs().max() > 1e-4
    bare = Tokens(image.values, image.mask)
    fused: Fused = module(bare, Tokens(image.values, image.mask))
    assert (fused.image.values - fused.audio.values).abs().max() > 1e-3


def test_layers_are_at_least_one() -> None:
    for build in (concat, gated):
        with pytest.raises(ValueError, match="layers is 0"):
            build(0)


def test_a_video_knows_when_each_frame_was_seen() -> None:
    image, audio = tokens(0)
    for module in (gated(), concat()):
        one, other = (
            module(replace(image, frames=2, frame_times=torch.full((2, 4), t)), audio) for t in (0.2, 1.1)
        )
        assert (one.audio.values - other.audio.values).abs().max() > 1e-5
