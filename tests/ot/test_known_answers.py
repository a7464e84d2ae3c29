"""Transport whose answer is known in closed form or by theory."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from avalign.kernels.cpu import engine as cpu
from avalign.ot import cosine_sinkhorn, exact, sinkhorn, squared_euclidean_cost
from tests.helpers.strategies import Transport, generator, quick, seeds, transports
from tests.helpers.tolerances import assert_close

TIGHT = {"tolerance": 1e-10, "iterations": 20_000}
ENGINES = ["torch", *(["c++"] if cpu.why_unavailable() is None else [])]


@pytest.mark.parametrize(("shift", "spread", "epsilon"), [(0.0, 1.0, 0.5), (1.0, 0.6, 0.2), (-0.5, 1.4, 1.0)])
def test_gaussians_on_a_fine_grid(shift: float, spread: float, epsilon: float) -> None:
    """Janati et al., arXiv:2006.02572, theorem 1, in one dimension: epsilon = 2 sigma^2."""
    grid = torch.linspace(-7, 7, 401, dtype=torch.float64)
    a = (-(grid**2) / 2).exp()
    b = (-((grid - shift) ** 2) / (2 * spread**2)).exp()
    cost = (grid[:, None] - grid[None, :]).square()[None]
    plan = sinkhorn(cost, (a / a.sum())[None], (b / b.sum())[None], epsilon=epsilon, **TIGHT)
    variance = spread**2
    sigma2 = epsilon / 2
    d = math.sqrt(4 * variance + sigma2**2)
    known = shift**2 + 1 + variance - d + sigma2 * (1 - math.log(2 * sigma2)) + sigma2 * math.log(d + sigma2)
    assert abs(float(plan.value[0]) - known) < 1e-4


@pytest.mark.parametrize("engine", ENGINES)
def test_a_single_token_is_carried_everywhere(engine: str) -> None:
    x, y = torch.randn(2, 1, 8, generator=generator(0)), torch.randn(2, 5, 8, generator=generator(1))
    for tokens in ((x, y), (y, x)):
        plan = cosine_sinkhorn(*tokens, tolerance=1e-5, engine=engine)
        mean = (1 - torch.cosine_similarity(tokens[0][:, :, None], tokens[1][:, None], dim=3)).mean((1, 2))
        assert_close(plan.value, mean, torch.float32)
        assert_close(plan.matrix, torch.full_like(plan.matrix, 1 / 5), torch.float32)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_shuffled_set_finds_itself(engine: str) -> None:
    """Far apart tokens: the entropic plan is the permutation, its dual epsilon log n (the plan's KL)."""
    x = 4 * torch.eye(12)[None]
    order = torch.randperm(12, generator=generator(2))
    plan = cosine_sinkhorn(x, x[:, order], epsilon=0.02, engine=engine)
    assert_close(plan.matrix[0], torch.eye(12)[:, order] / 12, torch.float32)
    assert_close(plan.value, [0.02 * math.log(12)], torch.float32)


@quick
@given(transports(), st.sampled_from([(0.1, 0.3), (0.3, 1.0), (0.1, 5.0)]))
def test_more_smoothing_costs_more(problem: Transport, epsilons: tuple[float, float]) -> None:
    for value in ("dual", "primal"):
        less, more = (
            sinkhorn(**problem.arguments(), epsilon=e, value=value, **TIGHT).value for e in epsilons
        )
        assert (less <= more + 1e-8).all()


@quick
@given(transports(), st.sampled_from([0.3, 0.1]))
def test_either_side_may_be_the_source(problem: Transport, epsilon: float) -> None:
    there = sinkhorn(**problem.arguments(), epsilon=epsilon, **TIGHT)
    back = sinkhorn(
        problem.cost.transpose(1, 2),
        problem.target,
        problem.source,
        problem.target_mask,
        problem.source_mask,
        epsilon=epsilon,
        **TIGHT,
    )
    assert_close(back.value, there.value)
    assert_close(back.matrix, there.matrix.transpose(1, 2))


@pytest.mark.parametrize("seed", range(3))
def test_without_smoothing_its_gradient_is_that_of_the_exact_cost(seed: int) -> None:
    """Where the best plan is the only one, as for random costs it is."""
    cost = torch.rand(4, 6, 6, generator=generator(seed), dtype=torch.float64)
    slopes = []
    for epsilon in (None, 0.02, 0.005, 0.001):
        c = cost.clone().requires_grad_()
        solution = (
            exact(c) if epsilon is None else sinkhorn(c, epsilon=epsilon, tolerance=1e-6, iterations=100_000)
        )
        slopes.append(torch.autograd.grad(solution.value.sum(), c)[0])
    off = [float((slope - slopes[0]).abs().sum()) for slope in slopes[1:]]
    assert off[0] > off[1] > off[2]
    assert off[2] < 0.02


@quick
@given(st.integers(2, 20), seeds)
@pytest.mark.filterwarnings("ignore::avalign.ot.NotConverged")
def test_equal_weights_on_a_line_go_in_order(n: int, seed: int) -> None:
    x, y = (torch.rand(1, n, 1, generator=generator(seed + k), dtype=torch.float64) for k in (0, 1))
    sorted_cost = (x.sort(1).values - y.sort(1).values).square().mean()
    plan = sinkhorn(squared_euclidean_cost(x, y), epsilon=0.01, iterations=500)
    assert plan.lower[0] <= sorted_cost + 1e-9
    assert sorted_cost <= plan.upper[0] + 1e-9


@pytest.mark.parametrize("engine", ENGINES)
def test_large_problems_are_exact_in_threads_too(engine: str) -> None:
    """Above the size from which POT runs in threads, against the bracket of another solver."""
    x, y = (torch.randn(3, k, 8, generator=generator(k)) for k in (330, 310))
    plan = cosine_sinkhorn(x, y, epsilon=0.05, engine=engine)
    truth = exact(plan.problem.cost)
    assert truth.converged.all()
    assert (plan.lower <= truth.value + 2e-6).all()
    assert (truth.value <= plan.upper + 2e-6).all()
    assert_close(exact(plan.problem.cost[1:2]).matrix[0], truth.matrix[1])


@pytest.mark.wide
@pytest.mark.filterwarnings("ignore::avalign.ot.NotConverged")
@pytest.mark.parametrize("engine", ENGINES)
def test_ten_thousand_brackets_hold(engine: str) -> None:
    """Random shapes, weights, dimensions, epsilons and iterations, in float32, converged or not."""
    random = generator(0)
    tried = 0
    while tried < 10_000:
        n, m, d = (int(torch.randint(1, k, (), generator=random)) for k in (40, 40, 20))
        x, y = (torch.randn(50, k, d, generator=random) for k in (n, m))
        y = y + x[:, :1] * float(torch.rand((), generator=random))
        a, b = (torch.rand(50, k, generator=random) + 1e-3 for k in (n, m))
        epsilon = 10 ** float(torch.empty(()).uniform_(-2.7, 0, generator=random))
        iterations = int(10 ** float(torch.empty(()).uniform_(0, 3, generator=random)))
        weights = (a / a.sum(1, keepdim=True), b / b.sum(1, keepdim=True))
        plan = cosine_sinkhorn(x, y, *weights, epsilon=epsilon, iterations=iterations, engine=engine)
        truth = exact(plan.problem.cost.double(), *(w.double() for w in weights)).value
        assert plan.value.isfinite().all()
        assert (plan.lower <= truth + 2e-6).all()
        assert (truth <= plan.upper + 2e-6).all()
        tried += 50
