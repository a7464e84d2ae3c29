"""Hypothesis strategies: problems of every shape, as tensors, with what is known of them."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

quick = settings(max_examples=30)

seeds = st.integers(0, 2**31 - 1)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass
class Transport:
    """A batch of transport problems as a caller gives it. float64; None where the caller gives nothing."""

    cost: Tensor  # (b, n, m)
    source: Tensor | None = None  # (b, n)
    target: Tensor | None = None  # (b, m)
    source_mask: Tensor | None = None
    target_mask: Tensor | None = None

    def arguments(self) -> dict[str, Tensor | None]:
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def marginals(self) -> tuple[Tensor, Tensor]:
        """What the given weights and masks mean, worked out by another road than the solver's."""
        return (
            _marginal(self.source, self.source_mask, self.cost.shape[:2]),
            _marginal(self.target, self.target_mask, (self.cost.shape[0], self.cost.shape[2])),
        )

    def item(self, k: int) -> Transport:
        return Transport(*(None if t is None else t[k : k + 1] for t in self.arguments().values()))

    def to(self, dtype: torch.dtype) -> Transport:
        return Transport(
            *(
                t.to(dtype) if t is not None and t.is_floating_point() else t
                for t in self.arguments().values()
            )
        )


def _marginal(weights: Tensor | None, mask: Tensor | None, shape: tuple[int, ...]) -> Tensor:
    if weights is not None:
        return weights
    rows = [[1.0] * shape[1]] * shape[0] if mask is None else mask.tolist()
    return torch.tensor([[float(x) / sum(row) for x in row] for row in rows], dtype=torch.float64)


@st.composite
def transports(draw: st.DrawFn, most: int = 7, batch: int = 3) -> Transport:
    """Costs in 0..0.5, free or between features; marginals uniform or given (zeros too); masks or none.

    With costs in 0..r an iteration of Sinkhorn leaves at most tanh(r / (2 epsilon))^2 of the error
    (Birkhoff's
    theorem): every problem here converges to 1e-10 within 1,000 iterations at epsilon 0.1.
    """
    b, n, m = draw(st.integers(1, batch)), draw(st.integers(1, most)), draw(st.integers(1, most))
    random = generator(draw(seeds))
    cost = torch.rand(b, n, m, generator=random, dtype=torch.float64) / 2
    if draw(st.booleans()):
        x, y = (torch.randn(b, k, 3, generator=random, dtype=torch.float64) for k in (n, m))
        cost = 0.25 - 0.25 * torch.cosine_similarity(x[:, :, None], y[:, None], dim=3)
    sides = []
    for k in (n, m):
        mask = weights = None
        if draw(st.booleans()):
            mask = torch.rand(b, k, generator=random) < 0.6
            mask[:, draw(st.integers(0, k - 1))] = True
        if draw(st.booleans()):
            weights = torch.rand(b, k, generator=random, dtype=torch.float64) + 0.1
            if mask is not None:
                weights = weights * mask
            elif k > 1 and draw(st.booleans()):
                weights[:, 0] = 0
            weights = weights / weights.sum(1, keepdim=True)
        sides.append((weights, mask))
    (source, source_mask), (target, target_mask) = sides
    return Transport(cost, source, target, source_mask, target_mask)


@st.composite
def boxes(draw: st.DrawFn, grid: int = 24, most: int = 4) -> list[tuple[int, int, int, int]]:
    """Up to `most` boxes with corners on a grid of `grid` lines a side: (left, top, right, bottom)."""
    edge = st.integers(0, grid)
    box = st.tuples(edge, edge, edge, edge).map(
        lambda e: (min(e[0], e[2]), min(e[1], e[3]), max(e[0], e[2]), max(e[1], e[3]))
    )
    return draw(st.lists(box, max_size=most))
