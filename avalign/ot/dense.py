"""Sinkhorn between features without a kernel of our own: three products of torch's, and the iterations in
torch.

Neither normalised features nor autograd's copies of anything are made: norms are taken out of the products.
"""

from __future__ import annotations

import torch
from torch import Tensor

from avalign.kernels.solution import Gradients, Solution
from avalign.ot.gradient import gibbs_matrix
from avalign.ot.iterations import solve


def from_features(
    x: Tensor,
    y: Tensor,
    a: Tensor,
    b: Tensor,
    init_g: Tensor | None,
    upstream: Tensor | None,
    *,
    epsilon: float,
    iterations: int,
    tolerance: float | None,
) -> tuple[Solution, Gradients | None]:
    """As kernels.cpu.from_features, on any device, in float32 or float64.

    Shapes: x (b, n, d), y (b, m, d); a (b, n); b, init_g (b, m); upstream (b,)
    """
    x, y = _real(x, a), _real(y, b)
    norm_x, norm_y = x.norm(dim=2), y.norm(dim=2)
    valid = norm_x.isfinite().all(1) & norm_y.isfinite().all(1)
    norm_x, norm_y = _inverse(norm_x), _inverse(norm_y)
    cosine = torch.bmm(x, y.transpose(1, 2)).mul_(norm_x[:, :, None]).mul_(norm_y[:, None, :])
    cost = torch.where(valid[:, None, None], 1 - cosine, 0)
    found = solve(cost, a, b, epsilon, iterations, tolerance, init_g)
    value = (found.f * a).sum(1) + (found.g * b).sum(1)  # the rows are exact: mass 1
    solution = Solution(torch.where(valid, value, torch.nan), found.f, found.g, found.error, found.iterations)
    if upstream is None:
        return solution, None
    plan = gibbs_matrix(cost, a, b, found.f, found.g, epsilon).mul_(upstream[:, None, None])
    close = plan * cosine
    share_x, share_y = close.sum(2) * norm_x.square(), close.sum(1) * norm_y.square()
    plan = plan.mul_(norm_x[:, :, None]).mul_(norm_y[:, None, :])
    return solution, (
        (x * share_x[:, :, None]).baddbmm_(plan, y, alpha=-1),
        (y * share_y[:, :, None]).baddbmm_(plan.transpose(1, 2), x, alpha=-1),
    )


def _real(x: Tensor, weights: Tensor) -> Tensor:
    """What carries nothing as zeros, whatever it held."""
    empty = weights == 0
    return x.masked_fill(empty[:, :, None], 0) if empty.any() else x


def _inverse(norm: Tensor) -> Tensor:
    tiny = torch.finfo(norm.dtype).tiny ** 0.5
    return torch.where(norm > tiny, 1 / norm.clamp(min=tiny), 0)
