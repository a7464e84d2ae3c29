"""What the Triton kernels answer for, as checks on a device: "cuda", or "cpu" under Triton's interpreter.

Every check is held against avalign.ot in float64. CHECKS are run by tests/kernels/test_triton.py (in the
interpreter) and tests/gpu/test_sinkhorn_cuda.py.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from avalign.ot import cosine_cost
from avalign.ot.iterations import WINDOW
from tests.helpers.kernel_reference import (
    Features,
    assert_gradients,
    assert_near,
    forward,
    kernels,
    reference,
    tier,
)

FLOATS, HALVES = torch.float32, torch.bfloat16
TIERS = ("registers", "streamed", "split")
SHAPES = ((2, 41, 13, 200), (1, 1, 1, 3), (2, 17, 70, 33), (1, 70, 18, 8))


def check_fixed_iterations(
    device: str, name: str | None, shape: tuple[int, int, int, int], dtype: torch.dtype, epsilon: float
) -> None:
    """Exactly so many plain iterations: potentials, value, error and gradients are those of the torch
    engine."""
    given = Features.drawn(device, shape, dtype)
    for iterations in (1, 8):
        expected = reference(given, epsilon, iterations, None)
        with tier(name):
            solution = forward(given, epsilon=epsilon, iterations=iterations, tolerance=None)
        assert (solution.iterations == iterations).all()
        for got, right in ((solution.f, expected.f), (solution.g, expected.g)):
            torch.testing.assert_close(got.double(), right, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(
            solution.error.double(), expected.error, atol=2e-5 * (1 + 0.01 / epsilon), rtol=0
        )
        assert_gradients(given, solution, epsilon)


def check_tolerance(device: str, name: str, dtype: torch.dtype, epsilon: float) -> None:
    """To a tolerance: the plan has the error it states, found in about as many iterations as the torch
    engine."""
    given = Features.drawn(device, (2, 41, 13, 200), dtype, seed=5)
    tolerance, iterations = 1e-3, 2000
    expected = reference(given, epsilon, iterations, tolerance)
    with tier(name):
        solution = forward(given, epsilon=epsilon, iterations=iterations, tolerance=tolerance)
    assert (solution.error <= tolerance).all()
    exact = given.double()
    cost = cosine_cost(exact.x, exact.y).detach()
    share = ((solution.f.double()[:, :, None] + solution.g.double()[:, None] - cost) / epsilon).exp()
    plan = exact.a[:, :, None] * exact.b[:, None] * share
    slack = 2e-5 * (1 + 0.01 / epsilon)
    torch.testing.assert_close(plan.sum(2), exact.a, atol=slack / 10, rtol=slack)
    torch.testing.assert_close(
        (plan.sum(1) - exact.b).abs().sum(1), solution.error.double(), atol=slack, rtol=0
    )
    # Rates are ratios of small errors: what float32 makes of them may call for another window or two.
    assert ((solution.iterations - expected.iterations).abs() <= 2 * WINDOW + 0.2 * expected.iterations).all()
    assert_gradients(given, solution, epsilon)


def check_alone(device: str, name: str) -> None:
    """An item's answer does not depend on its neighbours, nor a call's on the call, to the bit."""
    given = Features.drawn(device, (3, 12, 14, 24), seed=3)
    given.x[0] = given.x[0] * 0.01 + given.x[0, 0]  # all alike: easy
    settings = {"epsilon": 0.05, "iterations": 500, "tolerance": 1e-3}
    with tier(name):
        together = forward(given, **settings)
        assert together.iterations[0] < together.iterations.max()
        for k in range(3):
            for got, right in zip(forward(given.item(k), **settings), together, strict=True):
                assert torch.equal(got[0], right[k])


def check_look(device: str) -> None:
    """Launches that find nothing left to do change nothing: as a CUDA graph must make them all."""
    given = Features.drawn(device, (2, 12, 14, 24), seed=3)
    given.x[0] = given.x[0] * 0.01 + given.x[0, 0]
    with tier("split"):
        some, every = (
            forward(given, epsilon=0.05, iterations=70, tolerance=1e-3, synchronize=synchronize)
            for synchronize in (True, False)
        )
    assert (some.iterations < 36).all()
    assert all(torch.equal(got, right) for got, right in zip(some, every, strict=True))


def check_start(device: str, name: str) -> None:
    """From the potentials of a like problem: the same iterations, from there."""
    given = Features.drawn(device, (2, 41, 13, 20), seed=4)
    begin = reference(given, 0.02, 12, None).g
    expected = reference(given, 0.02, 9, None, begin)
    with tier(name):
        solution = forward(given, begin.float(), epsilon=0.02, iterations=9, tolerance=None)
        torch.testing.assert_close(solution.f.double(), expected.f, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(solution.g.double(), expected.g, atol=1e-6, rtol=1e-5)
        done = forward(given, epsilon=0.05, iterations=2000, tolerance=1e-4)
        again = forward(given, done.g, epsilon=0.05, iterations=2000, tolerance=1e-3)
    assert (done.iterations > WINDOW).all()
    assert (again.iterations == WINDOW).all()


def check_relaxed(device: str, name: str) -> None:
    """Relaxed iterations one by one: on the kernel at epsilon 0.05, and on logarithms at 0.002."""
    given = Features.drawn(device, (1, 41, 13, 20), seed=12)
    begin = torch.zeros_like(given.b)
    for epsilon in (0.05, 0.002):
        expected = reference(given, epsilon, 12, 1e-12, begin.double())
        with tier(name):
            solution = forward(given, begin, epsilon=epsilon, iterations=12, tolerance=1e-12)
        torch.testing.assert_close(solution.f.double(), expected.f, atol=2e-6, rtol=1e-5)
        torch.testing.assert_close(solution.g.double(), expected.g, atol=2e-6, rtol=1e-5)


def check_small_epsilon(device: str, name: str) -> None:
    """Costs over the whole of 0..2 at epsilon 0.002, a thousand times as far as float32's exp reaches."""
    given = Features.drawn(device, (1, 23, 19, 12), seed=6)
    given.y[:, 0] = -given.x[:, 0]
    given.y[:, 1] = given.x[:, 0]
    for tolerance, iterations in ((None, 20), (1e-2, 1000)):
        expected = reference(given, 0.002, iterations, tolerance)
        with tier(name):
            solution = forward(given, epsilon=0.002, iterations=iterations, tolerance=tolerance)
        if tolerance is None:
            torch.testing.assert_close(solution.f.double(), expected.f, atol=2e-6, rtol=1e-5)
            torch.testing.assert_close(solution.g.double(), expected.g, atol=2e-6, rtol=1e-5)
        else:
            assert (solution.error <= tolerance).all()
            assert (solution.iterations > 60).all()
        assert_gradients(given, solution, 0.002)


