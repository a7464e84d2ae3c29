"""Sets of tokens for transport of every one with every one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tests.helpers.strategies import generator

INF = math.inf
PRICES = [(INF, INF), (0.02, INF), (INF, 0.05), (0.0, INF), (INF, 0.0), (0.0, 0.0), (0.05, 0.1), (0.0, 0.1)]
ENGINES = [("c++", torch.float32), ("torch", torch.float32), ("torch", torch.float64)]
fine: dict[str, Any] = {"tolerance": 1e-10, "iterations": 20_000}


@dataclass
class Sets:
    """r sets of n tokens and c of m, with what may be given of them. float64."""

    x: Tensor
    y: Tensor
    source: Tensor
    target: Tensor
    x_mask: Tensor
    y_mask: Tensor

    def to(self, dtype: torch.dtype) -> tuple[Tensor, ...]:
        real = (self.x, self.y, self.source, self.target)
        return (*(each.to(dtype) for each in real), self.x_mask, self.y_mask)


def sets(seed: int, r: int = 3, c: int = 4, n: int = 5, m: int = 3, d: int = 6) -> Sets:
    random = generator(seed)
    x, y = (torch.randn(k, s, d, generator=random, dtype=torch.float64) for k, s in ((r, n), (c, m)))
    masks = [torch.rand(k, s, generator=random) < 0.7 for k, s in ((r, n), (c, m))]
    for mask in masks:
        mask[:, 0] = True
    weights = [torch.rand(mask.shape, generator=random, dtype=torch.float64) * mask for mask in masks]
    source, target = (each / each.sum(1, keepdim=True) for each in weights)
    return Sets(x, y, source, target, *masks)
