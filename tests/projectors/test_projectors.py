"""What is special to each projector; tests/contract holds what is common to all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import nnls
from torch import Tensor

from avalign.encoders.positions import patch_boxes, spans
from avalign.projectors.conv_attention import ConvAttention
from avalign.projectors.gated import Gated
from avalign.projectors.pool import Pool
from avalign.projectors.resampler import Resampler
from avalign.projectors.spatial_temporal_pool import SpatialTemporalPool
from tests.helpers.attention import torchs
from tests.helpers.projectors import DIM, OUT, film, jacobian, tokens
from tests.helpers.strategies import generator, quick, seeds
from tests.helpers.tolerances import assert_close

# -- resampler -----------------------------------------------------------------------------------------------


def resampler(**options: int) -> Resampler:
    torch.manual_seed(0)
    return Resampler(DIM, OUT, **{"queries": 3, "heads": 2, "seconds": 4.0, **options})


@quick
@given(seeds)
def test_tokens_without_a_place_are_a_set(seed: int) -> None:
    """And those with one may come in any order too, if their places come along."""
    module, before = resampler(), tokens(seed)
    order = torch.randperm(9, generator=generator(seed))
    turned = replace(before, values=before.values[:, order])
    assert_close(module(turned).values, module(before).values, torch.float32)
    boxes = patch_boxes(3, 3)
    placed = module(replace(before, boxes=boxes)).values
    assert_close(module(replace(turned, boxes=boxes[order])).values, placed, torch.float32)
    if not torch.equal(order, torch.arange(9)):
        assert (module(replace(turned, boxes=boxes)).values - placed).abs().max() > 1e-4


def test_a_layer_is_flamingos() -> None:
    """Latents ask latents and tokens: l += attention(norm l, [norm x; norm l]); l += feed(l)."""
    module, before = resampler(layers=1), tokens(1)
    before.mask[0, 4:] = False
    layer = module.layers[0]
    x, latents = module.norm(before.values), module.latents.expand(2, -1, -1)
    asking = layer.norm_latents(latents)
    asked = torch.cat([layer.norm_tokens(x), asking], 1)
    ignored = torch.cat([~before.mask, torch.zeros(2, 3, dtype=torch.bool)], 1)
    latents = latents + torchs(layer.attention)(asking, asked, asked, key_padding_mask=ignored)[0]
    norm, wide, _, narrow = layer.feed
    latents = latents + narrow(F.gelu(wide(norm(latents))))
    assert_close(module(before).values, module.out(latents), torch.float32)


@pytest.mark.parametrize("hidden", [None, 4])
def test_a_resampler_knows_when(hidden: int | None) -> None:
    module = resampler(hidden=hidden)  # type: ignore[arg-type]
    one, other = (module(film(0, 3, 4, shift=shift)) for shift in (0.0, 0.5))
    assert (one.values - other.values).abs().amax((1, 2)).min() > 1e-3
    assert one.mask.all()
    assert (one.frames, one.boxes, one.times, one.frame_times) == (1, None, None, None)


# -- convolution and attention over the vocabulary -----------------------------------------------------------


def conv_attention(dim_out: int = 4, **options: int) -> ConvAttention:
    torch.manual_seed(0)
    return ConvAttention(DIM, dim_out, **{"stride": 2, "kernel": 4, **options})


@quick
@given(seeds, st.sampled_from([1, 2]), st.floats(0.01, 10))
def test_every_token_lies_among_the_words(seed: int, heads: int, size: float) -> None:
    """In the convex hull of V = W_v E: weights that are not negative and sum to 1 make it up."""
    module = conv_attention(heads=heads)
    words = size * torch.randn(7, 4, generator=generator(seed))
    found = module(tokens(seed), vocabulary=words).values
    values = (words @ module.value.T).detach()
    for k in range(heads):
        part = slice(4 // heads * k, 4 // heads * (k + 1))
        system = torch.cat([values[:, part].T / size, torch.ones(1, 7)]).double().numpy()
        for token in found[0, :, part].detach() / size:
            _, missed = nnls(system, np.append(token.double().numpy(), 1.0))
            assert missed < 1e-5


@quick
@given(seeds, st.sampled_from([1, 2, 4]))
def test_it_is_attention_over_the_table(seed: int, heads: int) -> None:
    """As if every word's key and value were made, with keys of a table of size 1."""
    module = conv_attention(heads=heads)
    before, words = tokens(seed), 0.02 * torch.randn(7, 4, generator=generator(seed))
    padded = F.pad(before.values.transpose(1, 2), (1, 2))  # 9 tokens, kernel 4, stride 2: 5 come out
    query = module.query(module.norm(module.conv(padded).transpose(1, 2)))

    def split(x: Tensor) -> Tensor:
        return x.unflatten(-1, (heads, -1)).transpose(-3, -2)

    key = words / words.square().mean().sqrt() @ module.key.T
    expected = F.scaled_dot_product_attention(
        split(query), split(key).expand(2, -1, -1, -1), split(words @ module.value.T).expand(2, -1, -1, -1)
    )
    found = module(before, vocabulary=words).values
    assert_close(found, expected.transpose(1, 2).flatten(2), torch.float32)


