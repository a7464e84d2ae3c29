"""A linear map with a gate: each output decides from its token how much of it passes."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch.nn.functional as F
from torch import nn

from avalign.interfaces import Projector
from avalign.types import Tokens

GATES = {"sigmoid": F.sigmoid, "gelu": F.gelu}


class Gated(nn.Module, Projector):
    """Linear(x) * gate(Linear'(x)), token by token. (b, n, dim_in) -> (b, n, dim_out)

    gate: sigmoid (the GLU of arXiv:1612.08083) or gelu (the GEGLU of arXiv:2002.05202)
    """

    def __init__(self, dim_in: int, dim_out: int, *, gate: Literal["sigmoid", "gelu"] = "sigmoid") -> None:
        super().__init__()
        if gate not in GATES:
            raise ValueError(f"gate {gate!r} is not known. Known: {', '.join(GATES)}")
        self.gate = gate
        self.content, self.passing = nn.Linear(dim_in, dim_out), nn.Linear(dim_in, dim_out)

    def token_count(self, n: int, frames: int = 1) -> int:
        return n

    def forward(self, tokens: Tokens) -> Tokens:
        values = self.content(tokens.values) * GATES[self.gate](self.passing(tokens.values))
        return replace(tokens, values=values)
