"""Every set against every set: the one optimum, its limits and its gradient."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import ot as pot
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from avalign.ot import NotConverged, TransportError, all_pairs, cosine_cost, sinkhorn, unbalanced
from tests.helpers.strategies import generator, quick, seeds
from tests.helpers.token_sets import INF, PRICES, fine, sets
from tests.helpers.tolerances import assert_close


def cost_of(x: Tensor, y: Tensor, i: int, j: int) -> Tensor:
    return cosine_cost(x[i][None], y[j][None])[0]


@pytest.mark.parametrize(("rho_source", "rho_target"), PRICES)
@given(seed=seeds, epsilon=st.sampled_from([1.0, 0.1, 0.05]))
@quick
def test_the_plan_is_the_one_optimum(seed: int, epsilon: float, rho_source: float, rho_target: float) -> None:
    """T = a b exp((f + g - C) / epsilon) with marginals a exp(-f / rho) and b exp(-g / rho): only the optimum
    has all three. Held (rho inf): a itself; free (rho 0): f is 0."""
    inputs = sets(seed)
    found = all_pairs(
        *inputs.to(torch.float64), epsilon=epsilon, rho_source=rho_source, rho_target=rho_target, **fine
    )
    assert found.converged.all()
    for i in range(3):
        for j in range(4):
            f, g, plan = found.f[i, j], found.g[i, j], found.plan(i, j)
            a, b = inputs.source[i], inputs.target[j]
            exponent = (f[:, None] + g[None] - cost_of(inputs.x, inputs.y, i, j)) / epsilon
            assert_close(plan, a[:, None] * b * exponent.exp())
            for potential, mass, carried, rho in (
                (f, a, plan.sum(1), rho_source),
                (g, b, plan.sum(0), rho_target),
            ):
                if rho == 0:
                    assert (potential == 0).all()
                else:
                    assert_close(carried, mass * (1 if rho == INF else (-potential / rho).exp()))


@pytest.mark.parametrize(("rho_source", "rho_target"), PRICES)
def test_the_value_is_the_minimum_of_what_is_minimised(rho_source: float, rho_target: float) -> None:
    """<T, C> and all KL terms of the plan, worked out from the plan."""
    inputs = sets(3)
    found = all_pairs(
        *inputs.to(torch.float64), epsilon=0.1, rho_source=rho_source, rho_target=rho_target, **fine
    )

    def kl(p: Tensor, q: Tensor) -> Tensor:
        return (torch.special.xlogy(p, p / q.clamp(min=1e-300)) - p + q).sum()

    for i in range(3):
        for j in range(4):
            plan, a, b = found.plan(i, j), inputs.source[i], inputs.target[j]
            total = (plan * cost_of(inputs.x, inputs.y, i, j)).sum() + 0.1 * kl(plan, a[:, None] * b)
            for carried, mass, rho in ((plan.sum(1), a, rho_source), (plan.sum(0), b, rho_target)):
                total = total + (0 if rho in (0, INF) else rho * kl(carried, mass))
            assert_close(found.value[i, j], total)


def test_it_is_the_solvers_of_single_pairs() -> None:
    inputs = sets(5, r=4)
    x, y, source, target, *_ = inputs.to(torch.float64)
    cost = cosine_cost(x, y)
    own = all_pairs(x, y, source, target, epsilon=0.1, **fine).value.diagonal()
    assert_close(own, sinkhorn(cost, source, target, epsilon=0.1, **fine).value)
    own = all_pairs(
        x, y, source, target, epsilon=0.1, rho_source=0.2, rho_target=0.2, **fine
    ).value.diagonal()
    assert_close(own, unbalanced(cost, source, target, epsilon=0.1, rho=0.2, **fine).value)


def test_pot_with_the_same_reference_measure_has_the_same_plan() -> None:
    inputs = sets(6)
    found = all_pairs(*inputs.to(torch.float64), epsilon=0.1, rho_source=0.05, rho_target=0.3, **fine)
    for i, j in ((0, 0), (2, 3), (1, 2)):
        real, there = inputs.source[i] > 0, inputs.target[j] > 0
        a, b = inputs.source[i][real].numpy(), inputs.target[j][there].numpy()
        cost = cost_of(inputs.x, inputs.y, i, j)[real][:, there].numpy()
        plan = pot.unbalanced.sinkhorn_unbalanced(
            a, b, cost, 0.1, (0.05, 0.3), reg_type="kl", c=np.outer(a, b), numItermax=10_000, stopThr=1e-13
        )
        assert_close(found.plan(i, j)[real][:, there], torch.from_numpy(plan))


def test_towards_no_smoothing_it_is_exact_unbalanced_transport() -> None:
    """POT's majorisation for KL marginals, which has no smoothing."""
    inputs = sets(7, n=4, m=3)
    given = inputs.to(torch.float64)
    found = all_pairs(*given, epsilon=2e-3, rho_source=0.5, rho_target=0.5, tolerance=1e-7, iterations=50_000)
    for i, j in ((0, 1), (1, 3)):
        cost = cost_of(inputs.x, inputs.y, i, j).numpy()
        a, b = inputs.source[i].numpy(), inputs.target[j].numpy()
        plan = pot.unbalanced.mm_unbalanced(a, b, cost, 0.5, div="kl", numItermax=50_000, stopThr=1e-12)
        torch.testing.assert_close(found.plan(i, j), torch.from_numpy(plan), atol=5e-3, rtol=0)


