"""Meerkat's projector: one linear layer."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from avalign.interfaces import Projector
from avalign.types import Tokens


class Linear(nn.Linear, Projector):
    """One linear map, token by token. (b, n, dim_in) -> (b, n, dim_out)

    bias: whether a learnt constant is added
    """

    def __init__(self, dim_in: int, dim_out: int, *, bias: bool = True) -> None:
        super().__init__(dim_in, dim_out, bias)

    def token_count(self, n: int, frames: int = 1) -> int:
        return n

    def forward(self, tokens: Tokens) -> Tokens:  # type: ignore[override]
        return replace(tokens, values=super().forward(tokens.values))
