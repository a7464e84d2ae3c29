"""Unbalanced transport, by its optimality conditions, closed forms, POT, and its balanced limit."""

from __future__ import annotations

from dataclasses import replace

import ot as pot
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from avalign.ot import NotConverged, Plan, TransportError, sinkhorn, unbalanced
from tests.helpers.strategies import Transport, generator, quick, seeds, transports
from tests.helpers.tolerances import assert_close

TIGHT = {"tolerance": 1e-11, "iterations": 3000}
rhos = st.sampled_from([0.05, 0.5, 5.0])
epsilons = st.sampled_from([1.0, 0.3, 0.1])


def random_cost(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=generator(seed), dtype=torch.float64)


def masses(problem: Transport, source: float, target: float) -> Transport:
    """The same problem with marginals of other masses, given outright."""
    a, b = problem.marginals()
    return Transport(problem.cost, a * source, b * target)


def price(matrix: Tensor, cost: Tensor, a: Tensor, b: Tensor, rho: float, epsilon: float = 0.0) -> Tensor:
    """What a plan costs, by the definition, (b,)."""

    def divergence(p: Tensor, q: Tensor) -> Tensor:
        ratio = torch.where(p > 0, p / torch.where(q > 0, q, 1), 1)
        return (p * ratio.log() - p + q).flatten(1).sum(1)

    smooth = divergence(matrix, a[:, :, None] * b[:, None, :])
    missed = divergence(matrix.sum(2), a) + divergence(matrix.sum(1), b)
    return (matrix * cost).sum((1, 2)) + epsilon * smooth + rho * missed


class TestPlan:
    @quick
    @given(transports(), epsilons, rhos, st.sampled_from([(1.0, 1.0), (0.3, 2.0)]))
    def test_it_is_the_one_optimum(
        self, problem: Transport, epsilon: float, rho: float, mass: tuple[float, float]
    ) -> None:
        """epsilon log T / (a b) + C + rho log (T 1 / a) + rho log (T' 1 / b) = 0: the objective's slope."""
        problem = masses(problem, *mass)
        plan = unbalanced(**problem.arguments(), epsilon=epsilon, rho=rho, **TIGHT)
        a, b = problem.source, problem.target
        assert plan.converged.all()
        rows, columns = plan.matrix.sum(2), plan.matrix.sum(1)
        slope = (
            epsilon * (plan.matrix / (a[:, :, None] * b[:, None, :])).log()
            + problem.cost
            + rho * (rows / a).log()[:, :, None]
            + rho * (columns / b).log()[:, None, :]
        )
        real = (a > 0)[:, :, None] & (b > 0)[:, None, :]
        assert_close(slope[real], torch.zeros_like(slope[real]))
        assert (plan.matrix[~real] == 0).all()
        assert_close(plan.value, price(plan.matrix, problem.cost, a, b, rho, epsilon))
        assert_close(rows, a * (-plan.source_potential / rho).exp())
        primal = unbalanced(**problem.arguments(), epsilon=epsilon, rho=rho, value="primal", **TIGHT)
        assert_close(primal.value, (plan.matrix * problem.cost).sum((1, 2)))

    @pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (0.2, 3.0)])
    @pytest.mark.parametrize(("epsilon", "rho"), [(0.05, 1.0), (0.5, 0.01), (0.002, 0.3)])
    def test_between_two_points_it_is_known(self, a: float, b: float, epsilon: float, rho: float) -> None:
        """C + epsilon log(t / ab) + rho log(t / a) + rho log(t / b) = 0, solved by hand."""
        distance = torch.tensor(0.7, dtype=torch.float64)
        plan = unbalanced(
            distance.reshape(1, 1, 1),
            torch.full((1, 1), a, dtype=torch.float64),
            torch.full((1, 1), b, dtype=torch.float64),
            epsilon=epsilon,
            rho=rho,
            **TIGHT,
        )
        mass = (
            ((epsilon + rho) * torch.tensor(a * b, dtype=torch.float64).log() - distance)
            / (epsilon + 2 * rho)
        ).exp()
        assert_close(plan.matrix.sum(), mass)
        assert_close(plan.value[0], epsilon * a * b + rho * (a + b) - (epsilon + 2 * rho) * mass)

    @quick
    @given(transports(), epsilons)
    def test_a_high_price_balances_it(self, problem: Transport, epsilon: float) -> None:
        balanced = sinkhorn(**problem.arguments(), epsilon=epsilon, **TIGHT)
        plan = unbalanced(**problem.arguments(), epsilon=epsilon, rho=1e9, **TIGHT)
        assert_close(plan.value, balanced.value)
        assert_close(plan.matrix, balanced.matrix)
        # What is left over, and where the two prices of the same thing differ, is of order 1 / rho.
        cheaper = unbalanced(**problem.arguments(), epsilon=epsilon, rho=1.0, **TIGHT)
        assert (cheaper.value <= plan.value + 1e-9).all()

    @quick
    @given(transports(batch=1), epsilons, rhos)
    def test_pot_agrees(self, problem: Transport, epsilon: float, rho: float) -> None:
        a, b = (w[0] for w in masses(problem, 0.5, 1.5).marginals())
        i, j = a > 0, b > 0
        cost = problem.cost[0][i][:, j]
        theirs = pot.unbalanced.sinkhorn_unbalanced(
            a[i].numpy(),
            b[j].numpy(),
            cost.numpy(),
            reg=epsilon,
            reg_m=rho,
            reg_type="kl",
            numItermax=20_000,
            stopThr=1e-13,
        )
        plan = unbalanced(cost[None], a[None, i], b[None, j], epsilon=epsilon, rho=rho, **TIGHT)
        assert_close(plan.matrix[0], theirs)

    def test_nothing_is_carried_where_leaving_it_is_cheaper(self) -> None:
        """Off-screen sound: a target far from all is left behind, and one nearby is not."""
        cost = torch.tensor([[[0.0, 5.0]]], dtype=torch.float64)
        plan = unbalanced(cost, epsilon=0.01, rho=0.1, **TIGHT)
        near, far = plan.matrix[0, 0].tolist()
        assert near > 0.4
        assert far < 1e-9

    def test_a_price_for_each_item(self) -> None:
        cost, prices = random_cost(3, 5, 4), torch.tensor([0.05, 1.0, 1e6], dtype=torch.float64)
        together = unbalanced(cost, rho=prices, **TIGHT)
        for k, rho in enumerate(prices.tolist()):
            alone = unbalanced(cost[k : k + 1], rho=rho, **TIGHT)
            assert_close(together.matrix[k], alone.matrix[0])
            assert_close(together.value[k], alone.value[0])
            assert together.iterations[k] == alone.iterations[0]


