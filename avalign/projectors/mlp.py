"""The projector of LLaVA 1.5 and its kin: linear maps with GELU between."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from torch import nn

from avalign.interfaces import Projector
from avalign.types import Tokens


class Mlp(nn.Module, Projector):
    """`depth` linear maps with GELU between, token by token. (b, n, dim_in) -> (b, n, dim_out)

    hidden: width between the maps; dim_out when not given
    depth:  number of maps
    """

    def __init__(self, dim_in: int, dim_out: int, *, hidden: int | None = None, depth: int = 2) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(f"depth is {depth}: at least one map is needed")
        widths = [dim_in, *[dim_out if hidden is None else hidden] * (depth - 1), dim_out]
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [nn.Linear(a, b), nn.GELU()]
        self.layers = nn.Sequential(*layers[:-1])

    def token_count(self, n: int, frames: int = 1) -> int:
        return n

    def forward(self, tokens: Tokens) -> Tokens:
        return replace(tokens, values=self.layers(tokens.values))