@given(seed=seeds)
@quick
def test_free_against_held_is_the_soft_minimum_of_every_column(seed: int) -> None:
    inputs = sets(seed)
    found = all_pairs(*inputs.to(torch.float64), epsilon=0.1, rho_source=0, **fine)
    for i in range(3):
        for j in range(4):
            cost = cost_of(inputs.x, inputs.y, i, j)
            least = -0.1 * torch.logsumexp(inputs.source[i].log()[:, None] - cost / 0.1, 0)
            assert_close(found.value[i, j], (inputs.target[j] * least).sum())


@pytest.mark.parametrize(("near", "limit"), [(1e-9, 0.0), (1e9, INF)])
def test_the_limits_of_a_price_are_where_prices_go(near: float, limit: float) -> None:
    inputs = sets(8).to(torch.float64)
    for other in (INF, 0.1):
        close = all_pairs(*inputs, epsilon=0.1, rho_source=near, rho_target=other, **fine)
        there = all_pairs(*inputs, epsilon=0.1, rho_source=limit, rho_target=other, **fine)
        torch.testing.assert_close(close.value, there.value, atol=1e-7, rtol=1e-7)


class TestGradient:
    @pytest.mark.parametrize(("rho_source", "rho_target"), PRICES)
    def test_is_that_of_finite_differences(self, rho_source: float, rho_target: float) -> None:
        """To features, and to marginals (of any mass where a side is not held; normalised where both are)."""
        inputs = sets(9, r=2, c=3, n=4, m=3, d=4)
        leaves = [each.clone().requires_grad_() for each in (inputs.x, inputs.y)]
        leaves += [
            (torch.rand(each.shape, generator=generator(1), dtype=torch.float64) + 0.2).requires_grad_()
            for each in (inputs.source, inputs.target)
        ]

        def values(x: Tensor, y: Tensor, source: Tensor, target: Tensor) -> Tensor:
            source, target = (
                torch.where(mask, each, 0)
                for each, mask in ((source, inputs.x_mask), (target, inputs.y_mask))
            )
            source, target = (each / each.sum(1, keepdim=True) for each in (source, target))
            masks = inputs.x_mask, inputs.y_mask
            return all_pairs(
                x, y, source, target, *masks, epsilon=0.2, rho_source=rho_source, rho_target=rho_target,
                tolerance=1e-12, iterations=50_000,
            ).value  # fmt: skip

        assert torch.autograd.gradcheck(values, tuple(leaves), atol=1e-6, rtol=1e-4)

    @pytest.mark.parametrize(("rho_source", "rho_target"), [(0.05, 0.1), (0.0, 0.1)])
    def test_reaches_the_mass_of_marginals_that_may_have_any(
        self, rho_source: float, rho_target: float
    ) -> None:
        inputs = sets(10, r=2, c=2)
        masses = [
            (torch.rand(each.shape, generator=generator(2), dtype=torch.float64) + 0.2).requires_grad_()
            for each in (inputs.source, inputs.target)
        ]

        def values(source: Tensor, target: Tensor) -> Tensor:
            return all_pairs(
                inputs.x, inputs.y, source, target, epsilon=0.2, rho_source=rho_source,
                rho_target=rho_target, tolerance=1e-12, iterations=50_000,
            ).value  # fmt: skip

        assert torch.autograd.gradcheck(values, tuple(masses), atol=1e-6, rtol=1e-4)

    def test_goes_no_further(self) -> None:
        x, y, *_ = sets(11).to(torch.float64)
        x.requires_grad_()
        (slope,) = torch.autograd.grad(all_pairs(x, y).value.sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="no gradient of its gradient"):
            slope.sum().backward()


