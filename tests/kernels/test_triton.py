"""The Triton kernels, run by Triton's interpreter: what they compute, without a GPU.

Triton asks once, when it is imported, whether to interpret. So the checks run in a process of their own,
and the rest of the suite sees Triton as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from unittest import mock

import numpy as np
import pytest
import torch
from torch.torch_version import TorchVersion

from avalign.losses import AVOpT
from avalign.ot import TransportError, cosine_sinkhorn
from avalign.ot import iterations as iterations
from tests.helpers import kernel_contract
from tests.helpers.kernel_reference import kernels

pytest.importorskip("triton", reason="Triton is not installed")

import triton
import triton.language as tl

from avalign.kernels.triton.blocks import add

NUMPY_TOO_NEW = TorchVersion(triton.__version__) < (3, 7) and TorchVersion(np.__version__) >= (2, 4)


@pytest.fixture(scope="module")
def interpreter() -> Iterator[ProcessPoolExecutor]:
    if NUMPY_TOO_NEW:
        pytest.skip("the interpreter of Triton before 3.7 takes int() of arrays, which NumPy 2.4 refuses")
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        with (
            pytest.MonkeyPatch.context() as patch
        ):  # no longer than it takes to start: here it must not be set
            patch.setenv("TRITON_INTERPRET", "1")
            assert pool.submit(_interpreted).result(), "the process started without TRITON_INTERPRET"
        yield pool


@triton.jit
def _summed(terms, exact_out, plain_out, count):
    exact, lost, plain = tl.full((), 0, tl.float32), tl.full((), 0, tl.float32), tl.full((), 0, tl.float32)
    for k in range(count):
        term = tl.load(terms + k)
        exact, lost = add(exact, lost, term)
        plain += term
    tl.store(exact_out, exact)
    tl.store(plain_out, plain)


def _interpreted() -> bool:
    torch.set_num_threads(1)
    return bool(kernels().INTERPRETED)


def test_the_solver_takes_the_engine_by_name(interpreter: ProcessPoolExecutor) -> None:
    interpreter.submit(_same_as_torch).result()


def _same_as_torch() -> None:
    """Value, gradients to features and weights, and bounds, through avalign.ot and AVOpT, on every tier."""
    x, y = (torch.randn(2, k, 20, generator=torch.Generator().manual_seed(k)) for k in (13, 9))
    engines = {"torch": ("torch", None), "triton": ("triton-registers", "in_registers")}
    engines["triton-registers"] = engines["triton"]
    engines |= {
        f"triton-{tier_name}": (f"triton-{tier_name}", tier_name) for tier_name in ("streamed", "split")
    }
    found = []
    for engine, (ran, by) in engines.items():
        leaves = [t.clone().requires_grad_() for t in (x, y, torch.linspace(-1, 1, 13).expand(2, -1))]
        image, audio, scores = leaves
        loss = AVOpT(engine=engine)
        with mock.patch.object(kernels(), by or "tier", wraps=getattr(kernels(), by or "tier")) as solver:
            plan = loss.solve(image, audio, image_weights=scores.softmax(1))
        assert solver.called == (by is not None)
        assert plan.engine == ran
        (plan.value * torch.tensor([1.0, 3.0])).sum().backward()
        found.append([plan.value, plan.matrix, plan.lower, plan.upper, *(leaf.grad for leaf in leaves)])
    right, *others = found
    for other in others:
        torch.testing.assert_close(other, right, atol=2e-6, rtol=2e-4)
    y[1, 2] = torch.nan
    with pytest.raises(TransportError, match=r"item\(s\) \[1\]"):
        cosine_sinkhorn(x, y, engine="triton")
    with pytest.raises(TransportError, match="16384 entries of an item, and 300 x 300 tokens pad to 262144"):
        cosine_sinkhorn(*torch.ones(2, 1, 300, 4), engine="triton-registers")


@pytest.mark.parametrize("name", kernel_contract.CHECKS)
def test_interpreted(name: str, interpreter: ProcessPoolExecutor) -> None:
    interpreter.submit(kernel_contract.run, name, "cpu").result()


def test_long_sums_lose_nothing(interpreter: ProcessPoolExecutor) -> None:
    """3,000 terms one after the other, as the columns of an item of 3,000 rows: float32 alone is off by 3e-5,
    always to one side, and potentials by 2e-6 after eight iterations (in numpy; as seen on a GPU)."""
    interpreter.submit(_long_sums).result()


def _long_sums() -> None:
    terms = torch.rand(3000, generator=torch.Generator().manual_seed(0)) + 0.5
    right = terms.double().sum()
    exact, plain = torch.zeros(1), torch.zeros(1)
    _summed[(1,)](terms, exact, plain, len(terms))
    assert abs(float(plain) / right - 1) > 1e-6, "too few terms to tell"
    assert abs(float(exact) / right - 1) < 1.5e-7


def test_iterations_go_by_the_same_numbers_as_the_torch_engine() -> None:
    """The kernels may not import avalign.ot, and state them again."""
    from avalign.kernels.triton import iterations as triton_iterations

    for name in (
        "WINDOW", "MOST_SCALING", "FIRST_RELAXATION", "MOST_RELAXATION", "GROWTH", "RISES", "EASY_REACH",
        "ROUGH_ERROR", "ROUGH_ITERATIONS",
    ):  # fmt: skip
        assert getattr(triton_iterations, name).value == getattr(iterations, name), name


def test_the_tier_is_chosen_by_items_tokens_and_multiprocessors() -> None:
    """(196, 64) pads to 256 x 64, all that registers hold; a quarter as many items as multiprocessors, large
    ones, are split."""
    tier = kernels().tier
    for n, m in ((196, 64), (64, 196), (5, 1), (128, 128)):
        assert tier(1, n, m, 132) == "registers"
    for n, m in ((196, 65), (257, 64), (511, 512)):
        assert tier(1, n, m, 132) == "streamed"
    for n, m in ((512, 512), (1024, 1024), (10**6, 8192)):
        assert [tier(items, n, m, 132) for items in (1, 33, 34)] == ["split", "split", "streamed"]
        assert tier(1, n, m, 1) == "streamed"


@pytest.mark.parametrize(
    ("tier_name", "n", "m", "why"),
    [
        ("streamed", 10, 8193, "at most 8192 target tokens an item, got 8193"),
        ("split", 10, 8193, "at most 8192 target tokens an item, got 8193"),
        ("registers", 257, 64, "registers hold 16384 entries of an item, and 257 x 64 tokens pad to 32768"),
    ],
)
def test_what_a_tier_cannot_take_is_refused(tier_name: str, n: int, m: int, why: str) -> None:
    x, y = torch.ones(1, n, 1), torch.ones(1, m, 1)
    with pytest.raises(ValueError, match=f"{tier_name} tier: .*{why}"):
        kernels().forward(
            x, y, x[..., 0], y[..., 0], None, epsilon=1.0, iterations=1, tolerance=None, tier_name=tier_name
        )
