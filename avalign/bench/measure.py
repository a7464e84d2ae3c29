"""Time and memory of callables: interleaved, so that all of them meet the same machine."""

from __future__ import annotations

import ctypes
import gc
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import torch

from avalign.bench.machine import memory_of

# Seconds before each run: the threads of the last one spin for a while before they sleep (OpenMP).
SETTLE = 0.005
BUDGET, LEAST = 30.0, 3  # seconds of one run in all, and repeats that are made whatever they take
Key = TypeVar("Key")
Sample: TypeAlias = tuple[float, float]  # seconds, and the processor's seconds in them (all threads)
_CLEAR = Path("/proc/self/clear_refs")


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


def timed(run: Callable[[], Any], device: torch.device) -> Sample:
    """One run, of which the result is dropped. A device works behind its caller: both ends wait."""
    time.sleep(SETTLE)
    synchronize(device)
    collects = gc.isenabled()
    gc.disable()
    try:
        used, start = time.process_time(), time.perf_counter()
        result = run()
        synchronize(device)
        sample = time.perf_counter() - start, time.process_time() - used
        del result
    finally:
        if collects:
            gc.enable()
    return sample


def interleaved(
    runs: Mapping[Key, Callable[[], Sample | None]], repeats: int, seed: int = 0, budget: float = BUDGET
) -> dict[Key, Times]:
    """Make every timed run `repeats` times: each repeat makes all of them once, in a new random order.

    So no run always follows the same other, and what slows the machine for a while slows them all. The
    runs must be warm. A run that has spent `budget` seconds and was made LEAST times is made no more, nor
    is one that gave None. Those that never gave a time are not in the result.
    """
    order, rng = list(runs), random.Random(seed)
    made: dict[Key, list[Sample]] = {name: [] for name in runs}
    for _ in range(repeats):
        rng.shuffle(order)
        for name in list(order):
            if len(made[name]) >= LEAST and sum(wall for wall, _ in made[name]) > budget:
                continue
            sample = runs[name]()
            if sample is None:
                order.remove(name)
            else:
                made[name].append(sample)
    return {
        name: Times(tuple(wall for wall, _ in each), tuple(used for _, used in each))
        for name, each in made.items()
        if each
    }


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
    except (OSError, AttributeError):  # another libc, no /proc, or one that may not be written
        return None
    held = memory_of("VmRSS")
    run()
    most = memory_of("VmHWM")
    return None if held is None or most is None else max(0, most - held)