class TestEvidence:
    @quick
    @given(
        transports(most=6),
        st.sampled_from([0.2, 0.02, 0.002]),
        rhos,
        st.sampled_from([1, 5, 300]),
        seeds,
    )
    @pytest.mark.filterwarnings("ignore::avalign.ot.NotConverged")
    def test_the_bounds_hold_whether_or_not_it_converged(
        self, problem: Transport, epsilon: float, rho: float, iterations: int, seed: int
    ) -> None:
        """Below what any plan costs, above what is below any plan's cost."""
        problem = masses(problem, 0.5, 1.5)
        a, b = problem.source, problem.target
        rough = unbalanced(**problem.arguments(), epsilon=epsilon, rho=rho, iterations=iterations)
        good = unbalanced(**problem.arguments(), epsilon=0.005, rho=rho, iterations=3000)
        independent = a[:, :, None] * b[:, None, :]
        other = independent * torch.rand(*problem.cost.shape, generator=generator(seed)).exp()
        for matrix in (rough.matrix, good.matrix, other, torch.zeros_like(other)):
            assert (rough.lower <= price(matrix, problem.cost, a, b, rho) + 1e-9).all()
        assert_close(rough.upper, price(rough.matrix, problem.cost, a, b, rho))
        assert (good.lower <= rough.upper + 1e-9).all()

    def test_the_bounds_close_in_as_epsilon_falls(self) -> None:
        gaps = []
        for epsilon in (0.1, 0.02, 0.005):
            plan = unbalanced(random_cost(4, 12, 9), epsilon=epsilon, rho=0.5, iterations=5000)
            gaps.append((plan.gap / plan.upper).mean())
        assert gaps[0] > 3 * gaps[1] > 9 * gaps[2] > 0
        assert gaps[2] < 0.02

    def test_it_says_so_when_it_did_not_converge(self) -> None:
        cost = torch.cat([random_cost(1, 8, 8) * 1e-4, random_cost(1, 8, 8)])
        with pytest.warns(NotConverged, match="unbalanced: .* 0.001 in 5 iterations at epsilon 0.01"):
            plan = unbalanced(cost, epsilon=0.01, rho=2.0, iterations=5)
        assert plan.converged.tolist() == [True, False]
        called_for = (-plan.target_potential / 2.0).exp() / 8
        off = (plan.matrix.sum(1) - called_for).abs().sum(1) / called_for.sum(1)
        assert_close(plan.marginal_error, off)

    @pytest.mark.parametrize("rho", [0.01, 1.0, 1e6])
    @pytest.mark.parametrize("epsilon", [0.002, 0.05])
    def test_single_precision_survives(self, epsilon: float, rho: float) -> None:
        cost = random_cost(4, 30, 20).float() * 2
        plan = unbalanced(cost, epsilon=epsilon, rho=rho, iterations=3000)
        reference = unbalanced(cost.double(), epsilon=epsilon, rho=rho, iterations=3000)
        assert plan.converged.all()
        assert plan.matrix.isfinite().all()
        assert (plan.value - reference.value).abs().max() < 2 * epsilon * 1e-3 + 1e-5
        assert (plan.lower <= reference.upper + 1e-5).all()


