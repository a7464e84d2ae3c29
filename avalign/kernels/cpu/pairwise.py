"""The fused CPU kernel for every set of rows with every set of columns (source/pairwise.hpp)."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from avalign.kernels.cpu.engine import check, library, pointer


class Settings(Protocol):
    @property
    def epsilon(self) -> float: ...
    @property
    def rho_source(self) -> float: ...
    @property
    def rho_target(self) -> float: ...
    @property
    def shift(self) -> float: ...
    @property
    def iterations(self) -> int: ...
    @property
    def tolerance(self) -> float | None: ...


def solve(
    similarity: Tensor, source: Tensor, target: Tensor, start: Tensor | None, settings: Settings
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """value (r, c), f (r, c, n), g (r, c, m), error and iterations (r, c): -1 of a pair that is not solved.

    Shapes: similarity (r * n, c * m), float32; source (r, n), target (c, m); start (r, c, m) or None
    """
    (r, n), (c, m) = source.shape, target.shape
    similarity, source, target = similarity.contiguous(), source.contiguous(), target.contiguous()
    start = None if start is None else start.contiguous()
    out = (
        torch.empty(r, c), torch.empty(r, c, n), torch.empty(r, c, m), torch.empty(r, c),
        torch.empty(r, c, dtype=torch.int64),
    )  # fmt: skip
    code = library().avalign_all_pairs(
        pointer(similarity), similarity.shape[1], r, c, n, m,
        *(pointer(each) for each in (source, target, start)),
        settings.epsilon, settings.rho_source, settings.rho_target, settings.shift, settings.iterations,
        -1.0 if settings.tolerance is None else settings.tolerance, *(pointer(each) for each in out),
        torch.get_num_threads(),
    )  # fmt: skip
    check(code)
    return out


def plan(
    similarity: Tensor,
    source: Tensor,
    target: Tensor,
    f: Tensor,
    g: Tensor,
    weight: Tensor,
    epsilon: float,
    carried: bool,
    out: Tensor,
) -> tuple[Tensor, Tensor] | None:
    """Plans times weight (r, c) into `out`, as similarity (r * n, c * m) lies; where wanted their sums."""
    (r, n), (c, m) = source.shape, target.shape
    similarity, source, target, f, g, weight = (
        each.contiguous() for each in (similarity, source, target, f, g, weight)
    )
    sums = (torch.empty(r, c, n), torch.empty(r, c, m)) if carried else None
    code = library().avalign_all_pairs_plan(
        pointer(similarity), pointer(out), similarity.shape[1], r, c, n, m,
        *(pointer(each) for each in (source, target, f, g, weight)), epsilon,
        *(pointer(each) for each in sums or (None, None)), torch.get_num_threads(),
    )  # fmt: skip
    check(code)
    return sums
