"""A loss and a projector that avalign does not have."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from avalign.config.recipe import Positive
from avalign.types import Tokens


class Nearness(nn.Module):
    """Squared distance of the mean image token and the mean audio token, averaged over the batch.

    scale: what it is multiplied with

    Shapes: image (b, n, d), audio (b, m, d)
    """

    def __init__(self, *, scale: Positive = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, image: Tensor, audio: Tensor) -> Tensor:
        return self.scale * (image.mean(1) - audio.mean(1)).square().mean()


class Scaled(nn.Module):
    """A linear map with a learned scale. (b, n, dim_in) -> (b, n, dim_out)"""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.map, self.scale = nn.Linear(dim_in, dim_out), nn.Parameter(torch.ones(()))

    def token_count(self, n: int, frames: int = 1) -> int:
        return n

    def forward(self, tokens: Tokens) -> Tokens:
        return replace(tokens, values=self.scale * self.map(tokens.values))