class TestInvariances:
    @given(seed=seeds)
    @quick
    def test_the_order_of_tokens_and_of_sets_says_nothing(self, seed: int) -> None:
        x, y, source, target, *masks = sets(seed).to(torch.float64)
        here = all_pairs(x, y, source, target, *masks, rho_source=0.05, **fine).value
        order = [torch.randperm(k, generator=generator(seed)) for k in (5, 3, 4)]
        moved = all_pairs(
            x[:, order[0]], y[order[2]][:, order[1]], source[:, order[0]], target[order[2]][:, order[1]],
            masks[0][:, order[0]], masks[1][order[2]][:, order[1]], rho_source=0.05, **fine,
        ).value  # fmt: skip
        assert_close(moved, here[:, order[2]])

    @pytest.mark.parametrize("engine", ["c++", "torch"])
    def test_what_is_masked_may_hold_anything(self, engine: Any) -> None:
        x, y, source, target, x_mask, y_mask = sets(15).to(torch.float32)
        x_bad = torch.where(x_mask[:, :, None], x, torch.nan).requires_grad_()
        y_bad = torch.where(y_mask[:, :, None], y, torch.inf).requires_grad_()
        clean = all_pairs(x, y, source, target, x_mask, y_mask, rho_source=0.05, engine=engine).value
        found = all_pairs(x_bad, y_bad, source, target, x_mask, y_mask, rho_source=0.05, engine=engine).value
        torch.testing.assert_close(found, clean, atol=0, rtol=0)
        found.sum().backward()
        assert (x_bad.grad[~x_mask] == 0).all()
        assert (y_bad.grad[~y_mask] == 0).all()
        assert x_bad.grad.isfinite().all()

    @pytest.mark.parametrize("engine", ["c++", "torch"])
    def test_tokens_without_mass_are_as_tokens_that_are_not_there(self, engine: Any) -> None:
        x, y, *_ = sets(16, n=6).to(torch.float32)
        weights = torch.tensor([0.5, 0.2, 0.3, 0, 0, 0]).expand(3, 6)
        found = all_pairs(x, y, weights, rho_source=0.05, engine=engine)
        alone = all_pairs(x[:, :3], y, weights[:, :3], rho_source=0.05, engine=engine)
        assert_close(found.value, alone.value, torch.float32)


@pytest.mark.parametrize("engine", ["c++", "torch"])
def test_a_warm_start_is_quicker_and_changes_nothing_beyond_the_tolerance(engine: Any) -> None:
    x, y, source, target, *masks = sets(17, n=20, m=12).to(torch.float32)
    options: dict[str, Any] = {"epsilon": 0.05, "engine": engine, "tolerance": 1e-4, "iterations": 5000}
    before = all_pairs(x, y, source, target, *masks, **options)
    moved = x + 0.01 * torch.randn(x.shape, generator=generator(5))
    cold = all_pairs(moved, y, source, target, *masks, **options)
    warm = all_pairs(moved, y, source, target, *masks, **options, init=before)
    assert warm.iterations.sum() < 0.8 * cold.iterations.sum()
    torch.testing.assert_close(warm.value, cold.value, atol=1e-4, rtol=1e-4)
    with pytest.raises(TransportError, match=r"init has potentials of shape \(3, 4, 12\)"):
        all_pairs(x[:2], y, init=before)


@pytest.mark.parametrize("engine", ["c++", "torch"])
def test_iterations_that_do_not_suffice_are_said(engine: Any) -> None:
    x, y, *_ = sets(18).to(torch.float32)
    with pytest.warns(NotConverged, match="all_pairs: not every item reached"):
        found = all_pairs(x, y, epsilon=0.05, iterations=2, tolerance=1e-6, engine=engine)
    assert not found.converged.all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (all_pairs(x, y, iterations=3, tolerance=None, engine=engine).iterations == 3).all()


X, Y = torch.ones(2, 3, 4), torch.ones(5, 6, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.ones(2, 4), Y), r"features must be \(r, n, d\) and \(c, m, d\)"),
        ((torch.ones(2, 3, 5), Y), r"got shapes \(2, 3, 5\) and \(5, 6, 4\)"),
        ((torch.ones(0, 3, 4), Y), "there must be a set, a token and a dimension"),
        ((X.int(), Y), "must be floating point"),
        (
            (X * torch.nan, Y),
            r"x holds NaN, infinity, or tokens too long for torch.float32 in item\(s\) \[0, 1\]",
        ),
        ((X, Y * 1e30), r"y holds NaN, infinity, or tokens too long"),
        ((X, Y, torch.zeros(2, 3)), r"source must sum to 1"),
        ((X, Y, None, torch.full((5, 6), -1.0)), "target must be finite and not negative"),
        (
            (X, Y, None, None, torch.zeros(2, 3, dtype=torch.bool)),
            r"every entry is masked in item\(s\) \[0, 1\]",
        ),
        ((X, Y, None, None, torch.ones(2, 3)), "source_mask must be bool"),
        ((X, Y, torch.ones(3, 3)), r"source must have shape \(2, 3\)"),
    ],
)
def test_bad_input_is_one_line(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(TransportError, match=message):
        all_pairs(*arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rho_source": -1}, r"rho_source must be 0 \(free\) or above"),
        ({"rho_target": math.nan}, "rho_target must be 0"),
        ({"epsilon": 0}, "epsilon"),
        ({"iterations": 0}, "iterations"),
        ({"rho_source": 0.1, "source": torch.zeros(2, 3)}, "source must have some mass"),
    ],
)
def test_bad_options_are_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TransportError, match=message):
        all_pairs(X, Y, **options)
