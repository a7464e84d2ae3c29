"""POT: the batched solvers of ot.batch, and the exact one in a loop.

solve_batch stops by the L2 norm of the rows' error, of the worst item, and looks after iterations 1, 11, 21,
... (ot/batch/_utils.py). A tolerance in L1 is turned into the loosest `tol` of a short ladder that brings
every item within it; the ladder ends at tolerance / sqrt(n), where it must be.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from avalign.bench.competitor import (
    Competitor,
    Ready,
    Settings,
    Unavailable,
    cosine,
    first_within,
    torch_ready,
)
from avalign.bench.inputs import Features

LADDER = (4.0, 2.0, 1.0)  # times tolerance / sqrt(n): a plan's error is spread over many rows


def _batch(features: Features, settings: Settings) -> Ready:
    """Its defaults: iterations on logarithms, gradient by the envelope theorem, value with the entropy."""
    from ot.batch import solve_batch

    tolerance, notes = _tolerance(features, settings, "log_sinkhorn")

    def solve(cost: Tensor) -> Any:
        return solve_batch(cost, settings.epsilon, max_iter=settings.most_iterations, tol=tolerance)

    with torch.no_grad():
        iterations = solve(cosine(features.image, features.audio)).log["n_iter"] + 1
    return torch_ready(
        lambda image, audio: solve(cosine(image, audio)).value,
        features,
        lambda: solve(cosine(features.image, features.audio)).plan,
        value_of="entropic",
        engine="torch",
        notes=notes,
        iterations=float(iterations),
    )


def _detached(features: Features, settings: Settings) -> Ready:
    """The plan without a graph, and by hand the value it has the gradient of."""
    method = _quickest_right(features, settings)
    tolerance, notes = _tolerance(features, settings, method)
    iterations = _solution(cosine(features.image, features.audio), settings, method, tolerance)[1]

    def plan(cost: Tensor) -> Tensor:
        return _solution(cost, settings, method, tolerance)[0]

    def loss(image: Tensor, audio: Tensor) -> Tensor:
        cost = cosine(image, audio)
        with torch.no_grad():
            carried = plan(cost)
            entropy = torch.xlogy(carried, carried).sum((1, 2))
        return (carried * cost).sum((1, 2)) + settings.epsilon * entropy

    return torch_ready(
        loss,
        features,
        lambda: plan(cosine(features.image, features.audio)),
        value_of="entropic",
        engine="torch",
        notes=(f"method {method}", *notes),
        iterations=float(iterations),
    )


def _quickest_right(features: Features, settings: Settings) -> str:
    """Products with the kernel are quicker than logarithms, and right while nothing underflows."""
    if features.image.device.type != "cpu":
        return "log_sinkhorn"  # the other makes its scalings on the CPU, whatever the cost lies on
    first = Settings(settings.epsilon, iterations=min(50, settings.most_iterations))
    plan, _ = _solution(cosine(features.image, features.audio), first, "sinkhorn", 0.0)
    return "sinkhorn" if plan.isfinite().all() else "log_sinkhorn"


def _tolerance(features: Features, settings: Settings, method: str) -> tuple[float, tuple[str, ...]]:
    """`tol` of solve_batch, and what to say about it."""
    if settings.tolerance is None:
        return 0.0, ()
    ladder = [times * settings.tolerance / math.sqrt(features.shape.n) for times in LADDER]
    cost = cosine(features.image, features.audio)
    tolerance, error = first_within(
        settings.tolerance, ladder, lambda tol: _solution(cost, settings, method, tol)[0]
    )
    notes = [f"tol {tolerance:.2g}, an L2 norm, for {settings.tolerance:g} in L1"]
    if not error <= settings.tolerance:
        notes.append(f"did not reach it in {settings.most_iterations} iterations")
    return tolerance, tuple(notes)


def _solution(cost: Tensor, settings: Settings, method: str, tolerance: float) -> tuple[Tensor, int]:
    from ot.batch import solve_batch

    with torch.no_grad():
        found = solve_batch(
            cost.detach(),
            settings.epsilon,
            max_iter=settings.most_iterations,
            tol=tolerance,
            method=method,
            grad="detach",
        )
    return found.plan, found.log["n_iter"] + 1


def _emd2(features: Features, settings: Settings) -> Ready:
    """The network simplex, item by item, through POT's own torch gradient."""
    import ot

    if features.image.device.type != "cpu":
        raise Unavailable("the network simplex runs on the CPU; its copies to and fro would be measured")
    a, b = (torch.full((k,), 1 / k) for k in (features.shape.n, features.shape.m))

    def loss(image: Tensor, audio: Tensor) -> Tensor:
        return torch.stack([ot.emd2(a, b, cost) for cost in cosine(image, audio)])

    return torch_ready(
        loss,
        features,
        lambda: torch.stack([ot.emd(a, b, cost) for cost in cosine(features.image, features.audio)]),
        value_of="exact",
        engine="pot",
        notes=("the unsmoothed problem; errors are against its float64 solution",),
    )


POT = [
    Competitor("pot-batch", "ot.batch.solve_batch, its defaults", _batch, modules=("ot",), install="pot"),
    Competitor(
        "pot-batch-detached",
        "ot.batch.solve_batch without a graph, the gradient by hand",
        _detached,
        modules=("ot",),
        install="pot",
    ),
    Competitor("pot-emd2", "ot.emd2 in a loop, exact", _emd2, modules=("ot",), install="pot"),
]
