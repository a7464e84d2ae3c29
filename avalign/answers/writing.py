"""The writer: one form of each, and a ValueError that names what cannot be written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from functools import lru_cache

from avalign.answers.boxes import read_boxes


def write_box(box: Sequence[float], label: str | None = None, *, decimals: int = 2) -> str:
    """(0.12, 0.34, 0.56, 0.78), "dog" -> "[dog, 0.12, 0.34, 0.56, 0.78]"; a ValueError names what is no box.

    Numbers are rounded to the nearest; a side that this would close is rounded outwards instead.
    """
    values = [float(x) for x in box]
    shown = f"box [{', '.join(f'{x:g}' for x in values)}]"
    if len(values) != 4:
        raise ValueError(f"{shown}: has {len(values)} numbers, not x_left, y_top, x_right, y_bottom")
    if not all(math.isfinite(x) for x in values):
        raise ValueError(f"{shown}: holds a number that is not finite")
    if min(values) < 0 or max(values) > 1:
        raise ValueError(f"{shown}: is outside the image (every number must be in 0..1)")
    if values[0] >= values[2] or values[1] >= values[3]:
        raise ValueError(f"{shown}: is inverted or empty (x_left < x_right and y_top < y_bottom needed)")
    (x0, x1), (y0, y1) = (_rounded(values[i], values[i + 2], decimals) for i in (0, 1))
    numbers = ", ".join((x0, y0, x1, y1))
    if label is None:
        return f"[{numbers}]"
    if not _read_back(label):
        raise ValueError(
            f"box label {label!r}: could not be read back (it needs a letter, no brackets or line breaks, "
            "and no space, quote or punctuation at its ends)"
        )
    return f"[{label}, {numbers}]"


@lru_cache(maxsize=4096)  # labels are few, boxes are many
def _read_back(label: str) -> bool:
    """Whether a box of this label is read with it; the numbers that follow it make no difference."""
    return [found.label for found in read_boxes(f"[{label}, 0.00, 0.00, 1.00, 1.00]")] == [label]


def write_interval(interval: Sequence[float], *, decimals: int = 2) -> str:
    """(1.2, 2.64) in seconds -> "[1.20, 2.64]"; a ValueError names what is no interval."""
    values = [float(x) for x in interval]
    shown = f"interval [{', '.join(f'{x:g}' for x in values)}]"
    if len(values) != 2:
        raise ValueError(f"{shown}: has {len(values)} numbers, not start and end")
    if not all(math.isfinite(x) for x in values):
        raise ValueError(f"{shown}: holds a number that is not finite")
    if values[0] < 0:
        raise ValueError(f"{shown}: starts before 0 s")
    if values[0] >= values[1]:
        raise ValueError(f"{shown}: is inverted or empty (start < end needed)")
    return f"[{', '.join(_rounded(values[0], values[1], decimals))}]"


def write_verdict(verdict: bool) -> str:
    """True -> "True", False -> "False"."""
    return "True" if verdict else "False"


def _rounded(low: float, high: float, decimals: int) -> tuple[str, str]:
    """Both to the nearest; outwards where that would make them equal."""
    a, b = f"{low + 0.0:.{decimals}f}", f"{high:.{decimals}f}"  # + 0.0: never "-0.00"
    if a != b:
        return a, b
    unit = Decimal(1).scaleb(-decimals)
    return (
        f"{Decimal(low).quantize(unit, ROUND_FLOOR):.{decimals}f}",
        f"{Decimal(high).quantize(unit, ROUND_CEILING):.{decimals}f}",
    )
