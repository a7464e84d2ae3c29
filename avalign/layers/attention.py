"""The attention and feed-forward blocks that projectors and fusion modules are built of."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def softmax_over_real(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax of scores (..., n) over real keys, in float32; zeros where none is. mask: bool, as scores"""
    scores = scores.float().masked_fill(~mask, float("-inf"))
    scores = scores.masked_fill(~mask.any(-1, keepdim=True), 0.0)
    return scores.softmax(-1) * mask


class Attention(nn.Module):
    """Multi-head attention over real keys: softmax(Q K^T / sqrt(dim / heads)) V.

    The maps have no constants: of a key it would cancel in the softmax, and where no key is real
    the result is to be 0.

    Shapes: query (b, m, dim), key (b, n, dim), mask (b, n), True where real; value (b, n, dim), which is
            `key` when not given -> (b, m, dim)
    Source: arXiv:1706.03762, section 3.2
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise ValueError(f"{heads} heads cannot share a width of {dim}: it has to be a multiple of them")
        self.heads = heads
        self.query, self.key = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.value, self.out = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)

    def forward(self, query: Tensor, key: Tensor, mask: Tensor, value: Tensor | None = None) -> Tensor:
        some = mask.any(-1)[:, None, None]
        gathered = F.scaled_dot_product_attention(
            self._split(self.query(query)),
            self._split(self.key(key)),
            self._split(self.value(key if value is None else value)),
            attn_mask=(mask[:, None] | ~some)[:, None],  # a row without a key has no softmax
        )
        return self._join(gathered) * some

    def scores(self, query: Tensor, key: Tensor) -> Tensor:
        """Before the softmax, by head. (b, m, dim), (b, n, dim) -> (b, heads, m, n)"""
        q, k = self._split(self.query(query)), self._split(self.key(key))
        return q @ k.transpose(2, 3) / q.shape[-1] ** 0.5

    def gather(self, weights: Tensor, value: Tensor) -> Tensor:
        """What attention (b, heads, m, n) brings back of values (b, n, dim). -> (b, m, dim)"""
        values = self._split(self.value(value))
        return self._join(weights.to(values.dtype) @ values)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _join(self, x: Tensor) -> Tensor:
        joined: Tensor = self.out(x.transpose(1, 2).flatten(2))
        return joined


class FeedForward(nn.Sequential):
    """Norm, a wider layer with GELU, and back. (..., dim) -> (..., dim)"""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__(nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
