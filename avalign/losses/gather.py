"""Batches joined over the processes that train together, with gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed


def processes() -> int:
    """How many train together; 1 where nothing was set up."""
    set_up = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if set_up else 1


def rank() -> int:
    """Which of them this one is, from 0."""
    return distributed.get_rank() if processes() > 1 else 0


def gather(local: Tensor) -> Tensor:
    """The rows of all processes, those of process 0 first: (b, ...) -> (processes * b, ...).

    Gradient: what every process's result says of a row is added up and returned to the process that the
    row came from. To be called, and differentiated, by all of them alike.
    ValueError where the processes hold different shapes, which no gathering could join.
    """
    if processes() == 1:
        return local
    shape = torch.tensor(local.shape, device=local.device)
    shapes = [torch.empty_like(shape) for _ in range(processes())]
    distributed.all_gather(shapes, shape)
    if any(not torch.equal(other, shape) for other in shapes):
        said = ", ".join(str(tuple(other.tolist())) for other in shapes)
        raise ValueError(f"the processes hold batches of different shapes, {said}: give each as many samples")
    joined: Tensor = _Gather.apply(local)
    return joined


class _Gather(torch.autograd.Function):
    """torch.distributed.nn.functional.all_gather does this too, and is deprecated in torch 2.15."""

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        rows = [torch.empty_like(local, memory_format=torch.contiguous_format) for _ in range(processes())]
        distributed.all_gather(rows, local.contiguous())
        return torch.cat(rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        distributed.all_reduce(total)
        return total.chunk(processes())[rank()]
