"""What every engine returns."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

Gradients = tuple[Tensor, Tensor]  # to both sets of features, as they are


class Solution(NamedTuple):
    """Shapes: value, error (b,), iterations (b,) int, f (b, n), g (b, m); all detached

    value, error: not finite where an item's features are not, or too long for float32
    f, g:  in units of the cost, 0 where there is no mass
    error: L1 of the columns of the plan; the rows are exact
    """

    value: Tensor
    f: Tensor
    g: Tensor
    error: Tensor
    iterations: Tensor
