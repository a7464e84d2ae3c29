"""Video-ChatGPT's projector: a film as what each place holds over time and what each frame holds."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avalign.batch import Tokens


class SpatialTemporalPool(nn.Module):
    """Means over the places of each frame, then means over time of each place, through one linear map.

    Of a film of t frames of p patches, t + p tokens: (b, t * p, dim_in) -> (b, t + p, dim_out). A still is a
    film of one frame, so its mean comes first and its patches follow; so is a sound, with its tokens as
    places. The tokens are of two kinds, of which neither has a place or a time of its own: `where` is None.

    Source: Video-ChatGPT, arXiv:2306.05424, section 3.1 (which lets the places stand first)
    """

    joins_frames = True

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim_in, dim_out)

    def token_count(self, n: int, frames: int = 1) -> int:
        return frames + n // frames

    def forward(self, tokens: Tokens) -> Tokens:
        values = tokens.values.unflatten(1, (tokens.frames, -1))  # (b, frames, places, d)
        real = tokens.mask.unflatten(1, (tokens.frames, -1))
        means = torch.cat([_mean(values, real, 2), _mean(values, real, 1)], 1)
        return Tokens(self.linear(means), torch.cat([real.any(2), real.any(1)], 1))


def _mean(values: Tensor, real: Tensor, axis: int) -> Tensor:
    """Of what is real; 0 where nothing is. (b, t, p, d), (b, t, p)"""
    total = values.masked_fill(~real[..., None], 0.0).sum(axis)
    return total / real.sum(axis).clamp(min=1)[..., None]
