"""Partial transport against POT's, its definition, and the balanced problem that it becomes."""

from __future__ import annotations

import numpy as np
import ot as pot
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from avalign.ot import TransportError, exact, partial, sinkhorn
from tests.helpers.strategies import Transport, generator, quick, transports
from tests.helpers.tolerances import assert_close

TIGHT = {"tolerance": 1e-11, "iterations": 5000}
carried = st.sampled_from([0.05, 0.3, 0.5, 0.9])


def random_cost(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=generator(seed), dtype=torch.float64)


def by_pot(problem: Transport, mass: float) -> list[float]:
    answers = []
    for c, a, b in zip(problem.cost, *problem.marginals(), strict=True):
        i, j = a > 0, b > 0
        a, b = (a[i] / a[i].sum()).numpy(), (b[j] / b[j].sum()).numpy()
        c = np.ascontiguousarray(c[i][:, j].numpy())
        answers.append(float((pot.partial.partial_wasserstein(a, b, c, m=mass) * c).sum()))
    return answers


class TestExact:
    @quick
    @given(transports(), carried)
    def test_it_is_pots(self, problem: Transport, mass: float) -> None:
        plan = partial(**problem.arguments(), mass=mass, backend="exact")
        assert_close(plan.value, by_pot(problem, mass))
        assert_close((plan.matrix * problem.cost).sum((1, 2)), plan.value)
        self.assert_feasible(plan.matrix, problem, mass)
        assert_close(plan.lower, plan.value)
        assert_close(plan.upper, plan.value)

    def assert_feasible(self, matrix: Tensor, problem: Transport, mass: float) -> None:
        source, target = problem.marginals()
        assert (matrix >= 0).all()
        assert (matrix.sum(2) <= source + 1e-9).all()
        assert (matrix.sum(1) <= target + 1e-9).all()
        assert_close(matrix.sum((1, 2)), torch.full((len(matrix),), mass, dtype=torch.float64))

    @quick
    @given(transports())
    def test_all_of_it_is_the_balanced_problem(self, problem: Transport) -> None:
        whole = exact(**problem.arguments())
        plan = partial(**problem.arguments(), mass=1.0, backend="exact")
        assert_close(plan.value, whole.value)
        assert_close(plan.matrix.sum(1), whole.matrix.sum(1))

    @pytest.mark.parametrize("shift", [-3.0, 0.0])
    def test_costs_may_be_zero_or_below(self, shift: float) -> None:
        """Then dummies that exchange mass would be paid for: they may not."""
        cost = shift * torch.ones(1, 3, 4, dtype=torch.float64)
        for backend, near in (("exact", 1e-12), ("sinkhorn", 1e-8)):
            plan = partial(cost, mass=0.25, backend=backend, value="primal", epsilon=0.05, **TIGHT)
            assert abs(plan.matrix.sum() - 0.25) < near
            assert abs(plan.value - 0.25 * shift) < 10 * near


