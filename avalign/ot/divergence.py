"""Sinkhorn divergence: entropic transport without what it costs a set to be carried onto itself."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from avalign.ot.plan import Plan
from avalign.ot.problem import TransportError
from avalign.ot.sinkhorn import sinkhorn


@dataclass(frozen=True)
class Divergence:
    """A divergence for each of b pairs of sets, and the three plans it is made of.

    Shapes: value (b,), with gradient to all that the three problems were made of
    """

    value: Tensor
    cross: Plan  # source onto target
    source: Plan  # source onto itself
    target: Plan  # target onto itself

    @property
    def converged(self) -> Tensor:
        """Whether all three plans of an item are, (b,) bool."""
        return self.cross.converged & self.source.converged & self.target.converged


def sinkhorn_divergence(
    cost: Tensor,
    source_cost: Tensor,
    target_cost: Tensor,
    source: Tensor | None = None,
    target: Tensor | None = None,
    source_mask: Tensor | None = None,
    target_mask: Tensor | None = None,
    *,
    epsilon: float = 0.05,
    rounds: int = 1000,
    tolerance: float | None = 1e-3,
) -> Divergence:
    """OT(source, target) - (OT(source, source) + OT(target, target)) / 2, each the dual of sinkhorn().

    0 for equal sets, symmetric, and not below 0 where exp(-C / epsilon) is a positive definite kernel (so
    for squared Euclidean cost and, with unit vectors, cosine cost): unlike the terms themselves, which a
    large epsilon pulls towards sets shrunk to a point. All three hold as far as the plans converged.

    Shapes: cost (b, n, m), between the two sets; source_cost (b, n, n) and target_cost (b, m, m), within
            each, symmetric; source, source_mask (b, n); target, target_mask (b, m), masks True where real
    Source: Genevay et al., arXiv:1706.00292; Feydy et al., arXiv:1810.08278, equation 3 and theorem 1
    """
    for name, inner, size in (
        ("source_cost", source_cost, cost.shape[1:2] * 2),
        ("target_cost", target_cost, cost.shape[2:] * 2),
    ):
        if inner.shape != (*cost.shape[:1], *size):
            raise TransportError(
                f"{name} must have shape {(*cost.shape[:1], *size)} beside a cost of shape "
                f"{tuple(cost.shape)}, got {tuple(inner.shape)}"
            )

    def solve(
        c: Tensor, a: Tensor | None, b: Tensor | None, a_mask: Tensor | None, b_mask: Tensor | None
    ) -> Plan:
        return sinkhorn(c, a, b, a_mask, b_mask, epsilon=epsilon, rounds=rounds, tolerance=tolerance)

    cross = solve(cost, source, target, source_mask, target_mask)
    within = solve(source_cost, source, source, source_mask, source_mask)
    other = solve(target_cost, target, target, target_mask, target_mask)
    return Divergence(cross.value - (within.value + other.value) / 2, cross, within, other)
