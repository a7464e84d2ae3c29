"""How long a competitor may take, and how much memory: none keeps the others waiting or ends them."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from avalign.bench.machine import free_memory, memory_of
from avalign.errors import AvalignError

SECONDS = 60.0
SHARE = 0.8  # of the memory that is free when the command begins


@dataclass(frozen=True)
class Limits:
    """seconds: to be made ready, and again for any one run; bytes: beyond what its process holds, or None"""

    seconds: float = SECONDS
    bytes: int | None = None


def read_limits(seconds: float, gib: float | None, device: torch.device) -> Limits:
    if not (seconds > 0 and math.isfinite(seconds)):
        raise AvalignError(f"--time-limit must be above 0 seconds, got {seconds}.")
    if gib is None:
        free = free_memory(device)
        unbounded = free is None or (device.type == "cpu" and _held() is None)
        return Limits(seconds, None if free is None or unbounded else int(SHARE * free))
    if not (gib > 0 and math.isfinite(gib)):
        raise AvalignError(f"--memory-limit must be above 0 GiB, got {gib}.")
    if device.type == "cpu" and _held() is None:
        raise AvalignError(
            "--memory-limit: only Linux counts and bounds the memory of a process as needed here."
        )
    return Limits(seconds, int(gib * 2**30))


@contextlib.contextmanager
def bounded(limits: Limits, device: torch.device) -> Iterator[None]:
    """Within, allocations beyond the limit fail: on a CPU whoever makes them, on CUDA those of torch.

    What the process holds already is not counted: Linux bounds its private writable memory (RLIMIT_DATA).
    """
    if limits.bytes is None:
        yield
    elif device.type == "cuda":
        torch.cuda.empty_cache()
        allowed = (torch.cuda.memory_reserved(device) + limits.bytes) / torch.cuda.mem_get_info(device)[1]
        torch.cuda.set_per_process_memory_fraction(min(1.0, allowed), device)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, device)
    else:
        import resource

        held, (soft, hard) = _held(), resource.getrlimit(resource.RLIMIT_DATA)
        if held is None:
            raise OSError("Linux counts no VmData of this process")
        most = [held + limits.bytes, *(each for each in (soft, hard) if each != resource.RLIM_INFINITY)]
        resource.setrlimit(resource.RLIMIT_DATA, (min(most), hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def bound_jax(limits: Limits, device: torch.device) -> None:
    """Before jax is imported, which else takes three quarters of a GPU at once."""
    if device.type != "cuda":
        return
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if limits.bytes is not None:
        share = min(1.0, limits.bytes / torch.cuda.mem_get_info(device)[1])
        os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", f"{share:.4f}")


def is_out_of_memory(error: BaseException) -> bool:
    """In the words of Python, numpy, torch and XLA."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or tells_of_memory(text_of(error))


def tells_of_memory(text: str) -> bool:
    words = text.lower()
    told = ("can't allocate memory", "not enough memory", "out of memory", "resource_exhausted", "bad_alloc")
    return any(each in words for each in told)


def gib(size: int) -> str:
    return f"{size / 2**30:.3g} GiB"


def text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # one of a stranger's, whose own text fails
        return "no text"


def _held() -> int | None:
    """Bytes of private writable memory; None where nobody counts them."""
    return memory_of("VmData")
