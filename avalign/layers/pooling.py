"""Fewer tokens: means of those that are real."""

from __future__ import annotations

import torch
from torch import Tensor


def mean_of_real(values: Tensor, real: Tensor, axis: int) -> Tensor:
    """Over one axis; 0 where nothing is real. (..., d), (...)"""
    total = values.masked_fill(~real[..., None], 0.0).sum(axis)
    return total / real.sum(axis).clamp(min=1)[..., None]


def pooled(values: Tensor, real: Tensor, every: int) -> Tensor:
    """The mean of each `every` neighbours, over those that are real.

    (b, m, d), (b, m) -> (b, ceil(m / every), d). A group without any is 0.
    """
    missing = -values.shape[1] % every
    weights = torch.nn.functional.pad(real.to(values), (0, missing)).unflatten(1, (-1, every))
    groups = torch.nn.functional.pad(values, (0, 0, 0, missing)).unflatten(1, (-1, every))
    shares = weights / weights.sum(-1, keepdim=True).clamp(min=1)
    return (shares[..., None] * groups).sum(2)


def pooled_spans(times: Tensor, every: int) -> Tensor:
    """From the start of the first to the end of the last. (m, 2) -> (ceil(m / every), 2)"""
    last = torch.arange(every - 1, len(times) + every - 1, every, device=times.device)
    return torch.stack([times[::every, 0], times[last.clamp(max=len(times) - 1), 1]], -1)
