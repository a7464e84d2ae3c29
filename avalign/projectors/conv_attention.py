"""Macaw-LLM's projector: a convolution shortens the sequence, and each token becomes a mean of words."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avalign.interfaces import Connector
from avalign.layers.pooling import pooled_spans
from avalign.types import Tokens


class ConvAttention(nn.Module, Connector):
    """A 1-D convolution over the tokens in their order, then attention over the LLM's embedding table E.

        token = softmax(q K^T / sqrt(dim_out / heads)) V,   K = W_k E / rms(E),   V = W_v E

    so that every token lies among the words (of each head, in the convex hull of V's rows). Only a connector
    is given the table. The maps of keys and values are applied to the few tokens and not to the many words,
    which is the same; keys are divided by the table's root mean square, as tables differ in it a hundredfold.

    Shapes: (b, n, dim_in), vocabulary (v, dim_out) -> (b, ceil(n / stride), dim_out)
    Source: Macaw-LLM, arXiv:2306.09093, section 3.2. Dividing the keys is this library's

    A token that comes out is real if one of the `stride` that it stands for is. Of a sound it keeps their
    span; of an image it has no position, and a video is read as one sequence.

    stride: tokens that become one
    kernel: tokens that the convolution sees for it, `stride` or more
    heads:  of the attention over words; they share dim_out
    """

    wants = ("vocabulary",)
    joins_frames = True

    def __init__(
        self, dim_in: int, dim_out: int, *, stride: int = 8, kernel: int = 12, heads: int = 1
    ) -> None:
        super().__init__()
        if not 1 <= stride <= kernel:
            raise ValueError(f"kernel {kernel} and stride {stride} leave tokens out: 1 <= stride <= kernel")
        if heads < 1 or dim_out % heads:
            raise ValueError(
                f"{heads} heads cannot share a width of {dim_out}: it has to be a multiple of them"
            )
        self.stride, self.kernel, self.heads = stride, kernel, heads
        self.conv = nn.Conv1d(dim_in, dim_in, kernel, stride)
        self.norm = nn.LayerNorm(dim_in)
        self.query = nn.Linear(dim_in, dim_out)
        self.key = nn.Parameter(torch.empty(dim_out, dim_out))
        self.value = nn.Parameter(torch.empty(dim_out, dim_out))
        for weight in (self.key, self.value):
            nn.init.xavier_uniform_(weight)

    def token_count(self, n: int, frames: int = 1) -> int:
        return -(-n // self.stride)

    def forward(self, tokens: Tokens, *, vocabulary: Tensor | None = None) -> Tokens:
        if vocabulary is None:
            raise ValueError(
                "projector 'conv_attention' attends to the LLM's words, which connectors are given"
            )
        n, count = tokens.values.shape[1], self.token_count(tokens.values.shape[1])
        before = (self.kernel - self.stride) // 2
        after = (count - 1) * self.stride + self.kernel - before - n
        values = tokens.values.masked_fill(~tokens.mask[..., None], 0.0)
        short = self.conv(F.pad(values.transpose(1, 2), (before, after))).transpose(1, 2)
        words = self.words(self.query(self.norm(short)), vocabulary)
        fill = count * self.stride - n
        mask = F.pad(tokens.mask, (0, fill)).unflatten(1, (count, self.stride)).any(2)
        times = None if tokens.times is None else pooled_spans(tokens.times, self.stride)
        return Tokens(words, mask, times=times)

    def words(self, query: Tensor, vocabulary: Tensor) -> Tensor:
        """Attention of queries (b, n, dim_out) over the words (v, dim_out). -> (b, n, dim_out)"""
        with torch.no_grad():
            size = vocabulary.float().square().mean().sqrt().clamp(min=1e-12)
        heads = (self.heads, -1)
        key, value = self.key.unflatten(0, heads), self.value.unflatten(0, heads)  # (heads, d, dim_out)
        query = query.unflatten(2, heads) / (key.shape[1] ** 0.5 * size)
        asked = torch.einsum("bnhd,hdw->bnhw", query, key).to(vocabulary.dtype)
        weights = (asked @ vocabulary.T).float().softmax(-1)
        found = (weights.to(vocabulary.dtype) @ vocabulary).to(value.dtype)
        return torch.einsum("bnhw,hdw->bnhd", found, value).flatten(2)
