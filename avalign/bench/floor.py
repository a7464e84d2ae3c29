"""The least time a loss could take: its three products and its memory traffic at the machine's own rates."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from avalign.bench.inputs import Shape
from avalign.bench.measure import synchronize
from avalign.kernels.cpu import engine as cpu

PRODUCT_SIZES = {"cpu": (1024, 2048), "cuda": (4096, 8192)}  # sides of the square matrices multiplied
COPY_BYTES = {"cpu": 2**28, "cuda": 2**30}  # far beyond any cache
BEST_OF = 5


@dataclass(frozen=True)
class Rate:
    value: float  # a second
    source: str  # what reached it


@dataclass(frozen=True)
class Rates:
    """What this machine reached, in this process and on these threads."""

    product: dict[str, Rate]  # operations (a multiplication or an addition), by the name of the dtype
    copy: Rate  # bytes, read and written counted apart


def measure_rates(device: torch.device) -> Rates:
    return Rates({name: _product(device, name) for name in ("float32", "bfloat16")}, _copy(device))


def floor_seconds(shape: Shape, element_size: int, product: float, copy: float) -> float:
    """6 B N M D operations, and the features read and their gradients written once each.

    The operations are those of the cost and of its two gradients, 2 B N M D each. Sinkhorn's iterations,
    exponentials and the norms of the features count nothing: no loss can be this quick.

    element_size: bytes of a feature; product: operations a second; copy: bytes a second
    """
    b, n, m, d = shape.sizes
    moved = 2 * b * (n + m) * d * element_size
    return 6 * b * n * m * d / product + moved / copy


def _product(device: torch.device, name: str) -> Rate:
    """The best of torch.mm on large squares, and of our own kernel where there is one."""
    dtype, found = getattr(torch, name), []
    for size in PRODUCT_SIZES[device.type]:
        x, y = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        seconds = _best(lambda x=x, y=y: torch.mm(x, y), device)  # type: ignore[misc]
        found.append(Rate(2 * size**3 / seconds, f"torch.mm of {size} x {size}"))
    if device.type == "cpu":
        found += _own_product(name)
    return max(found, key=lambda rate: rate.value)


def _own_product(name: str) -> list[Rate]:
    if cpu.why_unavailable() is not None:
        return []
    return [Rate(cpu.product_rate(getattr(torch, name)), "the inner loop of avalign.kernels.cpu.engine")]


def _copy(device: torch.device) -> Rate:
    source = torch.ones(COPY_BYTES[device.type] // 4, device=device)
    target = torch.empty_like(source)
    seconds = _best(lambda: target.copy_(source), device)
    return Rate(2 * COPY_BYTES[device.type] / seconds, f"torch copy of {COPY_BYTES[device.type] >> 20} MiB")


def _best(run: Callable[[], Any], device: torch.device) -> float:
    best = float("inf")
    for _ in range(BEST_OF + 1):  # the first of them warms up, and is never the best
        synchronize(device)
        start = time.perf_counter()
        run()
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return best
