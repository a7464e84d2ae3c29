"""IPOT against the published recursion written out, its closed form, and finite differences."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from avalign.ot import TransportError, cosine_cost, exact, ipot
from tests.helpers.strategies import Transport, generator, quick, transports
from tests.helpers.tolerances import assert_close

betas = st.sampled_from([1.0, 0.5, 0.2])


def random_cost(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=generator(seed), dtype=torch.float64)


def published(cost: Tensor, a: Tensor, b: Tensor, beta: float, iterations: int) -> Tensor:
    """Algorithm 1 of Xie et al. with one inner iteration, one item: plain products, the plan kept whole."""
    kernel, plan = torch.exp(-cost / beta), torch.ones_like(cost)
    right = torch.full_like(b, 1 / len(b))
    for _ in range(iterations):
        product = kernel * plan
        left = a / (product @ right)
        right = b / (product.T @ left)
        plan = left[:, None] * product * right[None, :]
    return plan


def released(image: Tensor, audio: Tensor) -> Tensor:
    """What Meerkat's released code makes of a batch of features: (b,), with uniform marginals."""
    cost = cosine_cost(image, audio)
    cut = cost.min() + 0.1 * (cost.max() - cost.min())
    cost = torch.relu(cost - cut)
    n, m = cost.shape[1:]
    uniform = [torch.full((k,), 1 / k, dtype=cost.dtype) for k in (n, m)]
    return torch.stack([(c * published(c, *uniform, 0.5, 30)).sum() for c in cost])


@quick
@given(transports(), betas, st.integers(1, 12))
def test_it_is_the_published_recursion(problem: Transport, beta: float, iterations: int) -> None:
    plan = ipot(**problem.arguments(), beta=beta, iterations=iterations)
    for k, (c, a, b) in enumerate(zip(problem.cost, *problem.marginals(), strict=True)):
        i, j = a > 0, b > 0
        expected = torch.zeros_like(c)
        expected[i[:, None] & j] = published(c[i][:, j], a[i], b[j], beta, iterations).flatten()
        assert_close(plan.matrix[k], expected)
        assert_close(plan.value[k], (expected * c).sum())
        assert_close(plan.marginal_error[k], (expected.sum(1) - a).abs().sum())
        assert_close(expected.sum(0), b)
    assert (plan.iterations == iterations).all()


@quick
@given(transports(), betas, st.integers(1, 40))
def test_its_plan_is_an_entropic_one_at_beta_over_iterations(
    problem: Transport, beta: float, iterations: int
) -> None:
    """T_t = diag(p) exp(-t C / beta) diag(q): what lets it run on logarithms without keeping T."""
    plan = ipot(**problem.arguments(), beta=beta, iterations=iterations)
    source, target = problem.marginals()
    for t, c, a, b in zip(plan.matrix, problem.cost, source, target, strict=True):
        log = (t.log() + iterations * c / beta)[a > 0][:, b > 0]
        assert_close(log - log[:1] - log[:, :1] + log[:1, :1], torch.zeros_like(log))


def features(b: int = 3, n: int = 9, m: int = 7) -> list[Tensor]:
    random = generator(0)
    scale = torch.tensor([0.1, 1.0, 3.0], dtype=torch.float64)[:, None, None]
    common = torch.ones(b, 1, 5, dtype=torch.float64)
    return [
        (common + scale * torch.randn(b, k, 5, generator=random, dtype=torch.float64)).requires_grad_()
        for k in (n, m)
    ]


