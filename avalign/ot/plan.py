"""The answer of every solver, with its own evidence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from avalign.ot.certificate import Bracket, balanced
from avalign.ot.gradient import gibbs_matrix
from avalign.ot.problem import Problem


@dataclass(frozen=True)
class Plan:
    """A transport plan for each of b problems, and how far it can be trusted.

    Shapes: value (b,), with gradient to what the problem was made of; source_potential (b, n) and
            target_potential (b, m) in units of the cost, 0 where the marginal is 0; marginal_error (b,),
            L1, as a share of all mass; iterations (b,) int, 0 from a solver without iterations; converged
            (b,) bool. All but `value` are detached, and what is not stored is worked out when first asked
            for.
    """

    problem: Problem
    value: Tensor
    value_name: str  # "exact", or what the solver calls the value that was asked for
    source_potential: Tensor
    target_potential: Tensor
    marginal_error: Tensor
    iterations: Tensor
    converged: Tensor
    engine: str  # what did the work: "c++", "triton-registers" (or another tier), "torch", "pot", "geomloss"
    make_matrix: Callable[[Plan], Tensor]
    bracket: Bracket = balanced

    @cached_property
    def matrix(self) -> Tensor:
        """The mass carried from i to j, (b, n, m)."""
        with torch.no_grad():
            return self.make_matrix(self)

    @cached_property
    def _bounds(self) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return self.bracket(self)

    @property
    def lower(self) -> Tensor:
        """A certified lower bound (b,) of what the problem costs without any smoothing."""
        return self._bounds[0]

    @property
    def upper(self) -> Tensor:
        """A certified upper bound (b,) of it: what it costs to carry mass so."""
        return self._bounds[1]

    @property
    def gap(self) -> Tensor:
        """upper - lower, (b,): no answer is further than this from the exact cost."""
        return self.upper - self.lower


def gibbs(epsilon: float) -> Callable[[Plan], Tensor]:
    """source_i target_j exp((f_i + g_j - C_ij) / epsilon), the form of every entropic plan."""

    def matrix(plan: Plan) -> Tensor:
        inputs = plan.problem
        a, b, cost = (t.detach() for t in (inputs.source, inputs.target, inputs.cost))
        return gibbs_matrix(cost, a, b, plan.source_potential, plan.target_potential, epsilon)

    return matrix
