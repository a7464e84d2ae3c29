"""Costs between two sets of features."""

from __future__ import annotations

import torch
from torch import Tensor

from avalign.ot.problem import TransportError

LARGEST_COSINE_COST = 2.0


def cosine_cost(x: Tensor, y: Tensor, x_mask: Tensor | None = None, y_mask: Tensor | None = None) -> Tensor:
    """1 - cos(x_i, y_j), in 0..2; 1, with gradient 0, where a token is the zero vector or masked.

    Computed in float32 (or float64 when given it) whatever the features' dtype: a cost rounded to
    bfloat16 moves gradients by 2-4 %.

    Shapes: x (b, n, d), y (b, m, d), masks (b, n) and (b, m), True where real -> (b, n, m)
    """
    x, y = _features(x, y, x_mask, y_mask)
    with torch.autocast(x.device.type, enabled=False):
        x, y = (direction(each, each.norm(dim=2, keepdim=True)) for each in (x, y))
        return 1 - torch.bmm(x, y.transpose(1, 2))


def squared_euclidean_cost(
    x: Tensor, y: Tensor, x_mask: Tensor | None = None, y_mask: Tensor | None = None
) -> Tensor:
    """|x_i - y_j|^2. Shapes and dtypes as in cosine_cost; masked tokens count as the zero vector."""
    x, y = _features(x, y, x_mask, y_mask)
    with torch.autocast(x.device.type, enabled=False):
        squares = x.square().sum(2)[:, :, None] + y.square().sum(2)[:, None, :]
        return (squares - 2 * torch.bmm(x, y.transpose(1, 2))).clamp(min=0)


def check_features(x: Tensor, y: Tensor) -> None:
    if x.ndim != 3 or y.ndim != 3 or x.shape[0] != y.shape[0] or x.shape[2] != y.shape[2]:
        raise TransportError(
            f"features must be (b, n, d) and (b, m, d): got shapes {tuple(x.shape)} and {tuple(y.shape)}"
        )
    if x.shape[2] == 0:
        raise TransportError(f"features have no dimension: got shapes {tuple(x.shape)} and {tuple(y.shape)}")
    check_numbers(x, y)


def check_numbers(x: Tensor, y: Tensor) -> None:
    if not (x.is_floating_point() and y.is_floating_point()):
        raise TransportError(f"features must be floating point numbers, got {x.dtype} and {y.dtype}")
    if x.device != y.device:
        raise TransportError(f"features are on two devices, {x.device} and {y.device}")


def _features(x: Tensor, y: Tensor, x_mask: Tensor | None, y_mask: Tensor | None) -> tuple[Tensor, Tensor]:
    check_features(x, y)
    dtype = torch.float64 if torch.float64 in (x.dtype, y.dtype) else torch.float32
    return _real(x, x_mask).to(dtype), _real(y, y_mask).to(dtype)


def _real(x: Tensor, mask: Tensor | None) -> Tensor:
    """Padding as zeros, whatever it held: not even a NaN there may touch a real token."""
    return x if mask is None else x.masked_fill(~mask[:, :, None], 0)


def direction(x: Tensor, norm: Tensor) -> Tensor:
    """x / |x|; 0, with gradient 0, where a token is the zero vector. Shapes: x (b, n, d), norm (b, n, 1)"""
    # Not x / max(|x|, tiny): its gradient at the zero vector is 1 / tiny.
    tiny = torch.finfo(x.dtype).tiny ** 0.5
    return x * torch.where(norm > tiny, 1 / norm.clamp(min=tiny), torch.zeros_like(norm))
