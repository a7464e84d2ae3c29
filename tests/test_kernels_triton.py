"""The Triton kernels, run by Triton's interpreter: what they compute, without a GPU.

Triton asks once, when it is imported, whether to interpret. So the checks run in a process of their own,
and the rest of the suite sees Triton as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import torch

from avalign.losses import AVOpT
from avalign.ot import TransportError, cosine_sinkhorn, rounds
from tests import kernel_contract
from tests.kernel_reference import kernels

pytest.importorskip("triton", reason="Triton is not installed")


@pytest.fixture(scope="module")
def interpreter() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        with (
            pytest.MonkeyPatch.context() as patch
        ):  # no longer than it takes to start: here it must not be set
            patch.setenv("TRITON_INTERPRET", "1")
            assert pool.submit(_interpreted).result(), "the process started without TRITON_INTERPRET"
        yield pool


def _interpreted() -> bool:
    torch.set_num_threads(1)
    return bool(kernels().INTERPRETED)


def test_the_solver_takes_the_engine_by_name(interpreter: ProcessPoolExecutor) -> None:
    interpreter.submit(_same_as_torch).result()


def _same_as_torch() -> None:
    """Value, gradients to features and weights, and bounds, through avalign.ot and AVOpT."""
    x, y = (torch.randn(2, k, 20, generator=torch.Generator().manual_seed(k)) for k in (13, 9))
    found = []
    for engine in ("triton", "torch"):
        leaves = [t.clone().requires_grad_() for t in (x, y, torch.linspace(-1, 1, 13).expand(2, -1))]
        image, audio, scores = leaves
        loss = AVOpT(engine=engine)
        plan = loss.solve(image, audio, image_weights=scores.softmax(1))
        assert plan.engine == engine
        (plan.value * torch.tensor([1.0, 3.0])).sum().backward()
        found.append([plan.value, plan.matrix, plan.lower, plan.upper, *(leaf.grad for leaf in leaves)])
    for near, right in zip(*found, strict=True):
        torch.testing.assert_close(near, right, atol=2e-6, rtol=2e-4)
    y[1, 2] = torch.nan
    with pytest.raises(TransportError, match=r"item\(s\) \[1\]"):
        cosine_sinkhorn(x, y, engine="triton")


@pytest.mark.parametrize("name", kernel_contract.CHECKS)
def test_interpreted(name: str, interpreter: ProcessPoolExecutor) -> None:
    interpreter.submit(kernel_contract.run, name, "cpu").result()


def test_rounds_go_by_the_same_numbers_as_the_torch_engine() -> None:
    """The kernels may not import avalign.ot, and state them again."""
    from avalign.kernels import triton_cosine

    for name in (
        "WINDOW", "MOST_SCALING", "FIRST_RELAXATION", "MOST_RELAXATION", "GROWTH", "RISES", "EASY_REACH",
        "ROUGH_ERROR", "ROUGH_ROUNDS",
    ):  # fmt: skip
        assert getattr(triton_cosine, name).value == getattr(rounds, name), name


def test_the_tier_is_that_of_the_padded_matrix() -> None:
    """(196, 64) pads to 256 x 64, all that registers hold; what no block of whole rows holds is refused."""
    tier = kernels().tier
    assert [tier(n, m, 512) for n, m in ((196, 64), (64, 196), (5, 1), (128, 128))] == ["registers"] * 4
    assert [tier(n, m, 512) for n, m in ((196, 65), (257, 64), (10**6, 8192))] == ["streamed"] * 3
    with pytest.raises(ValueError, match="at most 8192 target tokens an item, got 8193"):
        tier(10, 8193, 512)
