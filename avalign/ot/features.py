"""Transport between two sets of features under cosine distance: features in, value and gradients out."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from avalign.ot.cost import cosine_cost
from avalign.ot.plan import Plan
from avalign.ot.sinkhorn import ValueName, sinkhorn

Engine = Literal["auto", "c++", "triton", "torch"]
Products = Literal["auto", "float32", "bfloat16"]


def cosine_sinkhorn(
    x: Tensor,
    y: Tensor,
    source: Tensor | None = None,
    target: Tensor | None = None,
    x_mask: Tensor | None = None,
    y_mask: Tensor | None = None,
    *,
    epsilon: float = 0.05,
    rounds: int = 1000,
    tolerance: float | None = 1e-3,
    value: ValueName = "dual",
    start: Plan | None = None,
    engine: Engine = "auto",
    products: Products = "auto",
) -> Plan:
    """sinkhorn() of cosine_cost(x, y), fused where there is a kernel for it.

    Shapes: x (b, n, d), y (b, m, d); source, x_mask (b, n); target, y_mask (b, m), masks True where real
    """
    return sinkhorn(
        cosine_cost(x, y, x_mask, y_mask),
        source,
        target,
        x_mask,
        y_mask,
        epsilon=epsilon,
        rounds=rounds,
        tolerance=tolerance,
        value=value,
        start=start,
    )
