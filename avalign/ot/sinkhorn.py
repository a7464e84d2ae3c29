"""Entropic optimal transport by Sinkhorn's rounds: batched, masked, each item stopped by itself."""

from __future__ import annotations

import warnings
from typing import Literal

import torch
from torch import Tensor

from avalign.ot.certificate import Bracket, balanced, fused
from avalign.ot.engine import Engine, choose, solve
from avalign.ot.gradient import transport_value
from avalign.ot.plan import Plan, gibbs
from avalign.ot.problem import Problem, TransportError, may_look, problem
from avalign.ot.rounds import Potentials

ValueName = Literal["dual", "primal", "entropic"]
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
    rounds: int = 1000,
    tolerance: float | None = 1e-3,
    value: ValueName = "dual",
    start: Plan | None = None,
    engine: Engine = "auto",
) -> Plan:
    """The plan T = source_i target_j exp((f_i + g_j - C_ij) / epsilon) that has the given marginals.

        argmin over T in Pi(source, target) of <T, C> + epsilon KL(T | source x target)

    The rows of the plan are exact, its columns off by at most `tolerance` (L1) where converged. An item's
    answer does not depend on its neighbours in the batch: it stops when it is done. Rounds are relaxed and
    small epsilons approached from larger ones (avalign/ot/rounds.py); tolerance=None does exactly `rounds`
    of Sinkhorn's own.

    value:  "dual", the minimum itself; "primal", <T, C> at that T; "entropic", the dual without the
            marginals' own entropy, <T, C> + epsilon sum T log T. Dual and primal are above the exact cost
            and below source' C target; each carries the gradient that is its own
    start:  a plan of a like problem, to begin from its potentials
    engine: "c++", built on first use where there is a compiler, for float32 on a CPU; "torch", anywhere;
            "auto", the fastest of them that can run (Plan.engine says which did)

    Shapes: cost (b, n, m); source, source_mask (b, n); target, target_mask (b, m), True where real
    Source: Cuturi, arXiv:1306.0895; Peyre and Cuturi, arXiv:1803.00567, section 4
    """
    check_settings(epsilon, rounds, tolerance, value)
    given = problem(cost, source, target, source_mask, target_mask)
    begin = start_potential(start, given.target)
    with torch.no_grad(), torch.autocast(given.cost.device.type, enabled=False):
        a, b = given.source.detach(), given.target.detach()
        chosen = choose(engine, given.cost)
        found = solve(chosen, given.cost.detach(), a, b, epsilon, rounds, tolerance, begin)
        warn_unless_converged(found.error, epsilon, rounds, tolerance)
    number = transport_value(given, found.f, found.g, epsilon, value)
    bracket = fused(epsilon) if chosen == "c++" else balanced
    return entropic_plan(given, number, value, found, epsilon, tolerance, chosen, bracket)


def entropic_plan(
    given: Problem,
    number: Tensor,
    value_name: str,
    found: Potentials,
    epsilon: float,
    tolerance: float | None,
    engine: str,
    bracket: Bracket = balanced,
) -> Plan:
    """The Plan of potentials that rounds have found."""
    return Plan(
        problem=given,
        value=number,
        value_name=value_name,
        source_potential=found.f,
        target_potential=found.g,
        marginal_error=found.error,
        rounds=found.rounds,
        converged=found.error <= (tolerance or CONVERGED),
        engine=engine,
        make_matrix=gibbs(epsilon),
        bracket=bracket,
    )


def check_settings(epsilon: float, rounds: int, tolerance: float | None, value: str) -> None:
    """Raise TransportError for settings that no problem can be solved with."""
    if not 0 < epsilon < float("inf"):
        raise TransportError(
            f"epsilon must be above 0, got {epsilon} (for no smoothing use the exact solver)"
        )
    if rounds < 1:
        raise TransportError(f"rounds must be at least 1, got {rounds}")
    if tolerance is not None and not tolerance > 0:
        raise TransportError(f"tolerance must be above 0, or None for exactly `rounds`, got {tolerance}")
    if value not in ("dual", "primal", "entropic"):
        raise TransportError(f"value must be 'dual', 'primal' or 'entropic', not {value!r}")


def start_potential(start: Plan | None, target: Tensor) -> Tensor | None:
    if start is None:
        return None
    g = start.target_potential
    if g.shape != target.shape:
        raise TransportError(
            f"start is a plan of another shape: its target is {tuple(g.shape)}, not {tuple(target.shape)}"
        )
    return g.to(target)


def warn_unless_converged(
    error: Tensor, epsilon: float, rounds: int, tolerance: float | None, solver: str = "sinkhorn"
) -> None:
    if tolerance is not None and may_look(error) and not (error <= tolerance).all():
        warnings.warn(
            f"{solver}: not every item reached marginal error {tolerance} in {rounds} rounds at epsilon "
            f"{epsilon}, and gradients there are off; Plan.converged says which. "
            "Give more rounds or a larger epsilon.",
            NotConverged,
            stacklevel=3,
        )
