"""What the tests beside each other share."""

from __future__ import annotations

import torch

from tests.helpers.strategies import generator


def random_cost(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=generator(seed), dtype=torch.float64)
