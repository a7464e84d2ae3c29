"""Exact optimal transport by POT's network simplex, item by item, in double precision on the CPU."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avalign.ot.gradient import Slopes, only_once
from avalign.ot.plan import Plan
from avalign.ot.problem import problem

PIVOTS = 1_000_000  # of the simplex, at most; 1024 x 1024 takes a few 10,000
THREADED = 100_000  # entries of a cost from which on an item takes more than 5 ms or so


def exact(
    cost: Tensor,
    source: Tensor | None = None,
    target: Tensor | None = None,
    source_mask: Tensor | None = None,
    target_mask: Tensor | None = None,
) -> Plan:
    """min over T in Pi(source, target) of <T, C>; the gradient to C is T, to the marginals the potentials.

    At ties there are several best plans, and this is one of them (the gradient then a subgradient).

    Shapes: cost (b, n, m); source, source_mask (b, n); target, target_mask (b, m), True where real
    Source: Bonneel et al., Displacement interpolation, 2011, as POT implements it (`pip install pot`)
    """
    try:
        import ot
    except ImportError as missing:
        raise ModuleNotFoundError("the exact solver needs POT: pip install pot", name="ot") from missing
    inputs = problem(cost, source, target, source_mask, target_mask)
    c, a, b = (t.detach().double().cpu().numpy() for t in (inputs.cost, inputs.source, inputs.target))
    matrix, f, g = np.zeros_like(c), np.zeros_like(a), np.zeros_like(b)
    converged = np.zeros(len(c), dtype=bool)

    def solve(k: int) -> None:
        i, j = a[k].nonzero()[0], b[k].nonzero()[0]
        u, v = a[k, i] / a[k, i].sum(), b[k, j] / b[k, j].sum()
        plan, log = ot.emd(u, v, np.ascontiguousarray(c[k][np.ix_(i, j)]), numItermax=PIVOTS, log=True)
        matrix[k][np.ix_(i, j)] = plan
        f[k, i], g[k, j] = log["u"], log["v"]
        converged[k] = log["warning"] is None

    # POT lets other threads run while it pivots; starting them costs what a small problem takes.
    threads = torch.get_num_threads() if c[0].size >= THREADED else 1
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(solve, range(len(c))))
    error = np.abs(matrix.sum(2) - a).sum(1) + np.abs(matrix.sum(1) - b).sum(1)

    def back(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(inputs.cost)

    return Plan(
        problem=inputs,
        value=_Exact.apply(inputs.cost, inputs.source, inputs.target, back(matrix), back(f), back(g)),
        value_name="exact",
        source_potential=back(f),
        target_potential=back(g),
        marginal_error=back(error),
        iterations=torch.zeros(len(c), dtype=torch.long, device=inputs.cost.device),
        converged=torch.from_numpy(converged).to(inputs.cost.device),
        engine="pot",
        make_matrix=lambda _: back(matrix),
    )


class _Exact(torch.autograd.Function):
    """The dual value; its gradient to the cost is the plan, to the marginals the potentials."""

    @staticmethod
    def forward(ctx: Any, cost: Tensor, a: Tensor, b: Tensor, plan: Tensor, f: Tensor, g: Tensor) -> Tensor:
        ctx.save_for_backward(plan, f, g)
        return (f * a).sum(1) + (g * b).sum(1)

    @staticmethod
    @only_once
    def backward(ctx: Any, saved: tuple[Tensor, ...], upstream: Tensor) -> Slopes:
        plan, f, g = saved
        return upstream[:, None, None] * plan, upstream[:, None] * f, upstream[:, None] * g, None, None, None
