"""What a measurement was made on."""

from __future__ import annotations

import contextlib
import os
import platform
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from avalign.system.versions import versions

PEERS = ("geomloss", "jax", "jaxlib", "ott-jax", "flash-sinkhorn", "triton")
_OPENMP = (
    "OMP_NUM_THREADS",
    "OMP_PROC_BIND",
    "OMP_PLACES",
    "OMP_WAIT_POLICY",
    "KMP_AFFINITY",
    "GOMP_CPU_AFFINITY",
)


def describe(device: torch.device) -> dict[str, Any]:
    """Processor, threads, how they are bound, and how busy the machine was when asked."""
    settings = {name: os.environ[name] for name in _OPENMP if name in os.environ}
    found: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "openmp": settings,
        "pinned": _pinned(settings),
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "device": str(device),
    }
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
        found["cuda"] = torch.version.cuda
    return found


def warnings_of(machine: dict[str, Any]) -> list[str]:
    """What a reader must know before believing a time."""
    found = []
    if machine["threads"] > 1 and not machine["pinned"]:
        found.append(
            "OpenMP threads are not pinned and may share a core (2 to 6 times slower): set "
            "OMP_PROC_BIND=true OMP_PLACES=cores"
        )
    # This process itself is one of those that the load counts.
    if machine["load_before"] is not None and machine["load_before"] > 1.5:
        found.append(f"the machine was busy when this began: load {machine['load_before']}")
    return found


@contextlib.contextmanager
def all_cores() -> Iterator[None]:
    """On all cores that this process has, for what is started within: threads and processes inherit those of
    the thread that starts them, and OpenMP pins that one to a single core (OMP_PROC_BIND)."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    bound = os.sched_getaffinity(0)
    cores = set(bound)
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # it has ended since
            cores |= os.sched_getaffinity(int(thread.name))
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, bound)


def memory_of(field: str, file: str = "/proc/self/status") -> int | None:
    """Bytes as Linux counts them, of this process or, in /proc/meminfo, of the machine; else None."""
    try:
        found = re.search(rf"^{field}:\s+(\d+) kB$", Path(file).read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def free_memory(device: torch.device) -> int | None:
    """Bytes, of the GPU or of the machine; None where nobody counts them."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return memory_of("MemAvailable", "/proc/meminfo")


def all_versions() -> dict[str, str]:
    found = versions()
    for package in PEERS:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _pinned(settings: dict[str, str]) -> bool:
    bound = settings.get("OMP_PROC_BIND", "false").lower() not in ("false", "")
    return bound or "KMP_AFFINITY" in settings or "GOMP_CPU_AFFINITY" in settings


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()