class TestGradient:
    @pytest.mark.parametrize("value", ["dual", "primal"])
    @pytest.mark.parametrize("masked", [False, True])
    def test_it_is_that_of_the_value(self, value: str, masked: bool) -> None:
        """To the cost, to the masses of both sides and to the price."""
        mask = torch.tensor([[True, True, False], [True, True, True]]) if masked else None

        def solve(cost: Tensor, source: Tensor, target: Tensor, rho: Tensor) -> Tensor:
            return unbalanced(
                cost, source, target, None, mask,
                rho=rho, epsilon=0.2, value=value, tolerance=1e-13, iterations=5000,
            ).value  # fmt: skip

        inputs = [random_cost(2, 4, 3, seed=1), *(random_cost(2, k, seed=k) + 0.1 for k in (4, 3))]
        inputs.append(torch.tensor([0.1, 2.0], dtype=torch.float64))
        assert torch.autograd.gradcheck(solve, [x.requires_grad_() for x in inputs], atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rho": 0.0}, r"rho must be above 0.*item\(s\) \[0, 1\] have \[0.0, 0.0\]"),
        ({"rho": torch.tensor([1.0, -1.0])}, r"item\(s\) \[1\] have \[-1.0\]"),
        ({"rho": float("inf")}, "for marginals that must hold use sinkhorn"),
        ({"rho": torch.ones(3)}, r"rho must be a number or of shape \(2,\), got \(3,\)"),
        ({"rho": 1.0, "value": "entropic"}, "value must be 'dual' or 'primal', not 'entropic'"),
        ({"rho": 1.0, "source": torch.zeros(2, 3)}, r"source must have some mass: item\(s\) \[0, 1\]"),
    ],
)
def test_a_setting_that_solves_nothing_is_named(settings: dict, message: str) -> None:
    with pytest.raises(TransportError, match=message):
        unbalanced(random_cost(2, 3, 3), **settings)


def test_a_plan_made_by_hand_is_judged_by_its_potentials() -> None:
    """One point onto one at distance 3: carrying t costs 3 t + 2 rho KL(t | 1), least 2 (1 - exp(-1.5))."""
    plan: Plan = unbalanced(torch.full((1, 1, 1), 3.0, dtype=torch.float64), rho=1.0, epsilon=1e-3, **TIGHT)
    assert_close(plan.lower, [2 * (1 - torch.tensor(-1.5, dtype=torch.float64).exp())])


def test_any_potentials_make_a_lower_bound_and_are_improved_first() -> None:
    """By hand: g = (0, -5) admits f = (1, 3), which admits g = (0, 0): at a high price 2, not -0.5."""
    cost = torch.tensor([[[1.0, 2.0], [3.0, 3.0]]], dtype=torch.float64)
    plan = unbalanced(cost, rho=1e6)
    poor = replace(plan, target_potential=torch.tensor([[0.0, -5.0]], dtype=torch.float64))
    assert_close(poor.lower, [2.0], torch.float32)
