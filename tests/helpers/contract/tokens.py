"""Tokens to give to projectors and fusions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from avalign.encoders.positions import patch_boxes, spans
from avalign.types import Tokens
from tests.helpers.contract.saved import noise

DIM, GRID, SPANS = 16, 4, 6
DIM_OUT, FRAMES = 24, 3


def patches(values: Tensor | None = None, mask: Tensor | None = None) -> Tokens:
    """Three samples of GRID x GRID patches."""
    values = noise(3, GRID * GRID, DIM) if values is None else values
    mask = torch.ones(values.shape[:2], dtype=torch.bool) if mask is None else mask
    return Tokens(values, mask, boxes=patch_boxes(GRID, GRID))


def clip_tokens(mask: Tensor | None = None, count: int = SPANS) -> Tokens:
    mask = torch.ones(3, count, dtype=torch.bool) if mask is None else mask
    return Tokens(noise(3, count, DIM, seed=6), mask, times=spans(count, 3.0))


def film(frames: int = FRAMES) -> Tokens:
    """Two samples of `frames` frames: the first lacks the last of three, the second is of two seconds."""
    count = frames * GRID * GRID
    values = noise(2, FRAMES * GRID * GRID, DIM)[:, :count]
    mask = torch.ones(2, frames, dtype=torch.bool)
    mask[0, 2:] = False
    seconds = torch.tensor([[0.5, 1.0, 0.0], [0.0, 1.0, 2.0]])[:, :frames]
    mask, when = (one.repeat_interleave(GRID * GRID, 1) for one in (mask, seconds))
    return Tokens(values, mask, boxes=patches().boxes.repeat(frames, 1), frames=frames, frame_times=when)


def whole_film() -> Tokens:
    """Three samples of FRAMES frames, all real, at times of their own."""
    count, seconds = FRAMES * GRID * GRID, torch.arange(3.0 * FRAMES).view(3, FRAMES) / 2
    mask = torch.ones(3, count, dtype=torch.bool)
    when = seconds.repeat_interleave(GRID * GRID, 1)
    boxes = patches().boxes.repeat(FRAMES, 1)
    return Tokens(noise(3, count, DIM), mask, boxes=boxes, frames=FRAMES, frame_times=when)


# What a projector may be given, three samples each
KINDS = {
    "still": patches,
    "film": whole_film,
    "sound": lambda: clip_tokens(count=GRID * GRID),
}


def given(projector: Any, rows: int = 3, first: int = 0) -> dict[str, Any]:
    """What a connector wants beside its tokens, of `rows` samples: prompts of 5, 3 and 4 words, padded."""
    mask = torch.arange(5) < torch.tensor([[5], [3], [4]])
    mask = mask[first : first + rows]
    values = noise(3, 5, DIM_OUT, seed=1)[first : first + rows]
    there = {"instruction": Tokens(values, mask), "vocabulary": noise(30, DIM_OUT, seed=2)}
    return {name: there[name] for name in projector.wants}