class TestSinkhorn:
    @quick
    @given(transports(), carried)
    def test_it_carries_what_it_is_told_and_no_more_than_there_is(
        self, problem: Transport, mass: float
    ) -> None:
        plan = partial(**problem.arguments(), mass=mass, epsilon=0.1, **TIGHT)
        assert plan.converged.all()
        TestExact().assert_feasible(plan.matrix, problem, mass)
        best = torch.tensor(by_pot(problem, mass), dtype=torch.float64)
        assert ((plan.matrix * problem.cost).sum((1, 2)) >= best - 1e-9).all()
        assert (plan.lower <= best + 1e-9).all()
        assert (best <= plan.upper + 1e-9).all()

    @quick
    @given(transports(), carried)
    def test_its_plan_is_smoothed_as_it_says(self, problem: Transport, mass: float) -> None:
        """The optimum of the extended problem, whose dummies receive what is left of row i and column j:
        T_ij / (left_i left_j) is exp(-C_ij / epsilon) times one number for all i and j."""
        epsilon = 0.2
        plan = partial(**problem.arguments(), mass=mass, epsilon=epsilon, **TIGHT)
        source, target = problem.marginals()
        left = (source - plan.matrix.sum(2))[:, :, None] * (target - plan.matrix.sum(1))[:, None, :]
        real = (source > 0)[:, :, None] & (target > 0)[:, None, :]
        for t, c, share, here in zip(plan.matrix, problem.cost, left, real, strict=True):
            price = (t.log() + c / epsilon - share.log())[here]
            assert_close(price, price[:1].expand_as(price), torch.float32)

    @quick
    @given(transports(), st.sampled_from(["dual", "primal"]))
    def test_all_of_it_is_the_balanced_problem(self, problem: Transport, value: str) -> None:
        whole = sinkhorn(**problem.arguments(), epsilon=0.1, value=value, **TIGHT)
        plan = partial(**problem.arguments(), mass=1.0, epsilon=0.1, value=value, **TIGHT)
        assert_close(plan.value, whole.value)
        assert_close(plan.matrix, whole.matrix)
        assert_close(plan.lower, whole.lower)

    def test_it_nears_the_exact_answer_as_epsilon_falls(self) -> None:
        cost = random_cost(3, 12, 9)
        best = partial(cost, mass=0.6, backend="exact").value
        gaps = []
        for epsilon in (0.1, 0.02, 0.004):
            plan = partial(cost, mass=0.6, epsilon=epsilon, value="primal", iterations=20_000)
            gaps.append(((plan.value - best) / best).mean())
            assert ((plan.upper - best) >= -1e-9).all()
        assert gaps[0] > 3 * gaps[1] > 9 * gaps[2] > 0
        assert gaps[2] < 0.02

    def test_a_mass_for_each_item(self) -> None:
        cost, mass = random_cost(3, 5, 4), torch.tensor([0.1, 0.7, 1.0], dtype=torch.float64)
        for backend in ("sinkhorn", "exact"):
            together = partial(cost, mass=mass, backend=backend, **TIGHT)
            assert_close(together.matrix.sum((1, 2)), mass)
            for k in range(3):
                alone = partial(cost[k : k + 1], mass=mass[k].item(), backend=backend, **TIGHT)
                assert_close(together.value[k], alone.value[0])

    @pytest.mark.parametrize("epsilon", [0.002, 0.05])
    def test_single_precision_survives(self, epsilon: float) -> None:
        cost = random_cost(4, 30, 20).float() * 2
        plan = partial(cost, mass=0.5, epsilon=epsilon, iterations=3000)
        reference = partial(cost.double(), mass=0.5, epsilon=epsilon, iterations=3000)
        assert plan.converged.all()
        assert plan.matrix.isfinite().all()
        assert (plan.value - reference.value).abs().max() < 2 * epsilon * 1e-3 + 1e-5


@pytest.mark.parametrize(
    ("backend", "value"), [("sinkhorn", "dual"), ("sinkhorn", "primal"), ("exact", "dual")]
)
def test_the_gradient_is_that_of_the_value(backend: str, value: str) -> None:
    def solve(cost: Tensor, source: Tensor, target: Tensor, mass: Tensor) -> Tensor:
        return partial(
            cost, source.softmax(1), target.softmax(1), mass=mass,
            backend=backend, value=value, epsilon=0.2, tolerance=1e-13, iterations=5000,
        ).value  # fmt: skip

    inputs = [random_cost(2, 4, 3, seed=1), random_cost(2, 4, seed=2), random_cost(2, 3, seed=3)]
    inputs.append(torch.tensor([0.3, 0.8], dtype=torch.float64))
    assert torch.autograd.gradcheck(solve, [x.requires_grad_() for x in inputs], atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mass": 0.0}, r"mass must be above 0 and at most 1: item\(s\) \[0, 1\] have \[0.0, 0.0\]"),
        ({"mass": torch.tensor([0.5, 1.2])}, r"item\(s\) \[1\] have \[1.2\]"),
        ({"mass": float("nan")}, "mass must be above 0"),
        ({"mass": torch.ones(3)}, r"mass must be a number or of shape \(2,\), got \(3,\)"),
        ({"mass": 0.5, "backend": "pot"}, "backend must be 'sinkhorn' or 'exact', not 'pot'"),
        ({"mass": 0.5, "value": "entropic"}, "value must be 'dual' or 'primal', not 'entropic'"),
    ],
)
def test_a_setting_that_solves_nothing_is_named(settings: dict, message: str) -> None:
    with pytest.raises(TransportError, match=message):
        partial(random_cost(2, 3, 3), **settings)
