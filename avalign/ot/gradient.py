"""Values of a plan, each with the gradient that belongs to it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from avalign.ot.problem import Problem

Slopes = tuple[Tensor | None, ...]


def only_once(backward: Callable[..., Slopes]) -> Callable[..., Slopes]:
    """A backward pass (given its saved tensors too) through which no other may go: whoever tries is told.

    (torch's once_differentiable only tells where the upstream gradient is itself differentiable; a penalty
    on the gradient of a plain sum would pass it unnoticed, with a part missing.)
    """

    @wraps(backward)
    def wrapped(ctx: Any, *upstream: Tensor) -> Slopes:
        saved = ctx.saved_tensors  # asked for once: under gradient checkpointing a second time is an error
        with torch.no_grad():
            slopes = backward(ctx, saved, *upstream)
        roots = [t for t in (*saved, *upstream) if t is not None and t.requires_grad]
        if not torch.is_grad_enabled() or not roots:
            return slopes
        return tuple(None if slope is None else _Refusal.apply(slope, *roots) for slope in slopes)

    return wrapped


class _Refusal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, slope: Tensor, *roots: Tensor) -> Tensor:
        return slope.view_as(slope)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Slopes:
        raise RuntimeError("transport has no gradient of its gradient: the plan itself is not differentiated")


def transport_value(inputs: Problem, f: Tensor, g: Tensor, epsilon: float, name: str) -> Tensor:
    """(b,) of the entropic plan that f and g make. Shapes: f (b, n), g (b, m), detached."""
    value = _Value.apply(inputs.cost, inputs.source, inputs.target, f, g, epsilon, name)
    return with_entropies(value, inputs, epsilon) if name == "entropic" else value


def with_entropies(dual: Tensor, inputs: Problem, epsilon: float) -> Tensor:
    """<T, C> + epsilon sum T log T, from the dual, whose entropy is relative to source x target."""
    entropies = [
        torch.where(weights > 0, weights * weights.clamp(min=torch.finfo(weights.dtype).tiny).log(), 0).sum(1)
        for weights in (inputs.source, inputs.target)
    ]
    return dual + epsilon * (entropies[0] + entropies[1])


class _Value(torch.autograd.Function):
    """dual: by the envelope theorem the gradient to C is T, and to the marginals f and g.

    primal: <T, C> moves with T too. Holding the marginals, dT = -T * (dC - df - dg) / epsilon, so the
    gradient to C is T - T * (C - p - q) / epsilon with p_i + q_j the T-weighted projection of C onto
    such sums, and to the marginals p and q: one small linear system an item.
    """

    @staticmethod
    def forward(
        ctx: Any, cost: Tensor, a: Tensor, b: Tensor, f: Tensor, g: Tensor, epsilon: float, name: str
    ) -> Tensor:
        ctx.save_for_backward(cost, a, b, f, g)
        ctx.epsilon, ctx.name = epsilon, name
        matrix = gibbs_matrix(cost, a, b, f, g, epsilon)
        if name == "primal":
            return (matrix * torch.where(matrix > 0, cost, 0)).sum((1, 2))
        # The dual objective: a lower bound of the minimum at any potentials, the minimum at the best.
        return (f * a).sum(1) + (g * b).sum(1) - epsilon * (matrix.sum((1, 2)) - 1)

    @staticmethod
    @only_once
    def backward(ctx: Any, saved: tuple[Tensor, ...], upstream: Tensor) -> Slopes:
        cost, a, b, f, g = saved
        matrix = slope = gibbs_matrix(cost, a, b, f, g, ctx.epsilon)
        if ctx.name == "primal":
            cost = torch.where(matrix > 0, cost, 0)
            f, g = _projection(cost, matrix)
            slope = matrix - matrix * (cost - f[:, :, None] - g[:, None, :]) / ctx.epsilon
        to_cost = upstream[:, None, None] * slope
        return to_cost, upstream[:, None] * f, upstream[:, None] * g, None, None, None, None


def gibbs_matrix(cost: Tensor, a: Tensor, b: Tensor, f: Tensor, g: Tensor, epsilon: float) -> Tensor:
    """a_i b_j exp((f_i + g_j - C_ij) / epsilon), 0 where a or b is; without a graph, in one tensor."""
    empty = ~((a > 0)[:, :, None] & (b > 0)[:, None, :])
    matrix = (f[:, :, None] + g[:, None, :]).sub_(cost).div_(epsilon).masked_fill_(empty, -torch.inf)
    return matrix.exp_().mul_(a[:, :, None]).mul_(b[:, None, :])


def _projection(cost: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """p (b, n), q (b, m) such that cost - p - q has T-weighted row and column sums of 0."""
    dtype = cost.dtype
    cost, matrix = cost.double(), matrix.double()
    rows, columns = matrix.sum(2), matrix.sum(1)
    weighted = matrix * cost
    inverse = torch.where(rows > 0, 1 / rows.clamp(min=1e-300), 0)
    # Eliminate p: (diag(columns) - T' diag(1/rows) T) q = T'C - T' diag(1/rows) (TC); singular along
    # the constant, which is pinned by a rank-one term, and where a column carries nothing.
    share = matrix * inverse[:, :, None]
    system = torch.diag_embed(torch.where(columns > 0, columns, 1)) - matrix.transpose(1, 2) @ share
    real = (columns > 0).double()
    system = system + real[:, :, None] * real[:, None, :] / real.sum(1)[:, None, None] ** 2
    right = weighted.sum(1) - torch.einsum("bnm,bn->bm", share, weighted.sum(2))
    q = torch.linalg.solve(system, right)
    p = (weighted.sum(2) - torch.einsum("bnm,bm->bn", matrix, q)) * inverse
    return p.to(dtype), q.to(dtype)
