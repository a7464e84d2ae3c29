"""Which engine does the rounds: the fused kernels where they can run, torch everywhere."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from avalign.kernels import cpu
from avalign.ot import rounds as torch_engine
from avalign.ot.problem import TransportError
from avalign.ot.rounds import Potentials

Engine = Literal["auto", "c++", "triton", "torch"]
ENGINES = ("auto", "c++", "triton", "torch")


def choose(engine: str, tensor: Tensor) -> str:
    """The engine that will run for this tensor; one that was named and cannot run is an error."""
    if engine not in ENGINES:
        raise TransportError(f"engine must be one of {', '.join(ENGINES)}, not {engine!r}")
    if engine == "torch":
        return engine
    why = why_not("c++", tensor)
    if engine == "c++" and why is not None:
        raise TransportError(f"engine 'c++' cannot run here: {why}")
    return "torch" if why is not None else "c++"


def why_not(engine: str, tensor: Tensor) -> str | None:
    """Why an engine cannot take this tensor, in a line; None if it can."""
    if engine == "c++":
        if tensor.device.type != "cpu":
            return f"it is for the CPU, and the input is on {tensor.device}"
        if tensor.dtype == torch.float64:
            return "it computes in float32, and the input is float64"
        return cpu.why_unavailable()
    return None


def solve(
    engine: str,
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    epsilon: float,
    rounds: int,
    tolerance: float | None,
    start: Tensor | None,
) -> Potentials:
    """avalign.ot.rounds.solve by the engine that `choose` chose."""
    if engine == "c++":
        found = cpu.from_cost(cost, a, b, start, epsilon=epsilon, rounds=rounds, tolerance=tolerance)
        return Potentials(found.f, found.g, found.error, found.rounds)
    return torch_engine.solve(cost, a, b, epsilon, rounds, tolerance, start)
