"""The Sinkhorn divergence, by what makes it one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from avalign.ot import (
    Divergence,
    NotConverged,
    TransportError,
    cosine_cost,
    marginal_from,
    sinkhorn,
    sinkhorn_divergence,
    squared_euclidean_cost,
)
from tests.helpers.strategies import generator, quick, seeds
from tests.helpers.tolerances import TOLERANCES, assert_close

TIGHT = {"tolerance": 1e-9, "iterations": 5000}
costs = st.sampled_from([cosine_cost, squared_euclidean_cost])


def points(seed: int, n: int, b: int = 2) -> tuple[Tensor, Tensor]:
    """Features (b, n, 3) and uneven weights (b, n). In a cube of side 1: squared distances are at most 3,
    and every problem here converges to 1e-9 within 2,100 iterations at epsilon 0.5
    (strategies.transports)."""
    random = generator(seed)
    x = torch.rand(b, n, 3, generator=random, dtype=torch.float64) - 0.5
    return x, marginal_from(torch.rand(b, n, generator=random, dtype=torch.float64) + 0.1)


def divergence(x: Tensor, y: Tensor, a: Tensor, b: Tensor, cost=squared_euclidean_cost, **more) -> Divergence:
    return sinkhorn_divergence(cost(x, y), cost(x, x), cost(y, y), a, b, **{"epsilon": 0.5, **TIGHT, **more})


@quick
@given(seeds, st.integers(1, 5), st.integers(1, 5), costs)
def test_it_is_symmetric_and_not_below_zero_and_zero_for_equal_sets(seed: int, n: int, m: int, cost) -> None:
    (x, a), (y, b) = points(seed, n), points(seed + 1, m)
    there, back = divergence(x, y, a, b, cost), divergence(y, x, b, a, cost)
    near = TOLERANCES[torch.float64].absolute
    assert_close(there.value, back.value)
    assert (there.value > -near).all()
    order = torch.randperm(n, generator=generator(seed))
    assert (divergence(x, x[:, order], a, a[:, order], cost).value.abs() < near).all()
    assert there.converged.all()


@quick
@given(seeds)
def test_sets_that_differ_are_told_apart(seed: int) -> None:
    """Moved apart by v, two copies differ by |v|^2 under squared Euclidean cost, at any epsilon."""
    x, a = points(seed, 5)
    v = torch.tensor([1.0, -0.5, 0.25], dtype=torch.float64)
    assert_close(divergence(x, x + v, a, a).value, v.square().sum().expand(2))


def test_a_large_epsilon_draws_sinkhorn_to_the_middle_and_leaves_this() -> None:
    """The blurred cost is 0 nearest to a point in the middle; the divergence is 0 at the set itself."""
    x = 3 * points(0, 6)[0]
    middle = x.mean(1, keepdim=True).expand_as(x)
    plain = [sinkhorn(squared_euclidean_cost(x, y), epsilon=5.0).value for y in (x, middle)]
    assert (plain[0] > plain[1] + 1e-3).all()
    uniform = torch.full((2, 6), 1 / 6, dtype=torch.float64)
    assert (divergence(x, middle, uniform, uniform, epsilon=5.0).value > 0.01).all()
    assert (divergence(x, x, uniform, uniform, epsilon=5.0).value.abs() < 1e-9).all()


def test_it_is_made_of_three_duals() -> None:
    (x, a), (y, b) = points(0, 4), points(1, 3)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    b = marginal_from(b, mask)
    found = sinkhorn_divergence(
        *(squared_euclidean_cost(s, t) for s, t in ((x, y), (x, x), (y, y))),
        a, b, None, mask, epsilon=3.0, **TIGHT,
    )  # fmt: skip
    whole = [
        sinkhorn(squared_euclidean_cost(s, t), p, q, epsilon=3.0, **TIGHT).value
        for s, p, t, q in ((x, a, y, b), (x, a, x, a), (y, b, y, b))
    ]
    assert_close(found.value, whole[0] - (whole[1] + whole[2]) / 2)
    assert_close(
        torch.stack([p.value for p in (found.cross, found.source, found.target)]), torch.stack(whole)
    )


@pytest.mark.parametrize("part", ["cross", "source", "target"])
def test_it_converged_if_all_three_did(part: str) -> None:
    (x, a), (y, b) = points(0, 6), points(1, 6)
    found = divergence(x, y, a, b)
    assert found.converged.tolist() == [True, True]
    one_did_not = replace(getattr(found, part), converged=torch.tensor([True, False]))
    assert replace(found, **{part: one_did_not}).converged.tolist() == [True, False]


def test_a_set_onto_itself_says_when_it_did_not_converge() -> None:
    (x, a), (y, b) = points(0, 6), points(1, 6)
    with pytest.warns(NotConverged, match="1e-09 in 2 iterations"):
        found = divergence(x, y, a, b, iterations=2)
    assert not found.source.converged.any()
    assert_close(found.source.marginal_error, (found.source.matrix.sum(2) - a).abs().sum(1))


def test_the_gradient_is_that_of_the_value() -> None:
    def solve(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return divergence(x, y, marginal_from(a), marginal_from(b), tolerance=1e-13).value

    inputs = [points(0, 4)[0], points(1, 3)[0], points(2, 4)[1] * 3, points(3, 3)[1]]
    assert torch.autograd.gradcheck(solve, [x.requires_grad_() for x in inputs], atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2, 4, 3), (2, 3, 3), (2, 3, 3)), r"source_cost must have shape \(2, 4, 4\) .* got \(2, 3, 3\)"),
        (((2, 4, 3), (2, 4, 4), (1, 3, 3)), r"target_cost must have shape \(2, 3, 3\) .* got \(1, 3, 3\)"),
    ],
)
def test_costs_that_do_not_fit_are_named(shapes, message: str) -> None:
    with pytest.raises(TransportError, match=message):
        sinkhorn_divergence(*(torch.zeros(shape) for shape in shapes))


class TestMarginalFrom:
    def test_it_normalises_what_is_real(self) -> None:
        weights = torch.tensor([[1.0, 3.0, torch.nan], [0.0, 2.0, 6.0]])
        mask = torch.tensor([[True, True, False], [True, True, True]])
        assert_close(marginal_from(weights, mask), [[0.25, 0.75, 0.0], [0.0, 0.25, 0.75]], torch.float32)

    @pytest.mark.parametrize("value", ["dual", "primal"])
    def test_its_gradient_goes_through_the_value(self, value: str) -> None:
        """Weights of any sum, to a value: scaling them changes nothing, and no gradient says it would."""
        cost = torch.rand(2, 4, 3, generator=generator(0), dtype=torch.float64)
        mask = torch.tensor([[True, True, True, False], [True, True, True, True]])

        def solve(weights: Tensor) -> Tensor:
            plan = sinkhorn(
                cost, marginal_from(weights, mask), None, mask,
                epsilon=0.2, tolerance=1e-13, iterations=5000, value=value,
            )  # fmt: skip
            return plan.value

        weights = (torch.rand(2, 4, generator=generator(1), dtype=torch.float64) + 0.1).requires_grad_()
        assert torch.autograd.gradcheck(solve, [weights], atol=1e-7, rtol=1e-5)
        (gradient,) = torch.autograd.grad(solve(weights).sum(), weights)
        assert_close((gradient * weights).sum(1), torch.zeros(2))
        assert gradient[mask].abs().min() > 1e-4
        assert gradient[0, 3] == 0

    @pytest.mark.parametrize(
        ("weights", "message"),
        [
            (
                torch.tensor([[1.0, 1.0], [0.0, 0.0]]),
                r"weights must have some mass: item\(s\) \[1\] have none",
            ),
            (torch.tensor([[1.0, -1.0]]), r"not negative: see item\(s\) \[0\]"),
            (torch.ones(3), r"of shape \(batch, k\), got torch.float32 of shape \(3,\)"),
        ],
    )
    def test_weights_that_are_none_are_named(self, weights: Tensor, message: str) -> None:
        with pytest.raises(TransportError, match=message):
            marginal_from(weights)
