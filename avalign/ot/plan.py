"""The answer of every solver, with its own evidence."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from avalign.ot.problem import Problem


@dataclass(frozen=True)
class Plan:
    """A transport plan for each of b problems, and how far it can be trusted.

    Shapes: matrix (b, n, m), the mass carried from i to j; value (b,), with gradient to the cost and the
            marginals; source_potential (b, n) and target_potential (b, m) in units of the cost, 0 where
            the marginal is 0; marginal_error (b,), L1, of a total mass of 1; rounds (b,) int, 0 from a
            solver without rounds; converged (b,) bool. All but `value` are detached.
    """

    problem: Problem
    matrix: Tensor
    value: Tensor
    value_name: str  # "exact"; "dual": min <T, C> + epsilon KL(T | source x target); "primal": its <T, C>
    source_potential: Tensor
    target_potential: Tensor
    marginal_error: Tensor
    rounds: Tensor
    converged: Tensor

    @cached_property
    def lower(self) -> Tensor:
        """A certified lower bound (b,) of the exact minimum of <T, C>: a double c-transform.

        Valid for any potentials (weak duality), up to rounding: about 1e-6 in float32.
        """
        source, target = self.problem.source.detach(), self.problem.target.detach()
        cost = self.problem.cost.detach().masked_fill(~self.problem.support, torch.inf)
        f = (cost - self.target_potential[:, None, :]).amin(2)
        f = torch.where(source > 0, f, torch.zeros_like(f))
        g = (cost - f[:, :, None]).amin(1)
        g = torch.where(target > 0, g, torch.zeros_like(g))
        return (f * source).sum(1) + (g * target).sum(1)

    @cached_property
    def upper(self) -> Tensor:
        """A certified upper bound (b,): the cost of the plan, rounded onto the marginals.

        Source: Altschuler, Weed, Rigollet, arXiv:1705.09634, algorithm 2
        """
        source, target = self.problem.source.detach(), self.problem.target.detach()
        cost = torch.where(self.problem.support, self.problem.cost.detach(), 0)
        tiny = torch.finfo(cost.dtype).tiny
        plan = self.matrix * (source / self.matrix.sum(2).clamp(min=tiny)).clamp(max=1)[:, :, None]
        plan = plan * (target / plan.sum(1).clamp(min=tiny)).clamp(max=1)[:, None, :]
        row = (source - plan.sum(2)).clamp(min=0)
        column = (target - plan.sum(1)).clamp(min=0)
        missing = torch.einsum("bn,bnm,bm->b", row, cost, column) / row.sum(1).clamp(min=tiny)
        return (plan * cost).sum((1, 2)) + missing