def test_on_request_it_is_what_the_released_code_computes_gradient_included() -> None:
    image, audio = features()
    theirs = released(image, audio)
    plan = ipot(cosine_cost(image, audio), threshold=0.1, threshold_over="batch")
    assert_close(plan.value, theirs)
    weights = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    expected = torch.autograd.grad((weights * theirs).sum(), [image, audio])
    found = torch.autograd.grad((weights * plan.value).sum(), [image, audio])
    for right, ours in zip(expected, found, strict=True):
        assert_close(ours, right)
    # Holding the plan is another gradient.
    cost = cosine_cost(image, audio)
    held = (plan.matrix * ipot(cost, threshold=0.1, threshold_over="batch").problem.cost).sum((1, 2))
    (gradient,) = torch.autograd.grad((weights * held).sum(), image)
    assert (gradient - expected[0]).norm() > 0.01 * expected[0].norm()


def test_there_an_item_depends_on_its_neighbours_and_by_default_not() -> None:
    cost = cosine_cost(*features())
    for over, same in (("item", True), ("batch", False)):
        together = ipot(cost, threshold=0.1, threshold_over=over).value
        alone = torch.cat([ipot(c[None], threshold=0.1, threshold_over=over).value for c in cost])
        assert torch.allclose(together, alone, rtol=1e-9) is same


def test_the_threshold_is_of_what_is_real() -> None:
    cost = random_cost(1, 4, 3)
    padded = torch.full((1, 5, 3), 100.0, dtype=torch.float64)
    padded[:, :4] = cost
    mask = torch.tensor([[True] * 4 + [False]])
    assert_close(ipot(padded, None, None, mask, threshold=0.3).value, ipot(cost, threshold=0.3).value)
    reduced = (cost - cost.min() - 0.3 * (cost.max() - cost.min())).relu()
    assert_close(ipot(cost, threshold=0.3).value, ipot(reduced).value)


def test_with_iterations_it_nears_the_exact_cost_which_it_brackets() -> None:
    cost = random_cost(4, 12, 9)
    best = exact(cost).value
    off = []
    for iterations in (10, 100, 1000):
        plan = ipot(cost, iterations=iterations)
        assert (plan.lower <= best + 1e-9).all()
        assert (best <= plan.upper + 1e-9).all()
        off.append((plan.value - best).abs().mean())
    assert off[0] > 5 * off[1] > 25 * off[2]


@pytest.mark.parametrize("threshold", [None, 0.2])
@pytest.mark.parametrize("iterations", [1, 2, 9])
def test_the_gradient_is_that_of_the_value(threshold: float | None, iterations: int) -> None:
    mask = torch.tensor([[True, True, False], [True, True, True]])

    def solve(cost: Tensor, source: Tensor, target: Tensor) -> Tensor:
        target = target.masked_fill(~mask, -torch.inf).softmax(1)
        return ipot(
            cost, source.softmax(1), target, None, mask, beta=0.7, iterations=iterations, threshold=threshold
        ).value

    inputs = [random_cost(2, 4, 3, seed=1), random_cost(2, 4, seed=2), random_cost(2, 3, seed=3)]
    assert torch.autograd.gradcheck(solve, [x.requires_grad_() for x in inputs], atol=1e-7, rtol=1e-5)


def test_single_precision_survives_a_small_beta() -> None:
    """Where products underflow: exp(-2 * 30 / 0.01) is 0 in any precision."""
    cost = 2 * random_cost(4, 30, 20)
    plan, reference = (ipot(c.requires_grad_(), beta=0.01) for c in (cost.float(), cost))
    plan.value.sum().backward()
    assert plan.matrix.isfinite().all()
    assert_close(plan.value, reference.value, torch.float32)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta": 0.0}, "beta must be above 0, got 0.0"),
        ({"iterations": 0}, "iterations must be at least 1, got 0"),
        ({"threshold": 1.5}, r"threshold must be in 0..1, a share of the cost's range, got 1.5"),
        ({"threshold_over": "all"}, "threshold_over must be 'item' or 'batch', not 'all'"),
    ],
)
def test_a_setting_that_solves_nothing_is_named(settings: dict, message: str) -> None:
    with pytest.raises(TransportError, match=message):
        ipot(random_cost(2, 3, 3), **settings)
