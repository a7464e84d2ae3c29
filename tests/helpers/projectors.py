"""What projectors are tried with."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from avalign.encoders.positions import patch_boxes
from avalign.types import Tokens
from tests.helpers.strategies import generator

DIM, OUT = 8, 6


def tokens(seed: int, n: int = 9, d: int = DIM, b: int = 2) -> Tokens:
    return Tokens(torch.randn(b, n, d, generator=generator(seed)), torch.ones(b, n, dtype=torch.bool))


def film(seed: int, frames: int, places: int, shift: float = 0.0) -> Tokens:
    """Of one frame a second; the last frame of the first sample is not there."""
    of = tokens(seed, frames * places)
    of.mask[0, -places:] = frames == 1
    seconds = torch.arange(float(frames)).repeat_interleave(places) + shift
    boxes = patch_boxes(1, places).repeat(frames, 1)
    return replace(of, boxes=boxes, frames=frames, frame_times=seconds.expand(2, -1))


def jacobian(run: nn.Module, before: Tokens, **beside: Tensor) -> Tensor:
    """Which tokens that come out depend on which that go in. -> (m, n) bool, of the first sample"""

    def values(x: Tensor) -> Tensor:
        found: Tensor = run(replace(before, values=x), **beside).values[0].sum(-1)
        return found

    slopes = torch.autograd.functional.jacobian(values, before.values)[:, 0]
    return slopes.abs().sum(-1) > 1e-9
