"""geomloss as a solver: its iterations, from its potentials a plan with our evidence of how good they are."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from avalign.ot.gradient import gibbs_matrix, transport_value
from avalign.ot.plan import Plan, gibbs
from avalign.ot.problem import Problem, TransportError, problem
from avalign.ot.sinkhorn import CONVERGED, ValueName, check_settings


def by_geomloss(
    cost: Tensor,
    source: Tensor | None = None,
    target: Tensor | None = None,
    source_mask: Tensor | None = None,
    target_mask: Tensor | None = None,
    *,
    epsilon: float = 0.05,
    scaling: float = 0.5,
    diameter: float | None = None,
    value: ValueName = "dual",
) -> Plan:
    """The problem of sinkhorn(), with potentials by geomloss.SamplesLoss (p=1, debias=False, no reach).

    geomloss does one symmetric iteration at each epsilon of a falling sequence and stops at the last without
    looking: marginal_error, here of rows and columns together, says what that leaves. It can be much at
    its own default scaling; nearer to 1 is slower and better. Values and gradients are sinkhorn's at those
    potentials: the dual is a lower bound of the minimum, and gradients are right as far as it converged.

    epsilon:  geomloss's blur, as p is 1
    scaling:  one epsilon as a share of the one before, above 0 and below 1
    diameter: the first epsilon, in units of the cost, for the whole batch: 2 covers any cosine cost. None:
              each item's greatest cost less its least, for which items are solved one by one
    value:    as in sinkhorn

    Shapes: cost (b, n, m); source, source_mask (b, n); target, target_mask (b, m), True where real
    Source: Feydy et al., arXiv:1810.08278, as geomloss implements it (`pip install geomloss`)
    """
    check_settings(epsilon, 1, None, value)
    if not 0 < scaling < 1:
        raise TransportError(f"scaling must be above 0 and below 1, got {scaling}")
    if diameter is not None and not 0 < diameter < math.inf:
        raise TransportError(f"diameter must be above 0 and finite, or None, got {diameter}")
    inputs = problem(cost, source, target, source_mask, target_mask)
    with torch.no_grad(), torch.autocast(inputs.cost.device.type, enabled=False):
        a, b = inputs.source.detach(), inputs.target.detach()
        c = torch.where(inputs.support, inputs.cost.detach(), 0)
        widths = _widths(inputs) if diameter is None else [diameter]
        size = 1 if diameter is None else len(c)
        solution = [
            _potentials(
                c[k * size :][:size], a[k * size :][:size], b[k * size :][:size], width, epsilon, scaling
            )
            for k, width in enumerate(widths)
        ]
        f = torch.where(a > 0, torch.cat([f for f, _ in solution]), 0)
        g = torch.where(b > 0, torch.cat([g for _, g in solution]), 0)
        matrix = gibbs_matrix(c, a, b, f, g, epsilon)
        error = (matrix.sum(2) - a).abs().sum(1) + (matrix.sum(1) - b).abs().sum(1)
        iterations = torch.tensor([_count(width, epsilon, scaling) for width in widths], device=c.device)
    return Plan(
        problem=inputs,
        value=transport_value(inputs, f, g, epsilon, value),
        value_name=value,
        source_potential=f,
        target_potential=g,
        marginal_error=error,
        iterations=iterations.expand(len(c)),
        converged=error <= CONVERGED,
        engine="geomloss",
        make_matrix=gibbs(epsilon),
    )


def _widths(inputs: Problem) -> list[float]:
    c = inputs.cost.detach()
    low = torch.where(inputs.support, c, torch.inf).amin((1, 2))
    high = torch.where(inputs.support, c, -torch.inf).amax((1, 2))
    return (high - low).tolist()


def _potentials(
    cost: Tensor, a: Tensor, b: Tensor, diameter: float, epsilon: float, scaling: float
) -> tuple[Tensor, Tensor]:
    """f (b, n) and g (b, m)."""
    try:
        from geomloss import SamplesLoss
    except ImportError as missing:
        raise ModuleNotFoundError(
            "this solver needs geomloss: pip install geomloss", name="geomloss"
        ) from missing

    def look_up(left: Tensor, right: Tensor) -> Tensor:
        """geomloss asks for the cost of points and its transpose; the points here only say which."""
        return cost if left[0, 0, 0] < right[0, 0, 0] else cost.transpose(1, 2)

    loss = SamplesLoss(
        "sinkhorn",
        p=1,
        blur=epsilon,
        diameter=max(diameter, epsilon),
        scaling=scaling,
        cost=look_up,
        debias=False,
        potentials=True,
        backend="tensorized",
    )
    f, g = loss(a, torch.zeros_like(a)[:, :, None], b, torch.ones_like(b)[:, :, None])
    return f, g


def _count(diameter: float, epsilon: float, scaling: float) -> int:
    """Iterations of geomloss: one to begin with, one at each epsilon of its sequence, one to end with."""
    steps = math.log(max(diameter, epsilon) / epsilon) / -math.log(scaling)
    return 4 + math.ceil(steps)
