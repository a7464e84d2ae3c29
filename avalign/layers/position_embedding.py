"""Where and when tokens lie, as vectors that can be added to them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from avalign.types import Tokens


class FourierEmbedding(nn.Module):
    """Fourier features of boxes (n, 4) or spans in seconds (n, 2), mapped to `dim`. -> (n, dim)

    The features are averaged under attention, and an average keeps what is linear in them. Powers up to
    the second and waves of up to 2^(bands - 2) periods over `unit` let a mean say both where attention is
    and how far it spreads.
    """

    def __init__(self, dim: int, *, axes: int, unit: float, bands: int = 4) -> None:
        super().__init__()
        self.axes, self.unit = axes, unit
        self.register_buffer("frequencies", math.pi * 2.0 ** torch.arange(bands), persistent=False)
        self.linear = nn.Linear(axes * (2 + 2 * bands), dim)

    def forward(self, coordinates: Tensor) -> Tensor:
        corners = coordinates.float() / self.unit
        half = corners.shape[-1] // 2
        centre = (corners[..., :half] + corners[..., half:]) / 2
        angles = centre[..., None] * self.frequencies
        features = torch.cat(
            [centre, centre.square(), angles.sin().flatten(-2), angles.cos().flatten(-2)], -1
        )
        return 3.0 * self.linear(features)


def spans_of(tokens: Tokens) -> Tensor | None:
    """Start and end of each token in seconds: (n, 2) of audio, (b, n, 2) of a video, None of a still."""
    if tokens.frame_times is not None:  # a frame is a moment: a span without length
        return tokens.frame_times[..., None].expand(*tokens.frame_times.shape, 2)
    return tokens.times


class TimeEmbedding(nn.Module):
    """Embedding of each token's seconds; zeros for tokens without a time. -> (n, dim) or (b, n, dim)

    seconds: length that the time features span
    """

    def __init__(self, dim: int, *, seconds: float) -> None:
        super().__init__()
        self.place = FourierEmbedding(dim, axes=1, unit=seconds, bands=6)

    def forward(self, tokens: Tokens) -> Tensor:
        return _known(self.place, spans_of(tokens), tokens)


class PositionEmbedding(nn.Module):
    """Embedding of each token's box and of its seconds, summed; zeros for what is not known of a token.

    Images, videos and audio share one embedding of time: the same second is the same vector.
    -> (n, dim) or (b, n, dim)

    seconds: length that the time features span
    """

    def __init__(self, dim: int, *, seconds: float) -> None:
        super().__init__()
        self.box = FourierEmbedding(dim, axes=2, unit=1.0)
        self.time = TimeEmbedding(dim, seconds=seconds)

    def forward(self, tokens: Tokens) -> Tensor:
        position: Tensor = _known(self.box, tokens.boxes, tokens) + self.time(tokens)
        return position


def _known(embedding: FourierEmbedding, coordinates: Tensor | None, tokens: Tokens) -> Tensor:
    """The position where there is one, else zeros that still reach the weights: several processes do not
    train together when a step leaves some weights out."""
    if coordinates is None:
        return 0.0 * embedding(tokens.values.new_zeros(1, 2 * embedding.axes))
    found: Tensor = embedding(coordinates)
    return found
