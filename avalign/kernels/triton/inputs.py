"""What every tier of the Triton kernels is given, and the sizes they are compiled for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

INTERPRETED = triton.knobs.runtime.interpret
COMPILED = {"enable_fp_fusion": True}  # said aloud, as Triton asks


@dataclass(frozen=True)
class Inputs:
    """Problems with their cost made.

    Shapes: a (b, n), b (b, m), init_g (b, m) or None, cost (b, n, width), broken (b, blocks of n, blocks of
            m); all contiguous
    """

    a: Tensor
    b: Tensor
    init_g: Tensor | None
    cost: Tensor
    broken: Tensor
    epsilon: float
    iterations: int
    tolerance: float | None

    @property
    def modes(self) -> dict[str, Any]:
        return {"WARM": self.init_g is not None, "RELAXED": self.tolerance is not None}

    @property
    def sides(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.a, self.b, self.b if self.init_g is None else self.init_g

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """n, m, width, blocks"""
        return self.a.shape[1], self.b.shape[1], self.cost.shape[2], self.broken[0].numel()

    @property
    def settings(self) -> tuple[float, int, float]:
        return self.epsilon, self.iterations, 0.0 if self.tolerance is None else self.tolerance


def padded(k: int) -> int:
    return max(16, triton.next_power_of_2(k))


def empty(like: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device=like.device)
