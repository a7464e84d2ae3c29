"""The Triton kernels on a card: the kernels' contract, and what only a card can show."""

from __future__ import annotations

import pytest
import torch

from tests.helpers import kernel_contract
from tests.helpers.kernel_contract import TIERS
from tests.helpers.kernel_reference import Features, forward, kernels, tier

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
pytest.importorskip("triton", reason="Triton is not installed")


@pytest.mark.parametrize("name", kernel_contract.CHECKS)
def test_contract(name: str) -> None:
    kernel_contract.run(name, "cuda")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "shape", [(4, 196, 64, 512), (4, 196, 300, 512), (1, 1024, 1024, 512), (1, 70, 5000, 64)]
)
def test_full_size(shape: tuple[int, int, int, int], dtype: torch.dtype) -> None:
    """As many tokens as a clip has and more, in blocks as shipped."""
    kernel_contract.check_fixed_iterations("cuda", None, shape, dtype, 0.05)


@pytest.mark.parametrize("shape", [(4, 1024, 1024, 512), (1, 4096, 4096, 64), (1, 3001, 5000, 48)])
def test_few_items_of_many_tokens(shape: tuple[int, int, int, int]) -> None:
    """What is split among programs, and the same streamed."""
    processors = kernels().processors(torch.device("cuda"))
    assert kernels().tier(*shape[:3], processors) == ("split" if 4 * shape[0] <= processors else "streamed")
    kernel_contract.check_many_blocks("cuda", torch.bfloat16, shape)


@pytest.mark.parametrize("tolerance", [None, 1e-3])
@pytest.mark.parametrize("name", TIERS)
def test_a_cuda_graph_replays_it(name: str, tolerance: float | None) -> None:
    """Captured once, replayed on other features: nothing was decided on the host."""
    given, other = (Features.drawn("cuda", (3, 100, 60, 64), seed=seed) for seed in (1, 2))
    settings = {"epsilon": 0.02, "iterations": 200, "tolerance": tolerance}

    def step(features: Features) -> tuple[torch.Tensor, ...]:
        with tier(name):
            solution = forward(features, synchronize=False, **settings)
            x, y, a, b = features.x, features.y, features.a, features.b
            return (
                *solution,
                *kernels().backward(x, y, a, b, solution.f, solution.g, 0.02, features.upstream),
            )

    right = step(other)
    step(given)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step(given)
    given.x.copy_(other.x)
    given.y.copy_(other.y)
    given.a.copy_(other.a)
    given.b.copy_(other.b)
    graph.replay()
    torch.cuda.synchronize()
    assert all(torch.equal(got, there) for got, there in zip(captured, right, strict=True))


@pytest.mark.parametrize("name", TIERS)
def test_it_gives_the_same_bits_each_time(name: str) -> None:
    given = Features.drawn("cuda", (4, 196, 64, 512), torch.bfloat16)
    with tier(name):
        first, *others = (forward(given, epsilon=0.01, iterations=500, tolerance=1e-4) for _ in range(4))
    for other in others:
        assert all(torch.equal(got, there) for got, there in zip(other, first, strict=True))