@pytest.mark.parametrize(("stride", "kernel", "n"), [(2, 4, 9), (3, 3, 9), (3, 5, 10), (4, 9, 3)])
def test_a_token_sees_its_stride_and_what_the_kernel_adds(stride: int, kernel: int, n: int) -> None:
    module = conv_attention(stride=stride, kernel=kernel)
    words = torch.randn(7, 4, generator=generator(1))
    reach = jacobian(module, tokens(0, n), vocabulary=words)
    count = module.token_count(n)
    assert reach.shape == (count, n)
    for row in range(count):
        start = row * stride - (kernel - stride) // 2
        assert reach[row].tolist() == [start <= k < start + kernel for k in range(n)]
        assert reach[row, row * stride : (row + 1) * stride].all()


def test_a_shortened_sound_keeps_its_spans_and_knows_what_is_real() -> None:
    module, before = conv_attention(stride=4, kernel=4), replace(tokens(0, 10), times=spans(10, 5.0))
    before.mask[0, 5:] = False
    found = module(before, vocabulary=torch.randn(7, 4, generator=generator(1)))
    assert_close(found.times, [[0, 2], [2, 4], [4, 5]], torch.float32)
    assert found.mask.tolist() == [[True, True, False], [True, True, True]]
    placed = replace(tokens(0), boxes=patch_boxes(3, 3))
    assert module(placed, vocabulary=torch.ones(7, 4)).boxes is None


# -- spatial and temporal pooling ----------------------------------------------------------------------------


def test_a_video_is_its_frames_means_and_its_places_means() -> None:
    module = SpatialTemporalPool(DIM, DIM)
    with torch.no_grad():
        module.linear.weight.copy_(torch.eye(DIM))
        module.linear.bias.zero_()
    before = film(0, 3, 4)
    cells = before.values.view(2, 3, 4, DIM)
    found = module(before)
    assert found.values.shape == (2, 3 + 4, DIM)
    assert_close(found.values[1, :3], cells[1].mean(1), torch.float32)
    assert_close(found.values[1, 3:], cells[1].mean(0), torch.float32)
    assert found.mask.tolist() == [[True, True, False, *[True] * 4], [True] * 7]
    assert_close(found.values[0, :2], cells[0, :2].mean(1), torch.float32)
    assert_close(found.values[0, 3:], cells[0, :2].mean(0), torch.float32)
    still = module(tokens(0, 4))
    assert_close(still.values[:, 0], tokens(0, 4).values.mean(1), torch.float32)
    assert_close(still.values[:, 1:], tokens(0, 4).values, torch.float32)


# -- gated ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gate", ["sigmoid", "gelu"])
def test_a_gate_lets_pass_what_it_says(gate: str) -> None:
    module, before = Gated(DIM, OUT, gate=gate), tokens(0)  # type: ignore[arg-type]
    content, passing = module.content(before.values), module.passing(before.values)
    expected = (
        F.glu(torch.cat([content, passing], -1))
        if gate == "sigmoid"
        else content * passing * (1 + torch.erf(passing / 2**0.5)) / 2
    )
    assert_close(module(before).values, expected, torch.float32)
    with torch.no_grad():
        module.passing.bias.fill_(-200.0)
    assert module(before).values.abs().max() < 1e-20, "closed"


# -- pooling, of sounds --------------------------------------------------------------------------------------


def test_a_sound_is_pooled_in_time() -> None:
    module, before = Pool(DIM, OUT), replace(tokens(0, 12), times=spans(12, 6.0))
    before.mask[0, 9:] = False
    found = module(before)
    assert module.token_count(12) == 3
    assert_close(found.times, [[0, 2], [2, 4], [4, 6]], torch.float32)
    assert found.mask.tolist() == [[True, True, False], [True, True, True]]
    assert_close(found.values[1, 1], module.linear(before.values[1, 4:8].mean(0)), torch.float32)
    with pytest.raises(ValueError, match="has 12 tokens"):
        module(replace(before, times=None, boxes=patch_boxes(3, 4)))


# -- what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: resampler(queries=0), "queries is 0"),
        (lambda: resampler(layers=0), "layers is 0"),
        (lambda: resampler(heads=3), "3 heads cannot share a width of 8"),
        (lambda: conv_attention(stride=5), "kernel 4 and stride 5 leave tokens out"),
        (lambda: conv_attention(stride=0), "1 <= stride"),
        (lambda: conv_attention(heads=3), "3 heads cannot share a width of 4"),
        (lambda: conv_attention()(tokens(0)), "attends to the LLM's words"),
        (lambda: Gated(DIM, OUT, gate="relu"), "gate 'relu' is not known. Known: sigmoid, gelu"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_is_said(build: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build()  # type: ignore[operator]
