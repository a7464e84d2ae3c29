"""Entropic optimal transport by Sinkhorn's rounds: batched, masked, each item stopped by itself."""

from __future__ import annotations

import warnings
from typing import Literal

import torch
from torch import Tensor

from avalign.ot.gradient import transport_value
from avalign.ot.plan import Plan
from avalign.ot.problem import Problem, TransportError, problem

CHECK_EVERY = 10  # rounds between two looks at the marginal error
# exp(-x) of the largest absorbed cost / epsilon must stay a normal number, with room for the scalings.
KERNEL_RANGE = {torch.float32: 80.0, torch.float64: 600.0}


class NotConverged(UserWarning):
    """Some items of a batch did not reach the tolerance; Plan.converged says which."""


def sinkhorn(
    cost: Tensor,
    source: Tensor | None = None,
    target: Tensor | None = None,
    source_mask: Tensor | None = None,
    target_mask: Tensor | None = None,
    *,
    epsilon: float = 0.05,
    rounds: int = 1000,
    tolerance: float = 1e-3,
    value: Literal["dual", "primal"] = "dual",
) -> Plan:
    """The plan T = source_i target_j exp((f_i + g_j - C_ij) / epsilon) that has the given marginals.

        argmin over T in Pi(source, target) of <T, C> + epsilon KL(T | source x target)

    The rows of the plan are exact, its columns off by at most `tolerance` (L1) where converged. An item's
    answer does not depend on its neighbours in the batch: it stops when it is done.

    value: "dual", the minimum itself, "primal", <T, C> at that T. Both are above the exact cost and
           below source' C target; each carries the gradient that is its own

    Shapes: cost (b, n, m); source, source_mask (b, n); target, target_mask (b, m), True where real
    Source: Cuturi, arXiv:1306.0895; Peyre and Cuturi, arXiv:1803.00567, section 4
    """
    check_settings(epsilon, rounds, tolerance, value)
    given = problem(cost, source, target, source_mask, target_mask)
    with torch.no_grad(), torch.autocast(given.cost.device.type, enabled=False):
        f, g, matrix, error, made = _solve(given, epsilon, rounds, tolerance)
        converged = error <= tolerance
        if not converged.all():
            warnings.warn(
                f"sinkhorn: not every item reached marginal error {tolerance} in {rounds} rounds at epsilon "
                f"{epsilon}, and gradients there are off; Plan.converged says which. "
                "Give more rounds or a larger epsilon.",
                NotConverged,
                stacklevel=2,
            )
    number = transport_value(given, matrix, f, g, epsilon, value)
    return Plan(given, matrix, number, value, f, g, error, made, converged)


def check_settings(epsilon: float, rounds: int, tolerance: float, value: str) -> None:
    """Raise TransportError for settings that no problem can be solved with."""
    if not 0 < epsilon < float("inf"):
        raise TransportError(
            f"epsilon must be above 0, got {epsilon} (for no smoothing use the exact solver)"
        )
    if rounds < 1:
        raise TransportError(f"rounds must be at least 1, got {rounds}")
    if not tolerance > 0:
        raise TransportError(f"tolerance must be above 0, got {tolerance}")
    if value not in ("dual", "primal"):
        raise TransportError(f"value must be 'dual' or 'primal', not {value!r}")


