"""Transport plans, by what characterises them: every test here fails if the solver is a little wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import ot as pot
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from avalign.ot import (
    NotConverged,
    Plan,
    cosine_cost,
    exact,
    sinkhorn,
    squared_euclidean_cost,
)
from tests.helpers.strategies import Transport, generator, quick, seeds, transports
from tests.helpers.tolerances import TOLERANCES, assert_close
from tests.helpers.transport import random_cost

TIGHT = {"tolerance": 1e-10, "iterations": 2000}
epsilons = st.sampled_from([1.0, 0.3, 0.1])


def emd(problem: Transport) -> list[float]:
    """POT's own answer, item by item, on the real entries alone."""
    source, target = problem.marginals()
    answers = []
    for c, a, b in zip(problem.cost, source, target, strict=True):
        i, j = a > 0, b > 0
        a, b = (a[i] / a[i].sum()).numpy(), (b[j] / b[j].sum()).numpy()
        answers.append(float(pot.emd2(a, b, np.ascontiguousarray(c[i][:, j].numpy()))))
    return answers


class TestSinkhorn:
    @quick
    @given(transports(), epsilons)
    def test_the_plan_is_the_one_entropic_optimum(self, problem: Transport, epsilon: float) -> None:
        """Right marginals, and log T + C / epsilon = f_i + g_j: only the optimum has both."""
        plan = sinkhorn(**problem.arguments(), epsilon=epsilon, **TIGHT)
        self.assert_optimal(plan, problem, epsilon)

    @pytest.mark.parametrize("epsilon", [0.05, 0.01])
    @pytest.mark.parametrize("domain", ["kernel", "logarithms"])
    def test_it_is_so_on_hard_problems_in_both_domains(
        self, epsilon: float, domain: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Sharp plans on odd shapes with uneven marginals, hundreds of iterations."""
        monkeypatch.setattr("avalign.ot.iterations.MOST_SCALING", 300.0 if domain == "kernel" else -1.0)
        uneven = [random_cost(2, k, seed=k) + 0.1 for k in (41, 13)]
        problem = Transport(random_cost(2, 41, 13), *(w / w.sum(1, keepdim=True) for w in uneven))
        plan = sinkhorn(**problem.arguments(), epsilon=epsilon, tolerance=1e-10, iterations=10_000)
        self.assert_optimal(plan, problem, epsilon)

    def assert_optimal(self, plan: Plan, problem: Transport, epsilon: float) -> None:
        source, target = problem.marginals()
        assert plan.converged.all()
        assert_close(plan.matrix.sum(2), source)
        assert_close(plan.matrix.sum(1), target)
        support = (source > 0)[:, :, None] & (target > 0)[:, None, :]
        assert (plan.matrix[~support] == 0).all()
        for t, c, real in zip(plan.matrix, problem.cost, support, strict=True):
            i, j = real.any(1), real.any(0)
            separable = (t.log() + c / epsilon)[i][:, j]
            assert_close(
                separable - separable[:1] - separable[:, :1] + separable[:1, :1], torch.zeros_like(separable)
            )

    @quick
    @given(transports(), epsilons)
    def test_potentials_and_values_belong_to_the_plan(self, problem: Transport, epsilon: float) -> None:
        dual = sinkhorn(**problem.arguments(), epsilon=epsilon, **TIGHT)
        primal = sinkhorn(**problem.arguments(), epsilon=epsilon, value="primal", **TIGHT)
        source, target = problem.marginals()
        independent = source[:, :, None] * target[:, None, :]
        f, g = dual.source_potential, dual.target_potential
        assert_close(dual.matrix, independent * ((f[:, :, None] + g[:, None] - problem.cost) / epsilon).exp())
        carried = (dual.matrix * problem.cost).sum((1, 2))
        share = torch.where(dual.matrix > 0, dual.matrix / independent, 1)
        assert_close(primal.value, carried)
        assert_close(dual.value, carried + epsilon * (dual.matrix * share.log()).sum((1, 2)))
        assert (dual.value_name, primal.value_name) == ("dual", "primal")

    @quick
    @given(transports(most=6), st.sampled_from([0.2, 0.02, 0.002]), st.sampled_from([1, 10, 300]))
    @pytest.mark.filterwarnings("ignore::avalign.ot.NotConverged")
    def test_the_bounds_hold_whether_or_not_it_converged(
        self, problem: Transport, epsilon: float, iterations: int
    ) -> None:
        plan = sinkhorn(**problem.arguments(), epsilon=epsilon, iterations=iterations)
        truth = torch.tensor(emd(problem), dtype=torch.float64)
        assert (plan.lower <= truth + 1e-9).all()
        assert (truth <= plan.upper + 1e-9).all()
        single = sinkhorn(**problem.to(torch.float32).arguments(), epsilon=epsilon, iterations=iterations)
        assert (single.lower <= truth + 2e-6).all(), "float32 needs a slack of 1e-6"
        assert (truth <= single.upper + 2e-6).all()

    def test_the_bounds_close_in_as_epsilon_falls(self) -> None:
        problem = Transport(random_cost(4, 12, 9))
        truth = torch.tensor(emd(problem), dtype=torch.float64)
        gaps = []
        for epsilon in (0.1, 0.02, 0.005):
            plan = sinkhorn(problem.cost, epsilon=epsilon, iterations=5000)
            gaps.append((plan.upper - plan.lower).mean() / truth.mean())
        assert gaps[0] > 3 * gaps[1] > 9 * gaps[2] > 0
        assert gaps[2] < 0.02

    def test_any_potentials_make_a_lower_bound_and_are_improved_first(self) -> None:
        """By hand: g = (0, -5) admits f = (1, 3), which admits g = (0, 0): 2, the exact cost; not -0.5."""
        plan = exact(torch.tensor([[[1.0, 2.0], [3.0, 3.0]]]))
        poor = replace(plan, target_potential=torch.tensor([[0.0, -5.0]]))
        assert_close(poor.lower, [2.0])
        assert_close(plan.value, [2.0])

    @quick
    @given(transports(), seeds)
    def test_order_of_tokens_is_nothing(self, problem: Transport, seed: int) -> None:
        n, m = problem.cost.shape[1:]
        i, j = torch.randperm(n, generator=generator(seed)), torch.randperm(m, generator=generator(seed))
        mixed = Transport(problem.cost[:, i][:, :, j])
        for side, order in (("source", i), ("target", j)):
            for name in (side, f"{side}_mask"):
                given_ = getattr(problem, name)
                setattr(mixed, name, None if given_ is None else given_[:, order])
        plain, other = (sinkhorn(**p.arguments(), epsilon=0.1, **TIGHT) for p in (problem, mixed))
        assert_close(other.value, plain.value)
        assert_close(other.matrix, plain.matrix[:, i][:, :, j])

    @quick
    @given(transports(), st.integers(0, 3), st.integers(0, 3), st.sampled_from([torch.nan, torch.inf, 7.0]))
    def test_padding_is_nothing_whatever_it_holds(
        self, problem: Transport, rows: int, columns: int, junk: float
    ) -> None:
        b, n, m = problem.cost.shape
        cost = torch.full((b, n + rows, m + columns), junk, dtype=torch.float64)
        cost[:, :n, :m] = problem.cost
        padded = Transport(cost.requires_grad_())
        for side, size, more in (("source", n, rows), ("target", m, columns)):
            weights, mask = getattr(problem, side), getattr(problem, f"{side}_mask")
            mask = torch.ones(b, size, dtype=torch.bool) if mask is None else mask
            setattr(padded, f"{side}_mask", torch.cat([mask, torch.zeros(b, more, dtype=torch.bool)], 1))
            if weights is not None:
                setattr(padded, side, torch.cat([weights, torch.full((b, more), 0.5)], 1))
        for value in ("dual", "primal"):
            plain = sinkhorn(**problem.arguments(), epsilon=0.1, value=value, **TIGHT)
            plan = sinkhorn(**padded.arguments(), epsilon=0.1, value=value, **TIGHT)
            (gradient,) = torch.autograd.grad(plan.value.sum(), cost)
            assert_close(plan.value, plain.value)
            assert_close(plan.matrix[:, :n, :m], plain.matrix)
            assert (plan.iterations == plain.iterations).all()
            outside = gradient.clone()
            outside[:, :n, :m] = 0
            assert (outside == 0).all()
            assert gradient.isfinite().all()

    def test_an_item_does_not_depend_on_its_neighbours(self) -> None:
        """Easy and hard items in one batch, in both domains: each stops where it stops alone."""
        cost = (
            random_cost(6, 9, 5)
            * torch.tensor([0.01, 0.5, 1, 5, 100, 1000], dtype=torch.float64)[:, None, None]
        )
        together = sinkhorn(cost, epsilon=0.5, iterations=20_000)
        assert len(set(together.iterations.tolist())) > 2
        for k in range(6):
            alone = sinkhorn(cost[k : k + 1], epsilon=0.5, iterations=20_000)
            assert together.iterations[k] == alone.iterations[0]
            assert_close(together.value[k], alone.value[0])
            assert_close(together.matrix[k], alone.matrix[0])

    @pytest.mark.parametrize("epsilon", [0.002, 0.024, 0.025])
    def test_single_precision_survives_small_epsilon(self, epsilon: float) -> None:
        """0.025 is solved on exp(-C / epsilon), what is below on logarithms."""
        x, y = (torch.randn(8, k, 16, generator=generator(k)) for k in (30, 20))
        cost = cosine_cost(x, y) * (2 / cosine_cost(x, y).max())
        plan = sinkhorn(cost, epsilon=epsilon, iterations=3000)
        reference = sinkhorn(cost.double(), epsilon=epsilon, iterations=3000)
        assert plan.converged.all()
        assert plan.matrix.isfinite().all()
        assert (plan.value - reference.value).abs().max() < 2 * epsilon * 1e-3 + 1e-5

    def test_it_says_so_when_it_did_not_converge(self) -> None:
        cost = torch.cat([random_cost(1, 8, 8) * 1e-4, random_cost(1, 8, 8)])
        with pytest.warns(NotConverged, match="0.001 in 10 iterations at epsilon 0.01"):
            plan = sinkhorn(cost, epsilon=0.01, iterations=10)
        assert plan.converged.tolist() == [True, False]
        assert_close(plan.marginal_error, (plan.matrix.sum(1) - 1 / 8).abs().sum(1))
        assert plan.marginal_error[1] > 1e-3

    @pytest.mark.parametrize("value", ["dual", "primal"])
    @pytest.mark.parametrize("masked", [False, True])
    def test_the_gradient_is_that_of_the_value(self, value: str, masked: bool) -> None:
        """Against finite differences, to the cost and to both marginals, on a weighted sum of items."""
        mask = torch.tensor([[True, True, False], [True, True, True]]) if masked else None

        def solve(cost: torch.Tensor, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            target = target if mask is None else target.masked_fill(~mask, -torch.inf)
            return sinkhorn(
                cost, source.softmax(1), target.softmax(1), None, mask,
                epsilon=0.2, tolerance=1e-13, iterations=5000, value=value,
            ).value  # fmt: skip

        inputs = [random_cost(2, 4, 3, seed=1), random_cost(2, 4, seed=2), random_cost(2, 3, seed=3)]
        assert torch.autograd.gradcheck(solve, [x.requires_grad_() for x in inputs], atol=1e-7, rtol=1e-5)

    def test_dual_and_primal_gradients_are_not_the_same(self) -> None:
        """Holding T fixed is right for the one and wrong for the other."""
        cost = random_cost(1, 6, 6).requires_grad_()
        slopes = {}
        for value in ("dual", "primal"):
            plan = sinkhorn(cost, epsilon=0.1, value=value, **TIGHT)
            (slopes[value],) = torch.autograd.grad(plan.value.sum(), cost)
        assert_close(slopes["dual"], plan.matrix)
        assert (slopes["primal"] - slopes["dual"]).norm() > 0.01 * slopes["dual"].norm()


class TestExact:
    @quick
    @given(transports())
    def test_it_is_the_least_cost_and_proves_it(self, problem: Transport) -> None:
        """A feasible plan and feasible potentials of equal value: each proves the other optimal."""
        plan = exact(**problem.arguments())
        source, target = problem.marginals()
        assert plan.converged.all()
        assert (plan.matrix >= 0).all()
        assert_close(plan.matrix.sum(2), source)
        assert_close(plan.matrix.sum(1), target)
        assert_close((plan.matrix * problem.cost).sum((1, 2)), plan.value)
        slack = problem.cost - plan.source_potential[:, :, None] - plan.target_potential[:, None, :]
        assert (slack[(source > 0)[:, :, None] & (target > 0)[:, None, :]] >= -1e-9).all()
        assert_close(plan.lower, plan.value)
        assert_close(plan.upper, plan.value)
        assert_close(plan.value, emd(problem))

    @quick
    @given(st.integers(1, 8), seeds)
    def test_equal_sets_are_matched_one_to_one(self, n: int, seed: int) -> None:
        cost = random_cost(1, n, n, seed=seed)
        rows, columns = linear_sum_assignment(cost[0].numpy())
        assert_close(exact(cost).value[0], cost[0, rows, columns].mean())

    @quick
    @given(st.integers(1, 12), seeds)
    def test_on_a_line_the_sorted_order_is_best(self, n: int, seed: int) -> None:
        x, y = (random_cost(1, n, 1, seed=seed + k) for k in (0, 1))
        sorted_cost = (x.sort(1).values - y.sort(1).values).square().mean()
        assert_close(exact(squared_euclidean_cost(x, y)).value[0], sorted_cost)

    def test_a_shuffled_set_is_carried_back_at_no_cost(self) -> None:
        x = torch.randn(1, 6, 4, generator=generator(0), dtype=torch.float64)
        order = torch.tensor([3, 1, 5, 0, 2, 4])
        plan = exact(cosine_cost(x, x[:, order]))
        assert_close(plan.value, [0.0])
        assert_close(plan.matrix[0], torch.eye(6, dtype=torch.float64)[:, order] / 6)

    def test_the_gradient_is_that_of_the_value(self) -> None:
        def solve(cost: torch.Tensor, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return exact(cost, source.softmax(1), target.softmax(1)).value

        inputs = [random_cost(2, 4, 3, seed=1), random_cost(2, 4, seed=2), random_cost(2, 3, seed=3)]
        assert torch.autograd.gradcheck(solve, [x.requires_grad_() for x in inputs], atol=1e-7, rtol=1e-5)

    @quick
    @given(transports(), epsilons)
    def test_smoothing_only_adds(self, problem: Transport, epsilon: float) -> None:
        """exact <= <T, C> <= dual <= the independent coupling, whose KL is 0."""
        least = exact(**problem.arguments()).value
        dual = sinkhorn(**problem.arguments(), epsilon=epsilon, **TIGHT).value
        primal = sinkhorn(**problem.arguments(), epsilon=epsilon, value="primal", **TIGHT).value
        independent = torch.einsum(
            "bn,bnm,bm->b", problem.marginals()[0], problem.cost, problem.marginals()[1]
        )
        for low, high in ((least, primal), (primal, dual), (dual, independent)):
            assert (low <= high + TOLERANCES[torch.float64].absolute).all()


class TestCosts:
    @quick
    @given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 9), seeds)
    def test_they_are_what_their_formula_says(self, n: int, m: int, d: int, seed: int) -> None:
        x, y = (torch.randn(2, k, d, generator=generator(seed + k), dtype=torch.float64) for k in (n, m))
        for k in range(2):
            for i in range(n):
                for j in range(m):
                    a, b = x[k, i], y[k, j]
                    assert_close(cosine_cost(x, y)[k, i, j], 1 - (a @ b) / (a.norm() * b.norm()))
                    assert_close(squared_euclidean_cost(x, y)[k, i, j], (a - b).square().sum())

    def test_a_zero_token_is_at_distance_one_and_has_no_gradient(self) -> None:
        x = torch.tensor([[[0.0, 0.0], [3.0, 4.0]]], requires_grad=True)
        y = torch.tensor([[[1.0, 0.0]]])
        cost = cosine_cost(x, y)
        cost.sum().backward()
        assert_close(cost, [[[1.0], [0.4]]], torch.float32)
        assert (x.grad[0, 0] == 0).all()
        assert x.grad[0, 1].norm() > 0.1

    @pytest.mark.parametrize("make", [cosine_cost, squared_euclidean_cost])
    def test_masked_tokens_touch_nothing(self, make) -> None:
        x, y = (torch.randn(1, k, 3, generator=generator(k)) for k in (4, 2))
        mask = torch.tensor([[True, False, True, True]])
        junk = torch.where(mask[:, :, None], x, torch.nan).requires_grad_()
        cost = make(junk, y, mask)
        cost[mask].sum().backward()
        assert_close(cost[mask], make(x, y)[mask], torch.float32)
        assert junk.grad.isfinite().all()
        assert (junk.grad[~mask] == 0).all()

    def test_features_in_bfloat16_are_compared_in_float32(self) -> None:
        x, y = (torch.randn(2, k, 64, generator=generator(k)).bfloat16() for k in (4, 3))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cost = cosine_cost(x, y)
        assert cost.dtype == torch.float32
        assert_close(cost, cosine_cost(x.double(), y.double()), torch.float32)
