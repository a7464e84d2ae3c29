"""What every solver promises alike: masks are nothing, items do not meet, bad input is named."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial as bind

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from avalign.ot import (
    Plan,
    TransportError,
    by_geomloss,
    exact,
    ipot,
    partial,
    sinkhorn,
    sinkhorn_divergence,
    unbalanced,
)
from tests.helpers.strategies import Transport, generator, quick, transports
from tests.helpers.tolerances import assert_close

TIGHT = {"epsilon": 0.1, "tolerance": 1e-10, "iterations": 1000}
SOLVERS: dict[str, Callable[..., Plan]] = {
    "sinkhorn": bind(sinkhorn, **TIGHT),
    "exact": exact,
    "unbalanced": bind(unbalanced, rho=0.5, **TIGHT),
    "unbalanced, primal": bind(unbalanced, rho=0.5, value="primal", **TIGHT),
    "partial": bind(partial, mass=0.6, **TIGHT),
    "partial, exact": bind(partial, mass=0.6, backend="exact"),
    "ipot": ipot,
    "ipot, threshold": bind(ipot, threshold=0.1),
    "geomloss": by_geomloss,
}
needs_geomloss = pytest.mark.skipif(
    importlib.util.find_spec("geomloss") is None, reason="geomloss is not installed"
)
every = pytest.mark.parametrize(
    "solve",
    [
        pytest.param(s, id=name, marks=needs_geomloss if name == "geomloss" else ())
        for name, s in SOLVERS.items()
    ],
)


def random_cost(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=generator(seed), dtype=torch.float64)


def padded(problem: Transport, rows: int, columns: int, junk: float) -> Transport:
    """The same problem with masked tokens, whose cost and weight are anything."""
    b, n, m = problem.cost.shape
    cost = torch.full((b, n + rows, m + columns), junk, dtype=torch.float64)
    cost[:, :n, :m] = problem.cost
    more = Transport(cost)
    for side, size, extra in (("source", n, rows), ("target", m, columns)):
        weights, mask = getattr(problem, side), getattr(problem, f"{side}_mask")
        mask = torch.ones(b, size, dtype=torch.bool) if mask is None else mask
        setattr(more, f"{side}_mask", torch.cat([mask, torch.zeros(b, extra, dtype=torch.bool)], 1))
        if weights is not None:
            setattr(more, side, torch.cat([weights, torch.full((b, extra), 0.5)], 1))
    return more


@every
class TestSolver:
    @quick
    @given(transports(), st.integers(0, 3), st.integers(0, 3), st.sampled_from([torch.nan, torch.inf, 7.0]))
    def test_padding_is_nothing_whatever_it_holds(
        self, solve, problem: Transport, rows: int, columns: int, junk: float
    ) -> None:
        n, m = problem.cost.shape[1:]
        plain = solve(**problem.arguments())
        wide = padded(problem, rows, columns, junk)
        plan = solve(**wide.arguments() | {"cost": wide.cost.requires_grad_()})
        assert_close(plan.value, plain.value)
        assert (plan.iterations == plain.iterations).all()
        for one, other in ((plan.lower, plain.lower), (plan.upper, plain.upper)):
            assert_close(one, other)
        outside = plan.matrix.clone()
        outside[:, :n, :m] = 0
        assert (outside == 0).all()
        (gradient,) = torch.autograd.grad(plan.value.sum(), wide.cost)
        assert gradient.isfinite().all()
        gradient[:, :n, :m] = 0
        assert (gradient == 0).all()

    def test_a_weight_of_zero_is_a_mask(self, solve) -> None:
        cost, weights = random_cost(2, 4, 3), torch.tensor([[0.3, 0.0, 0.7], [0.5, 0.5, 0.0]])
        spoilt = cost.masked_fill(weights[:, None, :] == 0, torch.nan).requires_grad_()
        plan = solve(spoilt, target=weights)
        masked = solve(cost, target=weights, target_mask=weights > 0)
        assert_close(plan.value, masked.value)
        (gradient,) = torch.autograd.grad(plan.value.sum(), spoilt)
        assert gradient.isfinite().all()

    def test_an_item_does_not_depend_on_its_neighbours(self, solve) -> None:
        cost = random_cost(4, 6, 5) * torch.tensor([0.02, 0.3, 1, 3], dtype=torch.float64)[:, None, None]
        together = solve(cost)
        for k in range(4):
            alone = solve(cost[k : k + 1])
            assert together.iterations[k] == alone.iterations[0]
            for name in ("value", "matrix", "marginal_error", "lower", "upper"):
                assert_close(getattr(together, name)[k], getattr(alone, name)[0])

    @pytest.mark.filterwarnings("ignore::avalign.ot.NotConverged")  # 1e-10 is beyond float32
    def test_single_precision_is_answered_in_kind(self, solve) -> None:
        cost = random_cost(3, 7, 5)
        single, double = (solve(c.requires_grad_()) for c in (cost.float(), cost))
        assert single.value.dtype == single.matrix.dtype == single.lower.dtype == torch.float32
        assert double.value.dtype == double.matrix.dtype == double.lower.dtype == torch.float64
        assert_close(single.value, double.value, torch.float32)

    def test_it_is_differentiated_once_and_refuses_twice(self, solve) -> None:
        cost = random_cost(2, 4, 3).requires_grad_()
        (slope,) = torch.autograd.grad(solve(cost).value.square().sum(), cost, create_graph=True)
        with pytest.raises(RuntimeError, match="no gradient of its gradient"):
            slope.sum().backward()

    def test_nothing_else_carries_gradient(self, solve) -> None:
        plan = solve(random_cost(2, 4, 3).requires_grad_())
        for name in ("matrix", "source_potential", "target_potential", "marginal_error", "lower", "upper"):
            assert not getattr(plan, name).requires_grad, name

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"cost": random_cost(4, 2)}, r"\(batch, n, m\), got shape \(4, 2\)"),
            ({"cost": random_cost(3, 4, 2).index_fill(0, torch.tensor([2]), torch.nan)}, r"item\(s\) \[2\]"),
            (
                {"target": torch.tensor([[0.5, 0.5]] * 2 + [[1.5, -0.5]])},
                r"not negative: see item\(s\) \[2\]",
            ),
            (
                {"target_mask": torch.tensor([[True] * 2, [False] * 2, [True] * 2])},
                r"masked in item\(s\) \[1\]",
            ),
            ({"source": torch.ones(3, 3) / 3}, r"source must have shape \(3, 4\), got \(3, 3\)"),
        ],
    )
    def test_a_problem_without_an_answer_is_named(self, solve, changes: dict, message: str) -> None:
        with pytest.raises(TransportError, match=message):
            solve(**{"cost": random_cost(3, 4, 2)} | changes)


@quick
@given(transports(), st.integers(0, 3), st.sampled_from([torch.nan, 7.0]))
def test_padding_is_nothing_to_the_divergence_either(problem: Transport, more: int, junk: float) -> None:
    b, n, m = problem.cost.shape
    within = [random_cost(b, k, k, seed=k) for k in (n, m)]
    within = [c + c.transpose(1, 2) for c in within]
    marginals = problem.marginals()
    masks = [w > 0 for w in marginals]
    plain = sinkhorn_divergence(problem.cost, *within, *marginals, *masks, epsilon=0.5)
    wide = padded(problem, more, more, junk).cost
    inner = [padded(Transport(c), more, more, junk).cost for c in within]
    weights = [torch.nn.functional.pad(w, (0, more)) for w in marginals]
    masks = [torch.nn.functional.pad(w, (0, more)) for w in masks]
    assert_close(sinkhorn_divergence(wide, *inner, *weights, *masks, epsilon=0.5).value, plain.value)


def test_sets_that_are_no_sets_are_refused_by_the_divergence() -> None:
    lopsided = random_cost(2, 3, 3)
    lopsided[0] = lopsided[0] + lopsided[0].T
    with pytest.raises(TransportError, match=r"source_cost must be symmetric: item\(s\) \[1\] are not"):
        sinkhorn_divergence(random_cost(2, 3, 4), lopsided, torch.zeros(2, 4, 4))
