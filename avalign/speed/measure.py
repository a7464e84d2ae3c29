"""Time and memory of callables: interleaved, so that all of them meet the same machine."""

from __future__ import annotations

import ctypes
import gc
import random
import re
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

# Seconds before each run: the threads of the last one spin for a while before they sleep (OpenMP).
SETTLE = 0.005
BUDGET, LEAST = 30.0, 3  # seconds of one run in all, and repeats that are made whatever they take
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Times:
    """Seconds of each repeat, and the processor's seconds in them (all threads)."""

    wall: tuple[float, ...]
    processor: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.wall)

    @property
    def quartiles(self) -> tuple[float, float]:
        if len(self.wall) == 1:
            return self.wall[0], self.wall[0]
        low, _, high = statistics.quantiles(self.wall, n=4, method="inclusive")
        return low, high

    @property
    def busy(self) -> float:
        """How many threads were at work, on average."""
        return sum(self.processor) / sum(self.wall)


def interleaved(
    runs: Mapping[Any, Callable[[], Any]],
    repeats: int,
    device: torch.device,
    seed: int = 0,
    budget: float = BUDGET,
) -> dict[Any, Times]:
    """Time every run `repeats` times: each repeat does all of them once, in an order drawn anew.

    So no run always follows the same other, and what slows the machine for a while slows them all. The
    runs must be warm. A run that has spent `budget` seconds and was done LEAST times is done no more. A
    device works behind the caller's back: both ends of a run wait for it.
    """
    order, draw = list(runs), random.Random(seed)
    wall: dict[Any, list[float]] = {name: [] for name in runs}
    processor: dict[Any, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        draw.shuffle(order)
        for name in order:
            if len(wall[name]) >= LEAST and sum(wall[name]) > budget:
                continue
            time.sleep(SETTLE)
            synchronize(device)
            collects = gc.isenabled()
            gc.disable()
            used, start = time.process_time(), time.perf_counter()
            result = runs[name]()
            synchronize(device)
            wall[name].append(time.perf_counter() - start)
            processor[name].append(time.process_time() - used)
            del result
            if collects:
                gc.enable()
    return {name: Times(tuple(wall[name]), tuple(processor[name])) for name in runs}


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def device_seconds(run: Callable[[], Any], device: torch.device, repeats: int = 3) -> float | None:
    """Seconds that the GPU itself is at work in a run, whoever launched it: the sum of its kernels.

    None without a GPU. What is left of the wall time is the caller, launching.
    """
    if device.type != "cuda":
        return None
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    seconds = []
    for _ in range(repeats):
        with profile(activities=[ProfilerActivity.CUDA]) as seen:
            run()
            synchronize(device)
        kernels = [e for e in seen.events() if e.device_type == DeviceType.CUDA]
        seconds.append(sum(e.time_range.elapsed_us() for e in kernels) * 1e-6)
    return statistics.median(seconds)


def peak_memory(run: Callable[[], Any], device: torch.device) -> int | None:
    """Bytes that a run needs at its peak beyond what was held before it; None where nobody counts them.

    On CUDA by torch's counters, which see torch's allocations alone. On a CPU by what the kernel counts
    as resident, whoever allocated it: the process gives back what it can (malloc_trim), the peak is reset
    (/proc/self/clear_refs), and VmHWM after the run is held against VmRSS before it. Buffers a library
    keeps between runs are not seen, as the runs are warm.
    """
    gc.collect()
    if device.type == "cuda":
        synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        _CLEAR.write_text("5")
        before = _resident("VmRSS")
    except (OSError, AttributeError):  # another libc, no /proc, or one that may not be written
        return None
    run()
    return max(0, _resident("VmHWM") - before)


def _resident(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    if found is None:
        raise OSError(f"{_STATUS} has no {field}")
    return int(found[1]) * 1024
