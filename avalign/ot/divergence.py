"""Sinkhorn divergence: entropic transport without what it costs a set to be carried onto itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from avalign.ot.gradient import transport_value
from avalign.ot.iterations import Potentials
from avalign.ot.plan import Plan
from avalign.ot.problem import TransportError, items, problem
from avalign.ot.sinkhorn import entropic_plan, sinkhorn, warn_unless_converged

ASYMMETRY = 1e-4  # of the greatest cost: more than products in float32 leave


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
    iterations: int = 1000,
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
    cross = sinkhorn(
        cost,
        source,
        target,
        source_mask,
        target_mask,
        epsilon=epsilon,
        iterations=iterations,
        tolerance=tolerance,
    )
    within = _onto_itself("source_cost", source_cost, source, source_mask, epsilon, iterations, tolerance)
    other = _onto_itself("target_cost", target_cost, target, target_mask, epsilon, iterations, tolerance)
    return Divergence(cross.value - (within.value + other.value) / 2, cross, within, other)


def _onto_itself(
    name: str,
    cost: Tensor,
    weights: Tensor | None,
    mask: Tensor | None,
    epsilon: float,
    iterations: int,
    tolerance: float | None,
) -> Plan:
    """sinkhorn() of a set onto itself, whose two potentials are one: half an iteration at a time.

    A plan near the diagonal takes thousands of iterations that alternate, which turn f_i up as g_i goes down
    and back, and few that average.
    """
    inputs = problem(cost, weights, weights, mask, mask)
    a = inputs.source.detach()
    with torch.no_grad(), torch.autocast(a.device.type, enabled=False):
        c = torch.where(inputs.support, inputs.cost.detach(), torch.inf)
        _refuse_asymmetric(name, torch.where(inputs.support, c, 0))
        f, error, used = _halves(c / epsilon, a.log(), iterations, tolerance)
        f = epsilon * f
    warn_unless_converged(error, epsilon, iterations, tolerance)
    number = transport_value(inputs, f, f, epsilon, "dual")
    return entropic_plan(inputs, number, "dual", Potentials(f, f, error, used), epsilon, tolerance, "torch")


def _halves(
    cost: Tensor, log_a: Tensor, iterations: int, tolerance: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    """f (b, n), error (b,) and iterations (b,), in units of epsilon: f goes half way to the best answer to
    f."""
    out, out_error = torch.zeros_like(log_a), torch.zeros_like(log_a[:, 0])
    out_iterations = torch.zeros(len(log_a), dtype=torch.long, device=log_a.device)
    left, f = torch.arange(len(log_a), device=log_a.device), torch.zeros_like(log_a)
    for done in range(1, iterations + 1):
        answer = -torch.logsumexp((log_a + f)[:, None, :] - cost, 2)
        answer = torch.where(log_a.isfinite(), answer, 0)
        error = (log_a.exp() * (f - answer).expm1().abs()).sum(1)  # of the plan that f makes, either side
        stop = error <= (tolerance or 0) if done < iterations else torch.ones_like(error, dtype=torch.bool)
        out[left[stop]], out_error[left[stop]], out_iterations[left[stop]] = f[stop], error[stop], done
        if stop.all():
            break
        left, cost, log_a, f = left[~stop], cost[~stop], log_a[~stop], ((f + answer) / 2)[~stop]
    return out, out_error, out_iterations


def _refuse_asymmetric(name: str, cost: Tensor) -> None:
    off = (cost - cost.transpose(1, 2)).abs().amax((1, 2))
    wrong = off > ASYMMETRY * cost.abs().amax((1, 2))
    if wrong.any():
        raise TransportError(f"{name} must be symmetric: item(s) {items(wrong)} are not")
