"""Which engine does the iterations: the fused kernels where they can run, torch everywhere."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor

from avalign.kernels.cpu import engine as cpu
from avalign.ot import iterations as torch_engine
from avalign.ot.iterations import Potentials
from avalign.ot.problem import TransportError

# Of "triton", its three tiers (avalign/kernels/triton/sinkhorn.py) by name, or whichever suits the shapes.
Engine = Literal["auto", "c++", "triton", "triton-registers", "triton-streamed", "triton-split", "torch"]
ENGINES: tuple[str, ...] = get_args(Engine)


def choose(engine: str, tensor: Tensor, columns: int | None = None) -> str:
    """The engine that will run for this cost, or for these features (b, n, d) and `columns` target tokens;
    of triton, the tier.

    One that was named and cannot run is an error.
    """
    if engine not in ENGINES:
        raise TransportError(f"engine must be one of {', '.join(ENGINES)}, not {engine!r}")
    if engine == "torch":
        return engine
    if engine != "auto":
        if (why := why_not(engine, tensor, columns)) is not None:
            raise TransportError(f"engine {engine!r} cannot run here: {why}")
        return _with_tier(engine, tensor, columns)
    for fused in ("c++", "triton"):
        if why_not(fused, tensor, columns) is None:
            return _with_tier(fused, tensor, columns)
    return "torch"


def is_triton(engine: str) -> bool:
    return engine.startswith("triton")


def tier_of(engine: str) -> Any:
    """The tier that an engine's name names; None if it leaves it open."""
    return engine.removeprefix("triton").removeprefix("-") or None


def _with_tier(engine: str, tensor: Tensor, columns: int | None) -> str:
    if engine != "triton" or columns is None:
        return engine
    from avalign.kernels.triton import sinkhorn as triton_sinkhorn

    items, rows = tensor.shape[:2]
    processors = triton_sinkhorn.processors(tensor.device)
    return f"triton-{triton_sinkhorn.tier(items, rows, columns, processors)}"


def why_not(engine: str, tensor: Tensor, columns: int | None) -> str | None:
    """Why an engine cannot take this tensor, in a line; None if it can."""
    if tensor.dtype == torch.float64:
        return "it computes in float32, and the input is float64"
    if engine == "c++":
        if tensor.device.type != "cpu":
            return f"it is for the CPU, and the input is on {tensor.device}"
        return cpu.why_unavailable()
    if columns is None:
        return "it solves from features, not from a cost"
    try:
        from avalign.kernels.triton import sinkhorn as triton_sinkhorn
    except ImportError as missing:
        return f"triton is not installed ({missing})"
    if tensor.device.type != "cuda" and not triton_sinkhorn.INTERPRETED:
        return f"it is for CUDA, and the input is on {tensor.device}"
    # Whatever any tier takes, the streamed one does.
    return triton_sinkhorn.why_not(tier_of(engine) or "streamed", tensor.shape[1], columns)


def solve(
    engine: str,
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    epsilon: float,
    iterations: int,
    tolerance: float | None,
    init_g: Tensor | None,
) -> Potentials:
    """avalign.ot.iterations.solve by the engine that `choose` chose."""
    if engine == "c++":
        found = cpu.from_cost(cost, a, b, init_g, epsilon=epsilon, iterations=iterations, tolerance=tolerance)
        return Potentials(found.f, found.g, found.error, found.iterations)
    return torch_engine.solve(cost, a, b, epsilon, iterations, tolerance, init_g)
