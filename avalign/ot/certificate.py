"""Bounds of the exact optimum from any potentials and any plan: proof of how good an answer is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from avalign.kernels.cpu import engine as cpu

if TYPE_CHECKING:
    from avalign.ot.plan import Plan

Bracket = Callable[["Plan"], tuple[Tensor, Tensor]]


def balanced(plan: Plan) -> tuple[Tensor, Tensor]:
    """A lower and an upper bound (b,) of min over T in Pi(source, target) of <T, C>."""
    return _lower(plan), _upper(plan)


def fused(epsilon: float, features: tuple[Tensor, Tensor] | None = None) -> Bracket:
    """`balanced` of an entropic plan in the CPU kernel, from cosine features where they are given."""

    def bounds(plan: Plan) -> tuple[Tensor, Tensor]:
        inputs = plan.problem
        sides = inputs.source.detach(), inputs.target.detach(), plan.source_potential, plan.target_potential
        if features is not None:
            x, y = (t.detach() for t in features)
            return cpu.bracket_from_features(x, y, *sides, epsilon=epsilon)
        return cpu.bracket_from_cost(inputs.cost.detach(), *sides, epsilon=epsilon)

    return bounds


def _lower(plan: Plan) -> Tensor:
    """A double c-transform of the target's potential: feasible in the dual, whatever it was before.

    Valid by weak duality, up to rounding: about 1e-6 in float32.
    """
    inputs = plan.problem
    source, target = inputs.source.detach(), inputs.target.detach()
    cost = inputs.cost.detach().masked_fill(~inputs.support, torch.inf)
    f = (cost - plan.target_potential[:, None, :]).amin(2)
    f = torch.where(source > 0, f, torch.zeros_like(f))
    g = (cost - f[:, :, None]).amin(1)
    g = torch.where(target > 0, g, torch.zeros_like(g))
    return (f * source).sum(1) + (g * target).sum(1)


def _upper(plan: Plan) -> Tensor:
    """The cost of the plan, rounded onto the marginals.

    Source: Altschuler, Weed, Rigollet, arXiv:1705.09634, algorithm 2
    """
    inputs = plan.problem
    source, target = inputs.source.detach(), inputs.target.detach()
    cost = torch.where(inputs.support, inputs.cost.detach(), 0)
    tiny = torch.finfo(cost.dtype).tiny
    rounded = plan.matrix * (source / plan.matrix.sum(2).clamp(min=tiny)).clamp(max=1)[:, :, None]
    rounded = rounded * (target / rounded.sum(1).clamp(min=tiny)).clamp(max=1)[:, None, :]
    row = (source - rounded.sum(2)).clamp(min=0)
    column = (target - rounded.sum(1)).clamp(min=0)
    missing = torch.einsum("bn,bnm,bm->b", row, cost, column) / row.sum(1).clamp(min=tiny)
    return (rounded * cost).sum((1, 2)) + missing
