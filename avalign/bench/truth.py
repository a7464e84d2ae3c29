"""What is right: the problem in float64, converged, with the values and gradients that belong to it."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from avalign.bench.competitor import Answer, Settings, ValueOf, marginal_error
from avalign.bench.inputs import Features
from avalign.ot import NotConverged, cosine_cost, exact, sinkhorn

CONVERGED = 1e-9  # L1 of the marginals
MOST_ITERATIONS = 20_000


@dataclass(frozen=True)
class Truth:
    smoothed: Answer  # value is the dual
    entropies: float  # what "entropic" is less than the dual by
    exact: Answer
    same_iterations: Answer | None  # float64 after equally many iterations, where iterations are fixed
    marginal_error: float  # of the smoothed plan; the plan of this form without error is the solution

    def of(self, value: ValueOf) -> Answer:
        if value == "exact":
            return self.exact
        if value == "dual":
            return self.smoothed
        return Answer(self.smoothed.value - self.entropies, self.smoothed.image, self.smoothed.audio)


def work_out(features: Features, settings: Settings) -> Truth:
    """The truths of a problem, on its device, in float64 throughout, from the features as they are given."""
    image, audio = (side.detach().double().requires_grad_() for side in (features.image, features.audio))
    cost = cosine_cost(image, audio)
    epsilon = settings.epsilon

    def answer(plan: Tensor, value: Tensor) -> Answer:
        carried = (plan * cost).sum((1, 2)).mean()  # by the envelope theorem the plan is the gradient
        return Answer(value, *torch.autograd.grad(carried, (image, audio), retain_graph=True))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConverged)  # its error is reported
        found = sinkhorn(cost.detach(), epsilon=epsilon, tolerance=CONVERGED, iterations=MOST_ITERATIONS)
    simplex = exact(cost.detach())
    same = None
    if settings.iterations is not None:
        same = answer(*_iterations(cost.detach(), epsilon, settings.iterations))
    return Truth(
        smoothed=answer(found.matrix, found.value),
        entropies=epsilon * (math.log(cost.shape[1]) + math.log(cost.shape[2])),
        exact=answer(simplex.matrix, simplex.value),
        same_iterations=same,
        marginal_error=float(marginal_error(found.matrix).max()),
    )


def _iterations(cost: Tensor, epsilon: float, iterations: int) -> tuple[Tensor, Tensor]:
    """The plan (b, n, m) and the dual value (b,) after so many of Sinkhorn's iterations, on logarithms.

    As avalign's solvers count: the last iteration is left after its rows, which are then exact.
    """
    scores = -cost / epsilon
    log_a, log_b = -math.log(cost.shape[1]), -math.log(cost.shape[2])
    v = torch.full_like(cost[:, 0], log_b)
    for done in range(1, iterations + 1):
        u = log_a - (scores + v[:, None, :]).logsumexp(2)
        if done < iterations:
            v = log_b - (scores + u[:, :, None]).logsumexp(1)
    plan = (scores + u[:, :, None] + v[:, None, :]).exp()
    return plan, epsilon * (u.mean(1) - log_a + v.mean(1) - log_b - plan.sum((1, 2)) + 1)


def value_error(found: Answer, truth: Answer, scale: Answer) -> float:
    """The mean error of an item's value, relative to the mean of `scale`'s values (never near zero)."""
    off = (found.value.double() - truth.value).abs().mean() / scale.value.abs().mean()
    return float(off)


def gradient_error(found: Answer, truth: Answer) -> float:
    """The norm of the error of both gradients, relative to the norm of the true ones."""
    pairs = ((found.image, truth.image), (found.audio, truth.audio))
    off = sum(float((f.double() - t).square().sum()) for f, t in pairs)
    size = sum(float(t.square().sum()) for _, t in pairs)
    return math.sqrt(off / size) if size else (math.inf if off else 0.0)
