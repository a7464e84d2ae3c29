"""Round numbers along an axis."""

from __future__ import annotations

import math


def ticks(low: float, high: float, *, logarithmic: bool = False) -> list[float]:
    """Two to five round numbers within low..high: multiples of 1, 2 or 5 times a power of ten.

    On a logarithmic scale powers of ten, 2 and 5 times them too if those are few.
    """
    if logarithmic:
        powers = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
        leading = (1, 2, 5) if len(powers) < 4 else (1,)
        found = [m * 10.0**k for k in powers for m in leading if low <= m * 10.0**k <= high]
        return found[:: max(1, math.ceil(len(found) / 5))]
    if high - low < 1e-12:
        return [low]
    unit = 10.0 ** math.floor(math.log10((high - low) / 2))
    step = next(m * unit for m in (1, 2, 5, 10) if (high - low) / (m * unit) <= 4)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def time_ticks(seconds: float) -> list[float]:
    """From 0 on, at most seven, in steps that clocks have."""
    step = next((s for s in (0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60) if seconds / s <= 6), 300)
    return [k * step for k in range(int(seconds / step * 0.97) + 1)]