def check_not_finite(device: str, name: str) -> None:
    """One item has a norm that is not finite: value and error say so, and its neighbours are as they were."""
    given = Features.drawn(device, (3, 12, 10, 24), seed=7)
    for tolerance in (None, 1e-3):
        settings = {"epsilon": 0.1, "iterations": 12, "tolerance": tolerance}
        with tier(name):
            right = forward(given, **settings)
            for features, broken in ((given.x, torch.nan), (given.y, 3e19)):  # whose square is beyond float32
                kept = features[1, 2, 5].clone()
                features[1, 2, 5] = broken
                solution = forward(given, **settings)
                features[1, 2, 5] = kept
                assert solution.value.isfinite().tolist() == [True, False, True]
                assert solution.error.isfinite().tolist() == [True, False, True]
                for k in (0, 2):
                    assert all(
                        torch.equal(got[k], there[k]) for got, there in zip(solution, right, strict=True)
                    )


def check_zeros_and_padding(device: str, name: str) -> None:
    """A zero vector costs 1 and has no gradient; what carries nothing is 0 and changes not a bit."""
    given = Features.drawn(device, (2, 24, 30, 40), seed=8)
    given.x[:, 5] = 0
    settings = {"epsilon": 0.1, "iterations": 100, "tolerance": 1e-3}
    answers = []
    for junk in (torch.nan, torch.inf, 7.0):
        for features, weights in ((given.x, given.a), (given.y, given.b)):
            features[weights == 0] = junk
        with tier(name):
            solution = forward(given, **settings)
        assert (solution.f[given.a == 0] == 0).all()
        assert (solution.g[given.b == 0] == 0).all()
        gradients = kernels().backward(
            given.x, given.y, given.a, given.b, solution.f, solution.g, 0.1, given.upstream
        )
        assert (gradients[0][:, 5] == 0).all()
        answers.append((*solution, *gradients))
    assert_gradients(given, solution, 0.1)
    for other in answers[1:]:
        assert all(torch.equal(got, right) for got, right in zip(other, answers[0], strict=True))


