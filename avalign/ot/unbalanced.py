"""Unbalanced optimal transport: marginals that may be missed at a price, each item at its own."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from avalign.ot.iterations import EASY_REACH, ROUGH_ERROR, ROUGH_ITERATIONS, Potentials
from avalign.ot.plan import Plan
from avalign.ot.problem import Problem, TransportError, items, problem
from avalign.ot.sinkhorn import check_settings, entropic_plan, warn_unless_converged
from avalign.ot.unbalanced_value import bounds, unbalanced_value

RELAXATION = 1.5  # an iteration goes so many times as far as its own optimum, while that helps


def unbalanced(
    cost: Tensor,
    source: Tensor | None = None,
    target: Tensor | None = None,
    source_mask: Tensor | None = None,
    target_mask: Tensor | None = None,
    *,
    rho: float | Tensor,
    epsilon: float = 0.05,
    iterations: int = 1000,
    tolerance: float | None = 1e-3,
    value: Literal["dual", "primal"] = "dual",
) -> Plan:
    """The plan T that may leave mass behind, or create it, at a price of rho:

        argmin over T >= 0 of <T, C> + epsilon KL(T | source x target)
                              + rho KL(T 1 | source) + rho KL(T' 1 | target)

    with KL(p | q) = sum p log(p / q) - p + q. Marginals are masses: any positive totals, also different
    ones, and uniform of mass 1 where not given. T = source_i target_j exp((f_i + g_j - C_ij) / epsilon) has
    marginals source exp(-f / rho) and target exp(-g / rho); it carries `plan.matrix.sum((1, 2))`.

    rho:   above 0, in units of the cost, for all items or (b,) for each; geomloss's reach ** p. As it grows
           the plan becomes that of sinkhorn, as it falls nothing is carried
    value: "dual", the minimum itself; "primal", <T, C> at that T. Each carries its own gradient to the
           cost, both marginals and rho
    marginal_error: L1 between the columns of T and target exp(-g / rho), which iterations leave last, as a
           share of the mass carried; the rows are exact. Iterations stop at `tolerance`, item by item
    lower, upper:   bounds of the minimum at epsilon 0, all its KL(. | .) to the marginals counted

    Shapes: cost (b, n, m); source, source_mask (b, n); target, target_mask (b, m), True where real
    Source: Chizat et al., arXiv:1607.05816; Sejourne et al., arXiv:1910.12958, and arXiv:2201.00730 for the
            shift of mass between potentials in every iteration
    """
    check_settings(epsilon, iterations, tolerance, "dual")
    if value not in ("dual", "primal"):
        raise TransportError(f"value must be 'dual' or 'primal', not {value!r}")
    inputs = problem(cost, source, target, source_mask, target_mask, unit_mass=False)
    price = _price(rho, inputs)
    with torch.no_grad(), torch.autocast(inputs.cost.device.type, enabled=False):
        found = _solve(inputs, price.detach(), epsilon, iterations, tolerance)
    warn_unless_converged(found.error, epsilon, iterations, tolerance, "unbalanced")
    number = unbalanced_value(inputs, price, found.f, found.g, epsilon, value)
    bracket = bounds(price.detach())
    return entropic_plan(inputs, number, value, found, epsilon, tolerance, "torch", bracket)


def _price(rho: float | Tensor, inputs: Problem) -> Tensor:
    """rho of every item, (b,)."""
    size = len(inputs.cost)
    if isinstance(rho, Tensor) and rho.shape not in ((), (size,)):
        raise TransportError(f"rho must be a number or of shape {(size,)}, got {tuple(rho.shape)}")
    price = torch.as_tensor(rho, dtype=inputs.cost.dtype, device=inputs.cost.device).expand(size)
    wrong = ~((price > 0) & price.isfinite())
    if wrong.any():
        raise TransportError(
            f"rho must be above 0 and finite (for marginals that must hold use sinkhorn): "
            f"item(s) {items(wrong)} have {[round(x, 4) for x in price[wrong].tolist()[:8]]}"
        )
    return price


def _solve(
    inputs: Problem, rho: Tensor, epsilon: float, iterations: int, tolerance: float | None
) -> Potentials:
    """Of every item; small epsilons are approached from larger ones."""
    a, b = inputs.source.detach(), inputs.target.detach()
    support = inputs.support
    cost = torch.where(support, inputs.cost.detach(), torch.inf)
    g, spent = torch.zeros_like(b), torch.zeros(len(a), dtype=torch.long, device=a.device)
    if tolerance is not None:
        low = cost.amin((1, 2))
        span = (torch.where(support, cost, low[:, None, None]).amax((1, 2)) - low) / epsilon
        stages = (span / EASY_REACH).log2().ceil().clamp(0)
        for stage in range(int(stages.max()), 0, -1):
            now = stages >= stage
            part = (cost[now], a[now], b[now], g[now], rho[now])
            _, g[now], _, used = _iterations(*part, epsilon * 2.0**stage, ROUGH_ITERATIONS, ROUGH_ERROR)
            spent[now] += used
    f, g, error, used = _iterations(cost, a, b, g, rho, epsilon, iterations, tolerance)
    return Potentials(f, g, error, spent + used)


def _iterations(
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    g: Tensor,
    rho: Tensor,
    epsilon: float,
    iterations: int,
    tolerance: float | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Iterations on logarithms at one epsilon, from g: f is exact for the g returned, which the error
    judges."""
    out_f, out_g = torch.zeros_like(a), torch.zeros_like(b)
    out_error = torch.zeros_like(rho)
    out_iterations = torch.zeros(len(a), dtype=torch.long, device=a.device)
    left = torch.arange(len(a), device=a.device)
    log_a, log_b = a.log(), b.log()
    omega = torch.full_like(rho, 1.0 if tolerance is None else RELAXATION)
    best = torch.full_like(rho, torch.inf)
    for done in range(1, iterations + 1):
        f = _answer(cost, log_b, g, rho, epsilon)
        next_g = _answer(cost.transpose(1, 2), log_a, f, rho, epsilon)
        error = _error(log_b, g, next_g, rho, epsilon)
        stop = error <= tolerance if tolerance is not None else torch.zeros_like(error, dtype=torch.bool)
        if done == iterations:
            stop = torch.ones_like(stop)
        if stop.any():
            ended = left[stop]
            out_f[ended], out_g[ended] = f[stop], g[stop]
            out_error[ended], out_iterations[ended] = error[stop], done
            if stop.all():
                break
            go = ~stop
            left, cost, log_a, log_b = left[go], cost[go], log_a[go], log_b[go]
            f, g, next_g, rho = f[go], g[go], next_g[go], rho[go]
            omega, best, error = omega[go], best[go], error[go]
        omega = torch.where(error > 2 * best, 1 + 0.8 * (omega - 1), omega)
        best = torch.where(error > 2 * best, error, torch.minimum(best, error))
        g = g + omega[:, None] * (next_g - g)
        # Moving one number between f and g costs nothing and is what plain iterations are slowest at.
        g = torch.where(log_b.isfinite(), g - _shift(log_a, log_b, f, g, rho)[:, None], 0)
    return out_f, out_g, out_error, out_iterations


def _answer(cost: Tensor, log_b: Tensor, g: Tensor, rho: Tensor, epsilon: float) -> Tensor:
    """The best f (b, n) for g; 0 where there is no mass."""
    smooth = -epsilon * torch.logsumexp(log_b[:, None, :] + (g[:, None, :] - cost) / epsilon, 2)
    return torch.where(smooth.isfinite(), smooth / (1 + epsilon / rho)[:, None], 0)


def _error(log_b: Tensor, g: Tensor, next_g: Tensor, rho: Tensor, epsilon: float) -> Tensor:
    """L1 between the columns of the plan and target exp(-g / rho), as a share of the latter's mass."""
    share = (log_b - g / rho[:, None]).softmax(1)
    return (share * ((g - next_g) * (1 / epsilon + 1 / rho)[:, None]).expm1().abs()).sum(1)


def _shift(log_a: Tensor, log_b: Tensor, f: Tensor, g: Tensor, rho: Tensor) -> Tensor:
    """What to add to f and take from g, (b,), for the best dual value: both marginals' masses then agree."""
    price = rho.double()[:, None]  # where rho is large, a small difference of large numbers
    rows = torch.logsumexp(log_a.double() - f.double() / price, 1)
    columns = torch.logsumexp(log_b.double() - g.double() / price, 1)
    return (price[:, 0] / 2 * (rows - columns)).to(f.dtype)
