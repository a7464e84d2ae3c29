"""Proximal point optimal transport (IPOT), as Meerkat's released code runs it or item by item."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from avalign.ot.gradient import Slopes, gibbs_matrix, only_once
from avalign.ot.plan import Plan, gibbs
from avalign.ot.problem import TransportError, problem
from avalign.ot.sinkhorn import CONVERGED


def ipot(
    cost: Tensor,
    source: Tensor | None = None,
    target: Tensor | None = None,
    source_mask: Tensor | None = None,
    target_mask: Tensor | None = None,
    *,
    beta: float = 0.5,
    iterations: int = 30,
    threshold: float | None = None,
    threshold_over: Literal["item", "batch"] = "item",
) -> Plan:
    """Exactly `iterations` proximal steps, T_t = argmin of <T, C> + beta KL(T | T_(t-1)), one iteration each.

    T_t = diag(p) exp(-t C / beta) diag(q): Sinkhorn's iterations, of which the t-th is done at epsilon
    beta / t, its target potential carried on in a straight line. So the answer is near that of epsilon
    beta / iterations (0.0167 by default), but not converged: its columns are exact and its rows are off by
    marginal_error (L1). Its value is <T, C>, no bound of anything; lower and upper are.

    threshold: relu(C - (low + threshold (high - low))) takes the place of C, with low and high the least
               and the greatest cost of the item, or of the whole batch, as Meerkat's released code has it
               (threshold=0.1, threshold_over="batch"): there an item's value depends on its neighbours.
               Plan.problem, value and bounds are all of the cost after this

    Shapes:   cost (b, n, m); source, source_mask (b, n); target, target_mask (b, m), True where real
    Gradient: the true one of the value returned, through all iterations and the threshold, to the cost and
              both marginals, as autograd through the released code gives it; what is kept for it is n + m
              numbers an iteration and item. Holding T fixed instead is another gradient, 0.5 to 8 % off
    Source:   Xie et al., arXiv:1802.04307, algorithm 1 with one inner iteration; Meerkat, arXiv:2407.01851
    """
    _check(beta, iterations, threshold, threshold_over)
    inputs = problem(cost, source, target, source_mask, target_mask)
    if threshold is not None:
        reduced = _reduced(inputs.cost, inputs.support, threshold, threshold_over)
        inputs = replace(inputs, make_cost=lambda: reduced)
    with torch.no_grad(), torch.autocast(inputs.cost.device.type, enabled=False):
        a, b = inputs.source.detach(), inputs.target.detach()
        epsilon = beta / iterations
        exponent = torch.where(inputs.support, inputs.cost.detach() / beta, torch.inf)
        log_p, log_q = _iterations(exponent, a.log(), b.log(), iterations)
        f = torch.where(a > 0, epsilon * (log_p[-1] - a.log()), 0)
        g = torch.where(b > 0, epsilon * (log_q[-1] - b.log()), 0)
        rows = gibbs_matrix(inputs.cost.detach(), a, b, f, g, epsilon).sum(2)
        error = (rows - a).abs().sum(1)
    return Plan(
        problem=inputs,
        value=_Primal.apply(inputs.cost, inputs.source, inputs.target, beta, log_p, log_q),
        value_name="primal",
        source_potential=f,
        target_potential=g,
        marginal_error=error,
        iterations=torch.full_like(error, iterations, dtype=torch.long),
        converged=error <= CONVERGED,
        engine="torch",
        make_matrix=gibbs(epsilon),
    )


def _check(beta: float, iterations: int, threshold: float | None, threshold_over: str) -> None:
    if not 0 < beta < float("inf"):
        raise TransportError(f"beta must be above 0, got {beta}")
    if iterations < 1:
        raise TransportError(f"iterations must be at least 1, got {iterations}")
    if threshold is not None and not 0 <= threshold <= 1:
        raise TransportError(f"threshold must be in 0..1, a share of the cost's range, got {threshold}")
    if threshold_over not in ("item", "batch"):
        raise TransportError(f"threshold_over must be 'item' or 'batch', not {threshold_over!r}")


def _reduced(cost: Tensor, support: Tensor, threshold: float, over: str) -> Tensor:
    cost = torch.where(support, cost, 0)
    low = torch.where(support, cost, torch.inf).amin((1, 2), keepdim=True)
    high = torch.where(support, cost, -torch.inf).amax((1, 2), keepdim=True)
    if over == "batch":
        low, high = low.amin(0, keepdim=True), high.amax(0, keepdim=True)
    return torch.where(support, (cost - low - threshold * (high - low)).relu(), 0)


def _iterations(exponent: Tensor, log_a: Tensor, log_b: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """log p (iterations, b, n) and log q (iterations, b, m) after every iteration; exponent is C / beta.

    The published recursion makes Q = exp(-C / beta) * T, p = a / (Q s), s = b / (Q' p), T = p Q s'. With
    T = diag(p) exp(-t C / beta) diag(q) multiplied out, s is the ratio of two q's, and q s is what the next
    p is made right for.
    """
    log_p, log_q = [], [torch.zeros_like(log_b)] * 2
    flipped = exponent.transpose(1, 2).contiguous()
    for t in range(1, iterations + 1):
        ahead = 2 * log_q[-1] - log_q[-2]
        log_p.append(_make_right(log_a, ahead, t, exponent))
        log_q.append(_make_right(log_b, log_p[-1], t, flipped))
    return torch.stack(log_p), torch.stack(log_q[2:])


def _make_right(log_a: Tensor, log_q: Tensor, t: int, exponent: Tensor) -> Tensor:
    """log p (b, n) such that diag(p) exp(-t exponent) diag(q) has the rows a; 0 where a is 0."""
    log_p = log_a - torch.logsumexp(torch.add(log_q[:, None, :], exponent, alpha=-t), 2)
    return torch.where(log_a.isfinite(), log_p, 0)


class _Primal(torch.autograd.Function):
    """<T, C> after the last iteration, differentiated through all of them, last to first."""

    @staticmethod
    def forward(
        ctx: Any, cost: Tensor, a: Tensor, b: Tensor, beta: float, log_p: Tensor, log_q: Tensor
    ) -> Tensor:
        ctx.save_for_backward(cost, a, b, log_p, log_q)
        ctx.beta = beta
        matrix, cost = _last(cost, a, b, beta, log_p, log_q)
        return (matrix * cost).sum((1, 2))

    @staticmethod
    @only_once
    def backward(ctx: Any, saved: tuple[Tensor, ...], upstream: Tensor) -> Slopes:
        cost, a, b, log_p, log_q = saved
        beta, iterations = ctx.beta, len(log_p)
        matrix, cost = _last(cost, a, b, beta, log_p, log_q)
        to_cost = matrix - iterations / beta * matrix * cost
        to_log_a, to_log_b = torch.zeros_like(a), torch.zeros_like(b)
        to_p = (matrix * cost).sum(2)
        to_q = [
            (matrix * cost).sum(1),
            torch.zeros_like(b),
            torch.zeros_like(b),
        ]  # of iterations t, t - 1, t - 2
        exponent = torch.where((a > 0)[:, :, None] & (b > 0)[:, None, :], cost / beta, torch.inf)
        log_a, log_b = (torch.where(w > 0, w.log(), 0) for w in (a, b))
        nothing = torch.zeros_like(b)
        for t in range(iterations, 0, -1):
            p, q = log_p[t - 1], log_q[t - 1]
            # q = log b - log sum_i exp(p - t C / beta): the sum's shares, columns summing to 1
            share = _share(p, t, exponent, q - log_b).mul_(to_q[0][:, None, :])
            to_log_b += to_q[0]
            to_cost.add_(share, alpha=t / beta)
            to_p = to_p - share.sum(2)
            # p = log a - log sum_j exp(ahead - t C / beta), rows summing to 1
            ahead = 2 * (log_q[t - 2] if t > 1 else nothing) - (log_q[t - 3] if t > 2 else nothing)
            share = _share(p - log_a, t, exponent, ahead).mul_(to_p[:, :, None])
            to_log_a += to_p
            to_cost.add_(share, alpha=t / beta)
            to_ahead = -share.sum(1)
            to_q = [to_q[1] + 2 * to_ahead, to_q[2] - to_ahead, nothing]
            to_p = torch.zeros_like(a)
        to_a, to_b = (
            torch.where(w > 0, slope / w.clamp(min=torch.finfo(w.dtype).tiny), 0)
            for w, slope in ((a, to_log_a), (b, to_log_b))
        )
        outer = upstream[:, None]
        return outer[:, :, None] * to_cost, outer * to_a, outer * to_b, None, None, None


def _last(
    cost: Tensor, a: Tensor, b: Tensor, beta: float, log_p: Tensor, log_q: Tensor
) -> tuple[Tensor, Tensor]:
    """The plan after the last iteration, and the cost with 0 where nothing can be carried."""
    support = (a > 0)[:, :, None] & (b > 0)[:, None, :]
    cost = torch.where(support, cost, 0)
    matrix = torch.exp(log_p[-1][:, :, None] + log_q[-1][:, None, :] - len(log_p) / beta * cost)
    return torch.where(support, matrix, 0), cost


def _share(row: Tensor, t: int, exponent: Tensor, column: Tensor) -> Tensor:
    """exp(row_i + column_j - t exponent_ij), 0 where nothing flows and the exponent is infinite."""
    return torch.add(row[:, :, None] + column[:, None, :], exponent, alpha=-t).exp_()