def check_strides(device: str, dtype: torch.dtype) -> None:
    """Views with any strides give what their copies give."""
    given = Features.drawn(device, (2, 21, 19, 36), dtype, seed=9)
    settings = {"epsilon": 0.05, "iterations": 20, "tolerance": None}
    right = forward(given, **settings)
    gradients = kernels().backward(given.x, given.y, given.a, given.b, right.f, right.g, 0.05, given.upstream)
    views = (
        lambda t: t.transpose(0, 1).contiguous().transpose(0, 1),
        lambda t: t.transpose(1, 2).contiguous().transpose(1, 2),
        lambda t: torch.nn.functional.pad(t, (1, 2))[:, :, 1:-2],
        lambda t: t.repeat_interleave(2, 1)[:, ::2],
    )
    for view in views:
        moved = Features(view(given.x), view(given.y), given.a, given.b, given.upstream)
        solution = forward(moved, **settings)
        torch.testing.assert_close(solution.value, right.value, atol=1e-6, rtol=1e-5)
        got = kernels().backward(
            moved.x, moved.y, moved.a, moved.b, solution.f, solution.g, 0.05, moved.upstream
        )
        for one, other in zip(got, gradients, strict=True):
            assert_near(one, other.double(), dtype)


def check_same_features(device: str) -> None:
    """One tensor as both sets."""
    drawn = Features.drawn(device, (2, 19, 19, 24), seed=11)
    given = Features(drawn.x, drawn.x, drawn.a, drawn.a.flip(1), drawn.upstream)
    given.x[given.x.isnan()] = 0.5
    assert_gradients(given, forward(given, epsilon=0.05, iterations=5, tolerance=None), 0.05)


def check_many_blocks(
    device: str, dtype: torch.dtype, shape: tuple[int, int, int, int] = (1, 150, 270, 70)
) -> None:
    """More rows, columns and features than a block of any kernel holds, in blocks as shipped."""
    given = Features.drawn(device, shape, dtype, seed=10)
    expected = reference(given, 0.05, 8, None)
    for tier_name in ("streamed", "split"):
        solution = forward(given, epsilon=0.05, iterations=8, tolerance=None, tier_name=tier_name)
        torch.testing.assert_close(solution.f.double(), expected.f, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(solution.g.double(), expected.g, atol=1e-6, rtol=1e-5)
    assert_gradients(given, solution, 0.05)


def _checks() -> dict[str, tuple[Callable[..., None], tuple]]:
    """Every check by name, with what follows the device."""
    checks: dict[str, tuple[Callable[..., None], tuple]] = {}

    def add(check: Callable[..., None], *arguments: object) -> None:
        words = [check.__name__.removeprefix("check_"), *(_word(argument) for argument in arguments)]
        checks[" ".join(words)] = check, arguments

    for name in TIERS:
        for shape in SHAPES:
            add(check_fixed_iterations, name, shape, FLOATS, 0.05)
        for epsilon in (0.01, 0.002):
            add(check_fixed_iterations, name, SHAPES[0], FLOATS, epsilon)
            add(check_tolerance, name, FLOATS, epsilon)
        for check in (
            check_alone, check_start, check_relaxed, check_small_epsilon, check_not_finite,
            check_zeros_and_padding,
        ):  # fmt: skip
            add(check, name)
    for dtype in (HALVES, torch.float16):  # all that follows the cost is the same in every dtype
        add(check_fixed_iterations, "registers", SHAPES[0], dtype, 0.05)
    add(check_tolerance, "registers", HALVES, 0.05)
    add(check_look)
    add(check_same_features)
    for dtype in (FLOATS, HALVES):
        add(check_strides, dtype)
        add(check_many_blocks, dtype)
    return checks


def _word(argument: object) -> str:
    if isinstance(argument, tuple):
        return "x".join(map(str, argument))
    return str(argument).removeprefix("torch.")


CHECKS = _checks()


def run(name: str, device: str) -> None:
    check, arguments = CHECKS[name]
    check(device, *arguments)
