"""What every engine returns."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Solved(NamedTuple):
    """Shapes: value, error, rounds (b,); f (b, n), g (b, m); the gradients as the features, or None.

    value and error are NaN and infinity where an item's features are not finite.
    """

    value: Tensor
    f: Tensor
    g: Tensor
    error: Tensor
    rounds: Tensor
    grad_x: Tensor | None = None
    grad_y: Tensor | None = None
