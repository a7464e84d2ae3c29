"""Entropic optimal transport by Sinkhorn's iterations: batched, masked, each item stopped by itself."""

from __future__ import annotations

import warnings
from typing import Literal

import torch
from torch import Tensor

from avalign.ot.certificate import Bracket, balanced, fused
from avalign.ot.engine import Engine, choose, solve
from avalign.ot.gradient import transport_value
from avalign.ot.iterations import Potentials
from avalign.ot.plan import Plan, gibbs
from avalign.ot.problem import Problem, TransportError, may_synchronize, problem

ValueName = Literal["dual", "primal", "entropic"]
FINEST = {torch.float32: 1e-6, torch.float64: 1e-15}  # epsilon as a share of what its rounding comes from
CONVERGED = 1e-3  # the marginal error that counts as converged where no tolerance was asked for


class NotConverged(UserWarning):
    """Some items of a batch did not reach the tolerance; Plan.converged says which."""


@torch.compiler.disable
def sinkhorn(
    cost: Tensor,
    source: Tensor | None = None,
    target: Tensor | None = None,
    source_mask: Tensor | None = None,
    target_mask: Tensor | None = None,
    *,
    epsilon: float = 0.05,
    iterations: int = 1000,
    tolerance: float | None = 1e-3,
    value: ValueName = "dual",
    init: Plan | None = None,
    engine: Engine = "auto",
) -> Plan:
    """The plan T = source_i target_j exp((f_i + g_j - C_ij) / epsilon) that has the given marginals.

        argmin over T in Pi(source, target) of <T, C> + epsilon KL(T | source x target)

    Refused: an epsilon below a millionth of the potentials in float32 (check_precision).

    The rows of the plan are exact, its columns off by at most `tolerance` (L1) where converged. An item's
    answer does not depend on its neighbours in the batch: it stops when it is done. Iterations are relaxed
    and small epsilons approached from larger ones (ot/iterations.py); tolerance=None does exactly
    `iterations` of Sinkhorn's own.

    value:  "dual", the minimum itself; "primal", <T, C> at that T; "entropic", the dual without the
            marginals' own entropy, <T, C> + epsilon sum T log T. Dual and primal are above the exact cost
            and below source' C target; each carries the gradient that is its own
    init:  a plan of a like problem, to begin from its potentials
    engine: "c++", built on first use where there is a compiler, for float32 on a CPU; "torch", anywhere;
            "auto", the fastest of them that can run (Plan.engine says which did)

    Shapes: cost (b, n, m); source, source_mask (b, n); target, target_mask (b, m), True where real
    Source: Cuturi, arXiv:1306.0895; Peyre and Cuturi, arXiv:1803.00567, section 4
    """
    check_settings(epsilon, iterations, tolerance, value)
    inputs = problem(cost, source, target, source_mask, target_mask)
    begin = warm_start(init, inputs.target)
    with torch.no_grad(), torch.autocast(inputs.cost.device.type, enabled=False):
        a, b = inputs.source.detach(), inputs.target.detach()
        chosen = choose(engine, inputs.cost)
        found = solve(chosen, inputs.cost.detach(), a, b, epsilon, iterations, tolerance, begin)
        if may_synchronize(found.f):  # by potentials, not costs, of which large ones may forbid a pair
            largest = torch.cat([found.f, found.g], 1).abs().amax() if found.f.numel() else torch.zeros(())
            check_precision(epsilon, found.f.dtype, float(largest))
        warn_unless_converged(found.error, epsilon, iterations, tolerance)
    number = transport_value(inputs, found.f, found.g, epsilon, value)
    bracket = fused(epsilon) if chosen == "c++" else balanced
    return entropic_plan(inputs, number, value, found, epsilon, tolerance, chosen, bracket)


def entropic_plan(
    inputs: Problem,
    number: Tensor,
    value_name: str,
    found: Potentials,
    epsilon: float,
    tolerance: float | None,
    engine: str,
    bracket: Bracket = balanced,
) -> Plan:
    """The Plan of potentials that iterations have found."""
    return Plan(
        problem=inputs,
        value=number,
        value_name=value_name,
        source_potential=found.f,
        target_potential=found.g,
        marginal_error=found.error,
        iterations=found.iterations,
        converged=found.error <= (tolerance or CONVERGED),
        engine=engine,
        make_matrix=gibbs(epsilon),
        bracket=bracket,
    )


def check_settings(epsilon: float, iterations: int, tolerance: float | None, value: str) -> None:
    """Raise TransportError for settings that no problem can be solved with."""
    if not 0 < epsilon < float("inf"):
        raise TransportError(
            f"epsilon must be above 0, got {epsilon} (for no smoothing use the exact solver)"
        )
    if iterations < 1:
        raise TransportError(f"iterations must be at least 1, got {iterations}")
    if tolerance is not None and not tolerance > 0:
        raise TransportError(f"tolerance must be above 0, or None for exactly `iterations`, got {tolerance}")
    if value not in ("dual", "primal", "entropic"):
        raise TransportError(f"value must be 'dual', 'primal' or 'entropic', not {value!r}")


def check_precision(epsilon: float, dtype: torch.dtype, largest: float) -> None:
    """Raise TransportError for an epsilon by which numbers of `largest` size cannot be told apart.

    The plan's exponents are sums of such numbers over epsilon. Their rounding puts its marginals off by about
    eps(dtype) largest / epsilon, which no marginal_error shows: 1e-3 in float32 at a ten-thousandth.
    """
    least = FINEST[dtype] * largest
    if epsilon < least:
        raise TransportError(
            f"epsilon {epsilon:g} is too small for {str(dtype).removeprefix('torch.')} beside costs or "
            f"potentials of {largest:.3g}: give {least:.1g} or more, or use the exact solver"
        )


def warm_start(init: Plan | None, target: Tensor) -> Tensor | None:
    if init is None:
        return None
    g = init.target_potential
    if g.shape != target.shape:
        raise TransportError(
            f"init is a plan of another shape: its target is {tuple(g.shape)}, not {tuple(target.shape)}"
        )
    return g.to(target)


def warn_unless_converged(
    error: Tensor, epsilon: float, iterations: int, tolerance: float | None, solver: str = "sinkhorn"
) -> None:
    if tolerance is not None and may_synchronize(error) and not (error <= tolerance).all():
        warnings.warn(
            f"{solver}: not every item reached marginal error {tolerance} in {iterations} iterations at "
            f"epsilon {epsilon}, and gradients there are off; Plan.converged says which. "
            "Give more iterations or a larger epsilon.",
            NotConverged,
            stacklevel=3,
        )
