"""Transport between two sets of features under cosine distance: features in, value and gradients out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from avalign.kernels.cpu import engine as cpu
from avalign.kernels.solution import Gradients, Solution
from avalign.ot import dense
from avalign.ot.certificate import balanced, fused
from avalign.ot.cost import LARGEST_COSINE_COST, check_features, cosine_cost
from avalign.ot.engine import Engine, choose, is_triton, tier_of
from avalign.ot.gradient import Slopes, only_once, with_entropies
from avalign.ot.iterations import Potentials
from avalign.ot.plan import Plan
from avalign.ot.problem import Problem, TransportError, items, marginal, may_synchronize
from avalign.ot.sinkhorn import (
    ValueName,
    check_precision,
    check_settings,
    entropic_plan,
    sinkhorn,
    warm_start,
    warn_unless_converged,
)

Products = Literal["auto", "float32", "bfloat16"]


@torch.compiler.disable
def cosine_sinkhorn(
    x: Tensor,
    y: Tensor,
    source: Tensor | None = None,
    target: Tensor | None = None,
    x_mask: Tensor | None = None,
    y_mask: Tensor | None = None,
    *,
    epsilon: float = 0.05,
    iterations: int = 1000,
    tolerance: float | None = 1e-3,
    value: ValueName = "dual",
    init: Plan | None = None,
    engine: Engine = "auto",
    products: Products = "auto",
    upstream: float = 1.0,
) -> Plan:
    """sinkhorn() of cosine_cost(x, y), in one pass where there is a kernel for it (Plan.engine says).

    engine:   "c++" on a CPU; "triton" on a GPU, in the tier that is named or else suits the shapes; "torch"
    products: of the cost and its gradient: "float32", or "bfloat16" factors with float32 sums, off by about
              1e-3 (marginal_error is then that of the rounded cost); "auto" takes the features' own
              precision, as the triton engine always does
    upstream: the gradient that each item's value is likely to meet, as 1 / b under a mean: gradients are
              made beside the value and multiplied only if it is another

    Shapes: x (b, n, d), y (b, m, d); source, x_mask (b, n); target, y_mask (b, m), masks True where real
    """
    check_settings(epsilon, iterations, tolerance, value)
    check_features(x, y)
    wide = torch.float64 if torch.float64 in (x.dtype, y.dtype) else torch.float32
    if x.dtype != y.dtype or x.dtype not in (torch.float32, torch.bfloat16, torch.float64):
        x, y = x.to(wide), y.to(wide)
    chosen = choose(engine, x, y.shape[1])
    if products == "bfloat16" and (chosen == "torch" or value == "primal"):
        raise TransportError("bfloat16 products need a fused engine, and a value other than 'primal'")
    if value == "primal":  # its gradient is more than the plan's
        if is_triton(engine):
            raise TransportError(f"engine {engine!r} has no value 'primal': its gradient is made in torch")
        return sinkhorn(
            cosine_cost(x, y, x_mask, y_mask),
            source,
            target,
            x_mask,
            y_mask,
            epsilon=epsilon,
            iterations=iterations,
            tolerance=tolerance,
            value=value,
            init=init,
            engine="c++" if chosen == "c++" else "torch",
        )
    if chosen == "torch":
        x, y = x.to(wide), y.to(wide)
    check_precision(epsilon, wide, LARGEST_COSINE_COST)
    like = x.new_empty(0, dtype=wide)
    a = marginal("source", source, x_mask, (x.shape[0], x.shape[1]), like)
    b = marginal("target", target, y_mask, (y.shape[0], y.shape[1]), like)
    inputs = Problem(a, b, lambda: cosine_cost(x, y, x_mask, y_mask))
    solve = _Solve(chosen, epsilon, iterations, tolerance, _half(chosen, products, x), upstream)
    number, f, g, error, made = _Fused.apply(x, y, a, b, warm_start(init, b), solve)
    if may_synchronize(number) and not number.isfinite().all():
        raise TransportError(
            "features hold NaN, infinity, or tokens too long for float32 in item(s) "
            f"{items(~number.isfinite())}"
        )
    warn_unless_converged(error, epsilon, iterations, tolerance)
    if value == "entropic":
        number = with_entropies(number, inputs, epsilon)
    bracket = fused(epsilon, (x, y)) if chosen == "c++" else balanced
    return entropic_plan(
        inputs, number, value, Potentials(f, g, error, made), epsilon, tolerance, chosen, bracket
    )


def _half(engine: str, products: str, x: Tensor) -> bool:
    if products not in ("auto", "float32", "bfloat16"):
        raise TransportError(f"products must be 'auto', 'float32' or 'bfloat16', not {products!r}")
    if products == "float32" or (products == "auto" and x.dtype != torch.bfloat16):
        return False
    if is_triton(engine):
        if x.dtype != torch.bfloat16:
            raise TransportError(
                "the triton engine multiplies in bfloat16 what is bfloat16: give it such features"
            )
        return True
    if not cpu.has_bfloat16_products():
        if products == "bfloat16":
            raise TransportError("bfloat16 products cannot run here: this processor has none (AVX512-BF16)")
        return False
    return True


@dataclass(frozen=True)
class _Solve:
    engine: str
    epsilon: float
    iterations: int
    tolerance: float | None
    half: bool
    upstream: float

    def __call__(
        self, x: Tensor, y: Tensor, a: Tensor, b: Tensor, init: Tensor | None, slopes: bool
    ) -> tuple[Solution, Gradients | None]:
        expected = a.new_full((len(x),), self.upstream) if slopes else None
        if is_triton(self.engine):  # whose gradients are made in the pass backward
            from avalign.kernels.triton import sinkhorn as triton_sinkhorn

            solution = triton_sinkhorn.forward(
                x, y, a, b, init,
                epsilon=self.epsilon, iterations=self.iterations, tolerance=self.tolerance,
                tier_name=tier_of(self.engine), synchronize=may_synchronize(x),
            )  # fmt: skip
            return solution, None
        if self.engine == "c++":
            return cpu.from_features(
                x, y, a, b, init, expected,
                epsilon=self.epsilon, iterations=self.iterations, tolerance=self.tolerance, half=self.half,
            )  # fmt: skip
        with torch.autocast(x.device.type, enabled=False):
            return dense.from_features(
                x,
                y,
                a,
                b,
                init,
                expected,
                epsilon=self.epsilon,
                iterations=self.iterations,
                tolerance=self.tolerance,
            )


class _Fused(torch.autograd.Function):
    """The gradients are made with the value, while the features are in the cache.

    The first backward pass hands them out without a copy; another one over the same graph makes them anew.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, a: Tensor, b: Tensor, init: Tensor | None, solve: _Solve
    ) -> tuple[Tensor, ...]:
        slopes = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        found, ready = solve(x, y, a, b, init, slopes)
        ctx.save_for_backward(x, y, a, b, init, found.f, found.g)
        ctx.solve, ctx.ready = solve, ready
        ctx.mark_non_differentiable(found.f, found.g, found.error, found.iterations)
        return found.value, found.f, found.g, found.error, found.iterations

    @staticmethod
    @only_once
    def backward(ctx: Any, saved: tuple[Tensor, ...], upstream: Tensor, *_: Tensor) -> Slopes:
        x, y, a, b, init, f, g = saved
        to_weights = upstream[:, None] * f, upstream[:, None] * g, None, None
        if not (ctx.needs_input_grad[0] or ctx.needs_input_grad[1]):
            return None, None, *to_weights
        if is_triton(ctx.solve.engine):
            from avalign.kernels.triton import sinkhorn as triton_sinkhorn

            slopes = triton_sinkhorn.backward(x, y, a, b, f, g, ctx.solve.epsilon, upstream)
            return *slopes, *to_weights
        to_x, to_y = ctx.ready or ctx.solve(x, y, a, b, init, True)[1]
        ctx.ready = None
        if not (upstream == ctx.solve.upstream).all():
            factor = (upstream / ctx.solve.upstream)[:, None, None]
            to_x, to_y = (to_x * factor).to(to_x.dtype), (to_y * factor).to(to_y.dtype)
        return to_x, to_y, *to_weights
