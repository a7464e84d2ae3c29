"""Video-ChatGPT's projector: a video as what each position holds over time and what each frame holds."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import nn

from avalign.interfaces import Projector
from avalign.layers.pooling import mean_of_real
from avalign.types import Tokens


class SpatialTemporalPool(nn.Module, Projector):
    """Means over the positions of each frame, then means over time of each position, through one linear map.

    Of a video of t frames of p patches, t + p tokens: (b, t * p, dim_in) -> (b, t + p, dim_out). A still is a
    video of one frame, so its mean comes first and its patches follow; so is audio, with its tokens as
    positions. The tokens are of two kinds, of which neither has a position or a time of its own.

    Source: Video-ChatGPT, arXiv:2306.05424, section 3.1 (which lets the positions stand first)
    """

    joins_frames = True

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim_in, dim_out)

    def token_count(self, n: int, frames: int = 1) -> int:
        return frames + n // frames

    def forward(self, tokens: Tokens) -> Tokens:
        values = rearrange(
            tokens.values, "b (frames positions) d -> b frames positions d", frames=tokens.frames
        )
        real = rearrange(tokens.mask, "b (frames positions) -> b frames positions", frames=tokens.frames)
        means = torch.cat([mean_of_real(values, real, 2), mean_of_real(values, real, 1)], 1)
        return Tokens(self.linear(means), torch.cat([real.any(2), real.any(1)], 1))