def _solve(
    given: Problem, epsilon: float, rounds: int, tolerance: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Potentials, plan, marginal error and rounds made."""
    a, b, support = given.source.detach(), given.target.detach(), given.support
    # Absorb the least cost of every row, then of every column: each has an entry of exactly 0 left.
    cost = given.cost.detach().masked_fill(~support, torch.inf)
    row = _finite(cost.amin(2))
    cost = cost - row[:, :, None]
    column = _finite(cost.amin(1))
    cost = (cost - column[:, None, :]) / epsilon
    reach = cost.masked_fill(~support, 0).amax((1, 2))
    direct = reach <= KERNEL_RANGE[cost.dtype]
    if direct.all():
        log_u, log_v, error, made = _kernel_rounds(cost, a, b, rounds, tolerance)
    elif not direct.any():
        log_u, log_v, error, made = _log_rounds(cost, a, b, rounds, tolerance)
    else:
        log_u, log_v, error = torch.empty_like(a), torch.empty_like(b), torch.empty_like(reach)
        made = torch.empty_like(reach, dtype=torch.long)
        for rows, run in ((direct, _kernel_rounds), (~direct, _log_rounds)):
            log_u[rows], log_v[rows], error[rows], made[rows] = run(
                cost[rows], a[rows], b[rows], rounds, tolerance
            )
    matrix = torch.exp(log_u[:, :, None] + log_v[:, None, :] - cost)
    f = torch.where(a > 0, epsilon * (log_u - a.log()) + row, 0)
    g = torch.where(b > 0, epsilon * (log_v - b.log()) + column, 0)
    return f, g, matrix, error, made


def _finite(least: Tensor) -> Tensor:
    return torch.where(least.isfinite(), least, torch.zeros_like(least))


def _kernel_rounds(
    cost: Tensor, a: Tensor, b: Tensor, rounds: int, tolerance: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rounds on exp(-cost): a multiply and a sum each way. log u, log v, error, rounds made."""
    out_u, out_v = torch.empty_like(a), torch.empty_like(b)
    out_error, made = torch.empty_like(a[:, 0]), torch.zeros(len(a), dtype=torch.long, device=a.device)
    left = torch.arange(len(a), device=a.device)
    kernel = torch.exp(-cost)
    flipped = kernel.transpose(1, 2).contiguous()
    tiny = torch.finfo(cost.dtype).tiny
    v = b
    for done in range(1, rounds + 1):
        u = a / _sums(flipped, v).clamp(min=tiny)
        w = _sums(kernel, u)
        if done % CHECK_EVERY == 0 or done == rounds:
            error = (v * w - b).abs().sum(1)
            stop = (error <= tolerance) | (done == rounds)
            if stop.any():
                ended = left[stop]
                out_u[ended], out_v[ended], out_error[ended] = u[stop].log(), v[stop].log(), error[stop]
                made[ended] = done
                if stop.all():
                    break
                going = ~stop
                left, kernel, flipped = left[going], kernel[going], flipped[going]
                a, b, w = a[going], b[going], w[going]
        v = b / w.clamp(min=tiny)
    return out_u, out_v, out_error, made


def _sums(kernel: Tensor, weight: Tensor) -> Tensor:
    """sum_i weight_i kernel_ij of each item: (b, n, m), (b, n) -> (b, m)"""
    if kernel.device.type == "cpu":  # a row times a matrix: 2-3 times as quick as a matrix times a column
        return torch.bmm(weight[:, None, :], kernel)[:, 0]
    return (kernel * weight[:, :, None]).sum(1)  # a product there could be rounded to TF32


def _log_rounds(
    cost: Tensor, a: Tensor, b: Tensor, rounds: int, tolerance: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same rounds on logarithms: slower, and right for any epsilon."""
    out_u, out_v = torch.empty_like(a), torch.empty_like(b)
    out_error, made = torch.empty_like(a[:, 0]), torch.zeros(len(a), dtype=torch.long, device=a.device)
    left = torch.arange(len(a), device=a.device)
    log_a, log_b = a.log(), b.log()
    v = log_b
    for done in range(1, rounds + 1):
        u = torch.where(a > 0, log_a - torch.logsumexp(v[:, None, :] - cost, 2), -torch.inf)
        w = torch.logsumexp(u[:, :, None] - cost, 1)
        if done % CHECK_EVERY == 0 or done == rounds:
            error = ((v + w).exp() - b).abs().sum(1)
            stop = (error <= tolerance) | (done == rounds)
            if stop.any():
                ended = left[stop]
                out_u[ended], out_v[ended], out_error[ended], made[ended] = (
                    u[stop],
                    v[stop],
                    error[stop],
                    done,
                )
                if stop.all():
                    break
                going = ~stop
                left, cost, a, b = left[going], cost[going], a[going], b[going]
                log_a, log_b, w = log_a[going], log_b[going], w[going]
        v = torch.where(b > 0, log_b - w, -torch.inf)
    return out_u, out_v, out_error, made
