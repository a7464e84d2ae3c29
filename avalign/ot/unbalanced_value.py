"""Values and bounds of unbalanced transport, each value with the gradient that belongs to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from avalign.ot.gradient import Slopes, gibbs_matrix, only_once
from avalign.ot.problem import Problem

if TYPE_CHECKING:
    from avalign.ot.plan import Plan


def unbalanced_value(inputs: Problem, rho: Tensor, f: Tensor, g: Tensor, epsilon: float, name: str) -> Tensor:
    """(b,) of the plan that f and g make. Shapes: rho (b,); f (b, n), g (b, m), detached."""
    function = _Dual if name == "dual" else _Primal
    return function.apply(inputs.cost, inputs.source, inputs.target, rho, f, g, epsilon)


class _Dual(torch.autograd.Function):
    """-rho <a, exp(-f / rho) - 1> - rho <b, exp(-g / rho) - 1> - epsilon (sum T - sum a x b).

    A lower bound of the minimum at any potentials, the minimum at the best; its gradient is what stands
    beside C, a, b and rho in it (envelope theorem).
    """

    @staticmethod
    def forward(
        ctx: Any, cost: Tensor, a: Tensor, b: Tensor, rho: Tensor, f: Tensor, g: Tensor, epsilon: float
    ) -> Tensor:
        ctx.save_for_backward(cost, a, b, rho, f, g)
        ctx.epsilon = epsilon
        matrix = gibbs_matrix(cost, a, b, f, g, epsilon)
        smoothing = epsilon * (matrix.sum((1, 2)) - a.sum(1) * b.sum(1))
        return _paid(a, f, rho) + _paid(b, g, rho) - smoothing

    @staticmethod
    @only_once
    def backward(ctx: Any, saved: tuple[Tensor, ...], upstream: Tensor) -> Slopes:
        cost, a, b, rho, f, g = saved
        matrix = gibbs_matrix(cost, a, b, f, g, ctx.epsilon)
        to_a = _to_mass(a, b, matrix.sum(2), f, rho, ctx.epsilon)
        to_b = _to_mass(b, a, matrix.sum(1), g, rho, ctx.epsilon)
        to_rho = _missed(a, f, rho) + _missed(b, g, rho)
        outer = upstream[:, None]
        return outer[:, :, None] * matrix, outer * to_a, outer * to_b, upstream * to_rho, None, None, None


def _paid(a: Tensor, f: Tensor, rho: Tensor) -> Tensor:
    """-rho <a, exp(-f / rho) - 1>, (b,), as exactly for a large rho, where it is <a, f>."""
    return -rho * (a * (-f / rho[:, None]).expm1()).sum(1)


def _to_mass(a: Tensor, b: Tensor, rows: Tensor, f: Tensor, rho: Tensor, epsilon: float) -> Tensor:
    price = -rho[:, None] * (-f / rho[:, None]).expm1()
    carried = torch.where(a > 0, rows / a.clamp(min=torch.finfo(a.dtype).tiny), 0)
    return torch.where(a > 0, price - epsilon * (carried - b.sum(1, keepdim=True)), 0)


def _missed(a: Tensor, f: Tensor, rho: Tensor) -> Tensor:
    """KL(a exp(-f / rho) | a), (b,): the derivative of _paid to rho."""
    power = -f / rho[:, None]
    return (a * (power * power.exp() - power.expm1())).sum(1)


class _Primal(torch.autograd.Function):
    """<T, C>, which moves with T too.

    With T 1 = a exp(-f / rho) and T' 1 = b exp(-g / rho) held, its gradient to C is
    T - T * (C - p - q) / epsilon, where (1 + epsilon / rho) (T 1) p + T q = (T * C) 1 and the same for
    columns, to the marginals (1 + epsilon / rho) exp(-f / rho) p and its like, and to rho
    (<T 1, p f> + <T' 1, q g>) / rho^2.
    """

    @staticmethod
    def forward(
        ctx: Any, cost: Tensor, a: Tensor, b: Tensor, rho: Tensor, f: Tensor, g: Tensor, epsilon: float
    ) -> Tensor:
        ctx.save_for_backward(cost, a, b, rho, f, g)
        ctx.epsilon = epsilon
        matrix = gibbs_matrix(cost, a, b, f, g, epsilon)
        return (matrix * torch.where(matrix > 0, cost, 0)).sum((1, 2))

    @staticmethod
    @only_once
    def backward(ctx: Any, saved: tuple[Tensor, ...], upstream: Tensor) -> Slopes:
        cost, a, b, rho, f, g = saved
        matrix = gibbs_matrix(cost, a, b, f, g, ctx.epsilon)
        cost = torch.where(matrix > 0, cost, 0)
        factor = (1 + ctx.epsilon / rho)[:, None]
        p, q = _projection(cost, matrix, factor)
        slope = matrix - matrix * (cost - p[:, :, None] - q[:, None, :]) / ctx.epsilon
        to_a, to_b = (factor * (-h / rho[:, None]).exp() * k for h, k in ((f, p), (g, q)))
        to_rho = ((p * f * matrix.sum(2)).sum(1) + (q * g * matrix.sum(1)).sum(1)) / rho.square()
        outer = upstream[:, None]
        return outer[:, :, None] * slope, outer * to_a, outer * to_b, upstream * to_rho, None, None, None


def _projection(cost: Tensor, matrix: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """p (b, n) and q (b, m) of _Primal, 0 where nothing is carried. factor (b, 1), above 1."""
    dtype = cost.dtype
    cost, matrix, factor = cost.double(), matrix.double(), factor.double()
    rows, columns = factor * matrix.sum(2), factor * matrix.sum(1)
    weighted = matrix * cost
    inverse = torch.where(rows > 0, 1 / rows.clamp(min=1e-300), 0)
    # Eliminate p: (diag(columns) - T' diag(1 / rows) T) q = (T * C)' 1 - T' diag(1 / rows) (T * C) 1.
    share = matrix * inverse[:, :, None]
    system = torch.diag_embed(torch.where(columns > 0, columns, 1)) - matrix.transpose(1, 2) @ share
    right = weighted.sum(1) - torch.einsum("bnm,bn->bm", share, weighted.sum(2))
    q = torch.linalg.solve(system, right)
    p = (weighted.sum(2) - torch.einsum("bnm,bm->bn", matrix, q)) * inverse
    return p.to(dtype), q.to(dtype)


def bounds(rho: Tensor) -> Callable[[Plan], tuple[Tensor, Tensor]]:
    """Lower and upper bound (b,) of min over T >= 0 of <T, C> + rho KL(T 1 | a) + rho KL(T' 1 | b).

    Lower: any f + g <= C makes the dual -rho <a, exp(-f / rho) - 1> - rho <b, exp(-g / rho) - 1> one, and a
    double c-transform makes them so; moving a number from g to f then makes it the best. Upper: the plan.
    """

    def bracket(plan: Plan) -> tuple[Tensor, Tensor]:
        inputs = plan.problem
        a, b = inputs.source.detach(), inputs.target.detach()
        cost = inputs.cost.detach().masked_fill(~inputs.support, torch.inf)
        f = (cost - plan.target_potential[:, None, :]).amin(2)
        f = torch.where(a > 0, f, 0)
        g = (cost - f[:, :, None]).amin(1)
        price = rho[:, None]
        masses = [torch.logsumexp(w.log() - h / price, 1) for w, h in ((a, f), (b, torch.where(b > 0, g, 0)))]
        shift = (rho / 2 * (masses[0] - masses[1]))[:, None]
        f, g = torch.where(a > 0, f + shift, 0), torch.where(b > 0, g - shift, 0)
        carried = torch.where(plan.matrix > 0, plan.matrix * inputs.cost.detach(), 0).sum((1, 2))
        missed = _divergence(plan.matrix.sum(2), a) + _divergence(plan.matrix.sum(1), b)
        return _paid(a, f, rho) + _paid(b, g, rho), carried + rho * missed

    return bracket


def _divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p | q) of masses, (b,), where p is 0 wherever q is."""
    ratio = torch.where(q > 0, p / q.clamp(min=torch.finfo(q.dtype).tiny), 1)
    return (torch.xlogy(p, ratio) - p + q).sum(1)
