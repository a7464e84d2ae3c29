"""The Triton kernels, run by Triton's interpreter: what they compute, without a GPU.

Triton asks once, when it is imported, whether to interpret. So the checks run in a process of their own,
and the rest of the suite sees Triton as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from avalign.ot import rounds
from tests import kernel_contract
from tests.kernel_reference import kernels

pytest.importorskip("triton", reason="Triton is not installed")


@pytest.fixture(scope="module")
def interpreter() -> Iterator[ProcessPoolExecutor]:
    with pytest.MonkeyPatch.context() as patch, ProcessPoolExecutor(1, get_context("spawn")) as pool:
        patch.setenv("TRITON_INTERPRET", "1")
        assert pool.submit(_interpreted).result(), "the process started without TRITON_INTERPRET"
        yield pool


def _interpreted() -> bool:
    import torch

    torch.set_num_threads(1)
    return bool(kernels().INTERPRETED)


@pytest.mark.parametrize("name", kernel_contract.CHECKS)
def test_interpreted(name: str, interpreter: ProcessPoolExecutor) -> None:
    interpreter.submit(kernel_contract.run, name, "cpu").result()


def test_rounds_go_by_the_same_numbers_as_the_torch_engine() -> None:
    """The kernels may not import avalign.ot, and state them again."""
    from avalign.kernels import triton_cosine

    for name in (
        "WINDOW", "MOST_SCALING", "FIRST_RELAXATION", "MOST_RELAXATION", "GROWTH", "EASY_REACH",
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
