"""Partial optimal transport: only a fraction of the mass is carried, the rest stays where it is."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from avalign.ot.exact import exact
from avalign.ot.plan import Plan
from avalign.ot.problem import Problem, TransportError, items, problem
from avalign.ot.sinkhorn import sinkhorn

# How many epsilon it costs to go from dummy to dummy: exp(-40) of the mass does.
FORBIDDEN = 40.0


def partial(
    cost: Tensor,
    source: Tensor | None = None,
    target: Tensor | None = None,
    source_mask: Tensor | None = None,
    target_mask: Tensor | None = None,
    *,
    mass: float | Tensor,
    backend: Literal["sinkhorn", "exact"] = "sinkhorn",
    epsilon: float = 0.05,
    iterations: int = 1000,
    tolerance: float | None = 1e-3,
    value: Literal["dual", "primal"] = "dual",
) -> Plan:
    """The cheapest way to carry a fraction of the mass, choosing which to leave behind on both sides:

        min over T >= 0 of <T, C>,  T 1 <= source, T' 1 <= target, sum T = mass

    Both sides get a dummy point of mass 1 - mass, free to reach from everywhere but from the other one: a
    balanced problem, which the balanced solvers solve. All of Plan is that problem's, the dummies cut off.

    mass:    of a total of 1, above 0 and at most 1 (the balanced problem), for all items or (b,) for each
    backend: "exact", or "sinkhorn": the flows to and from the dummies are then smoothed as all others,
             epsilon KL(T | source x target) / (2 - mass) taken over the extended problem, whose total mass
             is 2 - mass. The other options are sinkhorn's, and "exact" takes no notice of them
    value:   "dual", the minimum itself; "primal", <T, C>; each carries its own gradient to the cost, both
             marginals and `mass`. "exact" has one value, under its own name
    marginal_error: of the extended problem, as a share of its total mass
    lower, upper:   bounds of the minimum above, which is not smoothed

    Shapes: cost (b, n, m); source, source_mask (b, n); target, target_mask (b, m), True where real
    Source: Chapel, Alaya, Gasso, arXiv:2002.08276, proposition 1
    """
    if backend not in ("sinkhorn", "exact"):
        raise TransportError(f"backend must be 'sinkhorn' or 'exact', not {backend!r}")
    if value not in ("dual", "primal"):
        raise TransportError(f"value must be 'dual' or 'primal', not {value!r}")
    inputs = problem(cost, source, target, source_mask, target_mask)
    carried = _carried(mass, inputs)
    total = 2 - carried
    if backend == "exact":
        extended = exact(*_extend(inputs, carried, 0.0))
    else:
        extended = sinkhorn(
            *_extend(inputs, carried, epsilon),
            epsilon=epsilon,
            iterations=iterations,
            tolerance=tolerance,
            value=value,
        )
    size = total.detach()

    def matrix(_: Plan) -> Tensor:
        return size[:, None, None] * extended.matrix[:, :-1, :-1]

    def bracket(_: Plan) -> tuple[Tensor, Tensor]:
        return size * extended.lower, size * extended.upper

    return Plan(
        problem=inputs,
        value=total * extended.value,
        value_name=extended.value_name,
        source_potential=extended.source_potential[:, :-1],
        target_potential=extended.target_potential[:, :-1],
        marginal_error=extended.marginal_error,
        iterations=extended.iterations,
        converged=extended.converged,
        engine=extended.engine,
        make_matrix=matrix,
        bracket=bracket,
    )


def _carried(mass: float | Tensor, inputs: Problem) -> Tensor:
    """The mass to carry of every item, (b,)."""
    size = len(inputs.cost)
    if isinstance(mass, Tensor) and mass.shape not in ((), (size,)):
        raise TransportError(f"mass must be a number or of shape {(size,)}, got {tuple(mass.shape)}")
    carried = torch.as_tensor(mass, dtype=inputs.cost.dtype, device=inputs.cost.device).expand(size)
    wrong = ~((carried > 0) & (carried <= 1))
    if wrong.any():
        raise TransportError(
            f"mass must be above 0 and at most 1: item(s) {items(wrong)} have "
            f"{[round(x, 4) for x in carried[wrong].tolist()[:8]]}"
        )
    return carried


def _extend(inputs: Problem, carried: Tensor, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    """Cost (b, n + 1, m + 1) and both marginals with their dummies, scaled to mass 1."""
    cost = torch.where(inputs.support, inputs.cost, 0)
    with torch.no_grad():
        # Where two dummies exchange mass, that much too much is carried between real points, at a cost C:
        # the way between them must cost more than -C.
        most = cost.abs().amax((1, 2))
        between = most + FORBIDDEN * epsilon if epsilon > 0 else torch.where(most > 0, 2 * most, 1)
    cost = torch.nn.functional.pad(cost, (0, 1, 0, 1))
    corner = torch.zeros_like(cost)
    corner[:, -1, -1] = between
    left = (1 - carried)[:, None]
    total = 1 + left
    source, target = (torch.cat([w, left], 1) / total for w in (inputs.source, inputs.target))
    return cost + corner, source, target
