"""Tokens for fusion modules."""

from __future__ import annotations

import torch

from avalign.encoders.positions import patch_boxes, spans
from avalign.types import Tokens
from tests.helpers.strategies import generator

DIM, SECONDS = 8, 2.0


def tokens(seed: int, b: int = 2, side: int = 2, m: int = 5) -> tuple[Tokens, Tokens]:
    """Random patches and audio tokens, all real, with their places."""
    random = generator(seed)
    image = torch.randn(b, side * side, DIM, generator=random)
    audio = torch.randn(b, m, DIM, generator=random)
    return (
        Tokens(image, torch.ones(b, side * side, dtype=torch.bool), boxes=patch_boxes(side, side)),
        Tokens(audio, torch.ones(b, m, dtype=torch.bool), times=spans(m, SECONDS)),
    )


def masked(seed: int, b: int = 3, side: int = 2, m: int = 5) -> tuple[Tokens, Tokens]:
    """About half of them real; none at all in the first sample."""
    pair = tokens(seed, b, side, m)
    for shift, of in enumerate(pair):
        of.mask = torch.rand(of.mask.shape, generator=generator(seed + shift)) < 0.5
        of.mask[0] = False
    return pair
