"""Tokens to give to projectors and fusions."""

from __future__ import annotations

import torch
from torch import Tensor

from avalign.batch import Tokens
from avalign.encoders.places import patch_boxes, spans
from tests.contract.kept import (
    noise,
)

DIM, GRID, SPANS = 16, 4, 6


def patches(values: Tensor | None = None, mask: Tensor | None = None) -> Tokens:
    """Three samples of GRID x GRID patches."""
    values = noise(3, GRID * GRID, DIM) if values is None else values
    mask = torch.ones(values.shape[:2], dtype=torch.bool) if mask is None else mask
    return Tokens(values, mask, patch_boxes(GRID, GRID))


def clip_tokens(mask: Tensor | None = None) -> Tokens:
    mask = torch.ones(3, SPANS, dtype=torch.bool) if mask is None else mask
    return Tokens(noise(3, SPANS, DIM, seed=6), mask, spans(SPANS, 3.0))
