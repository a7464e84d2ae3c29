"""The shared attention is torch's own multi-head attention, but for what it does where nothing is real."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from avalign.layers.attention import Attention, softmax_over_real
from tests.helpers.attention import DIM, torchs
from tests.helpers.strategies import generator, quick, seeds
from tests.helpers.tolerances import assert_close


def drawn(seed: int, m: int, n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    random = generator(seed)
    query, key, value = (torch.randn(3, k, DIM, generator=random) for k in (m, n, n))
    mask = torch.rand(3, n, generator=random) < 0.6
    mask[:2, 0] = True
    mask[2] = False
    return query, key, value, mask


@quick
@given(st.sampled_from([1, 2, 4]), st.integers(1, 4), st.integers(1, 6), seeds)
def test_it_is_torchs_own_over_real_keys(heads: int, m: int, n: int, seed: int) -> None:
    torch.manual_seed(seed)
    attention = Attention(DIM, heads)
    query, key, value, mask = drawn(seed, m, n)
    found = attention(query, key, mask, value)
    expected, weights = torchs(attention)(query[:2], key[:2], value[:2], key_padding_mask=~mask[:2])
    assert_close(found[:2], expected, torch.float32)
    assert not found[2].any(), "where no key is real, nothing is brought"
    ours = softmax_over_real(attention.scores(query, key), mask[:, None, None])
    assert_close(ours[:2].mean(1), weights, torch.float32)
    assert not ours[2].any()
    assert_close(attention.gather(ours, value), found, torch.float32)
    assert torch.equal(attention(query, key, mask), attention(query, key, mask, key))


def test_gradients_are_finite_where_nothing_is_real() -> None:
    attention = Attention(DIM, 2)
    query, key, value, mask = (t.requires_grad_(t.is_floating_point()) for t in drawn(0, 3, 4))
    weights = softmax_over_real(attention.scores(query, key), mask[:, None, None])
    (attention(query, key, mask, value).sum() + weights.square().sum()).backward()
    for tensor in (query, key, value):
        assert tensor.grad.isfinite().all()
        assert not tensor.grad[2].any()


def test_heads_that_cannot_share_the_width_are_refused() -> None:
    with pytest.raises(ValueError, match="3 heads cannot share a width of 8"):
        Attention(DIM, 3)
