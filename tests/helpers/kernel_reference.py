"""Problems for the Triton kernels, and their answers by avalign.ot in float64."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from avalign.ot import cosine_cost
from avalign.ot.gradient import transport_value
from avalign.ot.iterations import Potentials, solve
from avalign.ot.problem import Problem
from tests.helpers.strategies import generator
from tests.helpers.tolerances import TOLERANCES


@dataclass(frozen=True)
class Features:
    """Two sets of features that resemble each other, uneven marginals, some of them 0 over NaN.

    Shapes: x (b, n, d), y (b, m, d), a (b, n), b (b, m), upstream (b,)
    """

    x: Tensor
    y: Tensor
    a: Tensor
    b: Tensor
    upstream: Tensor

    @classmethod
    def drawn(
        cls, device: str, shape: tuple[int, int, int, int], dtype: torch.dtype = torch.float32, seed: int = 0
    ) -> Features:
        items, n, m, d = shape
        random = generator(seed)
        centres = torch.randn(items, 4, d, generator=random)
        sides = []
        for k in (n, m):
            features = torch.randn(items, k, d, generator=random) + centres[:, torch.arange(k) % 4]
            weights = torch.rand(items, k, generator=random) + 0.1
            if k > 4:
                weights[0, 3] = weights[-1, k - 1] = 0
            features[weights == 0] = torch.nan
            sides.append((features.to(dtype).to(device), (weights / weights.sum(1, keepdim=True)).to(device)))
        upstream = torch.linspace(-2, 0.7, items).to(device)
        return cls(sides[0][0], sides[1][0], sides[0][1], sides[1][1], upstream)

    def item(self, k: int) -> Features:
        return Features(*(t[k : k + 1] for t in (self.x, self.y, self.a, self.b, self.upstream)))

    def double(self) -> Features:
        """In float64, with what must not be read as zeros, and gradients to come."""
        x, y = (
            features.double().masked_fill((weights == 0)[:, :, None], 0).requires_grad_()
            for features, weights in ((self.x, self.a), (self.y, self.b))
        )
        return Features(x, y, self.a.double(), self.b.double(), self.upstream.double())


def kernels() -> Any:
    """The module, which must not be imported before TRITON_INTERPRET is set."""
    from avalign.kernels.triton import sinkhorn as triton_sinkhorn

    return triton_sinkhorn


@contextmanager
def tier(name: str | None) -> Iterator[None]:
    """One tier whatever the shape, in blocks so small that small problems have several; None: as shipped."""
    if name is None:
        yield
        return
    from avalign.kernels.triton import blocks as triton_blocks

    with (
        mock.patch.object(kernels(), "tier", return_value=name),
        mock.patch.object(triton_blocks, "BLOCK_ELEMENTS", 512),
    ):
        yield


def forward(
    given: Features, init_g: Tensor | None = None, *, synchronize: bool = True, **settings: Any
) -> Any:
    return kernels().forward(given.x, given.y, given.a, given.b, init_g, synchronize=synchronize, **settings)


def reference(
    given: Features, epsilon: float, iterations: int, tolerance: float | None, init_g=None
) -> Potentials:
    exact = given.double()
    cost = cosine_cost(exact.x, exact.y).detach()
    return solve(cost, exact.a, exact.b, epsilon, iterations, tolerance, init_g)


def reference_value(given: Features, f: Tensor, g: Tensor, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    """The value of such potentials, and its gradients, by autograd through the cost."""
    exact = given.double()
    cost = cosine_cost(exact.x, exact.y)
    problem = Problem(exact.a, exact.b, lambda: cost)
    value = transport_value(problem, f.double(), g.double(), epsilon, "dual")
    (exact.upstream * value).sum().backward()
    return value.detach(), exact.x.grad, exact.y.grad


def assert_near(actual: Tensor, expected: Tensor, dtype: torch.dtype, epsilon: float = 1.0) -> None:
    """As near as `dtype` lets it be, of the largest; roundings of the cost count more at small epsilons."""
    row, slack = TOLERANCES[dtype], max(1.0, 0.02 / epsilon)
    scale = expected.abs().max().clamp(min=1e-30)
    torch.testing.assert_close(
        actual.double() / scale, expected / scale, atol=row.absolute * slack, rtol=row.relative * slack
    )


def assert_gradients(given: Features, solution, epsilon: float) -> None:
    value, to_x, to_y = reference_value(given, solution.f, solution.g, epsilon)
    torch.testing.assert_close(solution.value.double(), value, atol=1e-6, rtol=1e-5)
    gradients = kernels().backward(
        given.x, given.y, given.a, given.b, solution.f, solution.g, epsilon, given.upstream
    )
    for got, right, weights in zip(gradients, (to_x, to_y), (given.a, given.b), strict=True):
        assert got.dtype == given.x.dtype
        assert (got[weights == 0] == 0).all()
        assert_near(got, right, given.x.dtype, epsilon)
