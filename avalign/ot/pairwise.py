"""Transport between every set of features of one batch and every set of another, under cosine distance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from avalign.ot import pairwise_engine as engines
from avalign.ot.cost import LARGEST_COSINE_COST, check_numbers, direction
from avalign.ot.gradient import Slopes, only_once
from avalign.ot.pairwise_engine import Inputs, Settings
from avalign.ot.problem import TransportError, items, marginal, may_synchronize
from avalign.ot.sinkhorn import check_precision, check_settings, warn_unless_converged

BLOCK = 2**24  # bytes of similarities that are held at a time
SAVED = 2**29  # bytes of them that are saved for the backward pass; beyond, it makes them again
NEGLIGIBLE = 2.0**-24  # share of a batch's upstream gradients, all together, that may be left out


@dataclass(frozen=True)
class AllPairs:
    """What all_pairs() found of r sets against c sets.

    Shapes: value (r, c), with gradient; f (r, c, n), g (r, c, m), the potentials; marginal_error,
            iterations (r, c); source (r, n), target (c, m), the marginals; cost(i, j) and plan(i, j) (n, m)
    """

    value: Tensor
    f: Tensor
    g: Tensor
    marginal_error: Tensor
    iterations: Tensor
    source: Tensor
    target: Tensor
    epsilon: float
    tolerance: float | None
    engine: str
    x: Tensor  # (r, n, d), of length 1
    y: Tensor  # (c, m, d)

    @property
    def converged(self) -> Tensor:
        """(r, c) bool: marginal_error is at most the tolerance; all, without one."""
        reached = torch.inf if self.tolerance is None else self.tolerance
        return self.marginal_error <= reached

    def cost(self, i: int, j: int) -> Tensor:
        """1 - cos of each row of set i with each column of set j, (n, m)."""
        return 1 - self.x[i] @ self.y[j].T

    def plan(self, i: int, j: int) -> Tensor:
        """What set i sends to set j, (n, m), detached."""
        exponent = self.f[i, j][:, None] + self.g[i, j][None] - self.cost(i, j)
        return self.source[i].detach()[:, None] * self.target[j].detach() * (exponent / self.epsilon).exp()


@torch.compiler.disable
def all_pairs(
    x: Tensor,
    y: Tensor,
    source: Tensor | None = None,
    target: Tensor | None = None,
    x_mask: Tensor | None = None,
    y_mask: Tensor | None = None,
    *,
    epsilon: float = 0.1,
    rho_source: float = math.inf,
    rho_target: float = math.inf,
    iterations: int = 1000,
    tolerance: float | None = 1e-3,
    init: AllPairs | None = None,
    engine: str = "auto",
) -> AllPairs:
    """The transport value of every set of x with every set of y:

        min over T >= 0 of <T, C> + epsilon KL(T | source x target)
                           + rho_source KL(T 1 | source) + rho_target KL(T' 1 | target),  C = 1 - cos

    with KL(p | q) = sum p log(p / q) - p + q. A side's price rho is for a unit of KL from its marginal: inf,
    the marginal holds; 0, it is free. Both inf: balanced transport. source free, target held: every column
    goes where its soft minimum is, -epsilon log sum_i source_i exp(-C_ij / epsilon), soft attention without
    iterations; in between lie semi-relaxed (one side held) and unbalanced transport.

    One product of all features with all, solves of the r x c blocks in it, and two products for the gradient.
    No more than BLOCK bytes of similarities are held at a time, beside those that are saved for the backward
    pass, SAVED bytes at most. Pairs whose upstream gradients are, all together, below 6e-8 of all cost no
    backward product.

    epsilon:   in units of the cost
    tolerance: a pair is done when its columns' mass changes by no more than this share (L1) in an iteration,
               the rows being exact; None, all of `iterations` are made
    init:      what was found before for as many and as large sets, to begin from; it changes the answer by no
               more than the tolerance
    engine:    "c++" for float32 on a CPU; "torch" anywhere, in the log domain; a pair that leaves a float's
               range in "c++" is solved by "torch"

    Shapes:   x (r, n, d), y (c, m, d); source, x_mask (r, n); target, y_mask (c, m), masks True where real.
              A side that is held against one that is held has mass 1, any other any mass; uniform of mass 1
              where not given
    Gradient: that of the value, to features and marginals at the plan found (envelope theorem); of the value
              alone
    Source:   Chizat et al., arXiv:1607.05816, with a divergence of its own on each marginal
    """
    check_settings(epsilon, iterations, tolerance, "dual")
    for name, rho in (("rho_source", rho_source), ("rho_target", rho_target)):
        if not rho >= 0:
            raise TransportError(f"{name} must be 0 (free) or above, inf where the marginal holds, not {rho}")
    _check(x, y)
    wide = torch.float64 if torch.float64 in (x.dtype, y.dtype) else torch.float32
    check_precision(epsilon, wide, LARGEST_COSINE_COST)
    with torch.autocast(x.device.type, enabled=False):
        x, y = _directions("x", x, x_mask, wide), _directions("y", y, y_mask, wide)
        held = math.isinf(rho_source) and math.isinf(rho_target)
        a = marginal("source", source, x_mask, (x.shape[0], x.shape[1]), x, unit_mass=held)
        b = marginal("target", target, y_mask, (y.shape[0], y.shape[1]), y, unit_mass=held)
        settings = Settings(
            epsilon, rho_source, rho_target, iterations, tolerance, engines.choose(engine, x, epsilon)
        )
        start = None if init is None else _start(init, a, b)
        value, f, g, error, made = _Values.apply(x, y, a, b, start, settings)
    if may_synchronize(value):
        warn_unless_converged(error.flatten(), epsilon, iterations, tolerance, "all_pairs")
    x, y = x.detach(), y.detach()
    return AllPairs(value, f, g, error, made, a, b, epsilon, tolerance, settings.engine, x, y)


def _check(x: Tensor, y: Tensor) -> None:
    shapes = f"got shapes {tuple(x.shape)} and {tuple(y.shape)}"
    if x.ndim != 3 or y.ndim != 3 or x.shape[2] != y.shape[2]:
        raise TransportError(f"features must be (r, n, d) and (c, m, d): {shapes}")
    if 0 in x.shape or 0 in y.shape:
        raise TransportError(f"there must be a set, a token and a dimension on either side: {shapes}")
    check_numbers(x, y)


def _directions(name: str, tokens: Tensor, mask: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Of length 1; 0, with gradient 0, where a token is the zero vector or masked, whatever it held."""
    if mask is not None and mask.shape == tokens.shape[:2] and mask.dtype == torch.bool:
        tokens = tokens.masked_fill(~mask[:, :, None], 0)
    tokens = tokens.to(dtype)
    norm = tokens.norm(dim=2, keepdim=True)
    if may_synchronize(norm) and not (finite := norm.isfinite().all(2).all(1)).all():
        raise TransportError(
            f"{name} holds NaN, infinity, or tokens too long for {dtype} in item(s) {items(~finite)}"
        )
    return direction(tokens, norm)


def _start(init: AllPairs, a: Tensor, b: Tensor) -> Tensor:
    shape = (len(a), len(b), b.shape[1])
    if init.g.shape != shape:
        raise TransportError(
            f"init has potentials of shape {tuple(init.g.shape)}; this problem's are {shape}"
        )
    return init.g.detach().to(b.dtype)


class _Values(torch.autograd.Function):
    """The values, from directions; nothing of an iteration is saved but the potentials it ended with."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, a: Tensor, b: Tensor, start: Tensor | None, settings: Settings
    ) -> tuple[Tensor, ...]:
        r, n, d = x.shape
        c, m = b.shape
        flat_x, flat_y = x.reshape(r * n, d), y.reshape(c * m, d)
        row = n * c * m * x.element_size()
        saved = x.new_empty(r * n, c * m) if any(ctx.needs_input_grad) and r * row <= SAVED else None
        found = []
        for begin in range(0, r, step := max(1, BLOCK // row)):
            some = slice(begin, begin + step)
            rows = slice(begin * n, (begin + step) * n)
            out = None if saved is None else saved[rows]
            similarity = torch.mm(flat_x[rows], flat_y.T, out=out)
            inputs = Inputs(similarity, a[some], b)
            found.append(engines.solve(inputs, None if start is None else start[some], settings))
        value, f, g, error, made = (torch.cat(each) for each in zip(*found, strict=True))
        ctx.save_for_backward(x, y, a, b, f, g)
        ctx.similarity, ctx.settings = saved, settings
        ctx.mark_non_differentiable(f, g, error, made)
        return value, f, g, error, made

    @staticmethod
    @only_once
    def backward(ctx: Any, saved: tuple[Tensor, ...], upstream: Tensor, *_: Tensor) -> Slopes:
        x, y, a, b, f, g = saved
        (r, n, d), (c, m) = x.shape, b.shape
        settings: Settings = ctx.settings
        weight = torch.where(_counts(upstream), -upstream, 0)
        flat_x, flat_y = x.reshape(r * n, d), y.reshape(c * m, d)
        to_x, to_y = torch.zeros_like(flat_x), torch.zeros_like(flat_y)
        marginals = ctx.needs_input_grad[2] or ctx.needs_input_grad[3]
        to_a, to_b = torch.zeros_like(a), torch.zeros_like(b)
        step = max(1, BLOCK // (n * c * m * x.element_size()))
        room = x.new_empty(
            min(step, r) * n * c * m
        )  # of the plans, made once: fresh memory costs a pass over it
        for begin, end, columns in engines.parts(weight, step):
            rows, some = slice(begin * n, end * n), slice(begin, end)
            few = slice(None) if columns is None else columns
            at_y = flat_y if columns is None else y[columns].reshape(-1, d)
            if ctx.similarity is None:
                similarity = flat_x[rows] @ at_y.T
            elif columns is None:
                similarity = ctx.similarity[rows]
            else:
                similarity = ctx.similarity[rows].view(-1, c, m)[:, columns].reshape(-1, len(columns) * m)
            inputs = Inputs(similarity, a[some], b[few])
            potentials = f[some, few], g[some, few]
            plan, carried = engines.plan(inputs, *potentials, weight[some, few], settings, marginals, room)
            torch.mm(plan, at_y, out=to_x[rows])
            if columns is None:
                to_y.addmm_(plan.T, flat_x[rows])
            else:
                to_y.view(c, m, d).index_add_(0, columns, (plan.T @ flat_x[rows]).view(-1, m, d))
            if carried is not None:
                slopes = engines.to_marginals(inputs, *potentials, *carried, -weight[some, few], settings)
                to_a[some] += slopes[0]
                to_b[few] += slopes[1]
        wanted = marginals or None
        return to_x.view_as(x), to_y.view_as(y), wanted and to_a, wanted and to_b, None, None


def _counts(upstream: Tensor) -> Tensor:
    """Which pairs' gradients count: all but the least, as many as are together negligible beside all."""
    size = upstream.abs().flatten()
    ordered, order = size.sort()
    kept = torch.empty_like(size, dtype=torch.bool)
    kept[order] = ordered.double().cumsum(0) > NEGLIGIBLE * size.double().sum()
    return kept.view_as(upstream)
