"""Boxes, time intervals, verdicts and answers as text: the one writer and the one tolerant reader.

    written, always                       read, besides
    [dog, 0.12, 0.34, 0.56, 0.78]         (dog 0.12 .34 .56 .78        {"dog": 12%, 34%, 56%, 78%}
    [0.12, 0.34, 0.56, 0.78]              it is at 0.12, 0.34, 0.56, 0.78.
    [1.20, 2.64]                          from 1.2 to 2.64 s           1.2-2.64s         (1.2 2.64
    True                                  Yes, it does.                FALSE             it is not false

A box is (x_left, y_top, x_right, y_bottom) in 0..1 of its image; an interval is (start, end) in seconds.
The writer is strict, the reader forgives form but never guesses meaning:

- Words around, brackets of any kind or missing, missing commas or spaces, numbers like ".5", "1", "1e-1" are
  read. "50%" is 0.5 of an image; a percentage is never a time, and "0:02" is not a number.
- Four numbers are x, y, x, y, never another order. Two corners, "(0.1, 0.2), (0.5, 0.6)", are a box when the
  text holds no box of four numbers. A row of any other length than four (two) is no box (interval).
- Swapped corners or ends are sorted, numbers outside 0..1 and times before 0 are clipped; the box says so
  (`repaired`). A number outside -1..2 is of another unit, pixels perhaps: that box is not read. Nor is what
  has no area, or no duration, once clipped.
- A label is what stands before the numbers in the same brackets, without quotes and punctuation at its ends.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from functools import lru_cache

Box = tuple[float, float, float, float]
Interval = tuple[float, float]


@dataclass(frozen=True)
class LabelledBox:
    """A box as read from text; `repaired` when its corners had to be sorted or clipped."""

    box: Box
    label: str | None = None
    repaired: bool = False


# ---- writing ----


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


# ---- reading ----

_DIGITS = r"(?<![\w.:])[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?"
_SHARE = rf"{_DIGITS}(?:\s?%)?(?![\w:%]|\.\d)"  # of an image
_TIME = rf"{_DIGITS}(?:\s?s(?:ec(?:ond)?s?)?\b)?(?!\s?%|[\w:]|\.\d)"  # in seconds
_COMMA = r"(?:\s*[,;|]\s*|\s+)"
_UNTIL = r"(?:\s*(?:[,;|\u2013\u2014-]|\b(?:to|and|until|till)\b)\s*|\s+)"
_SHARES = re.compile(rf"{_SHARE}(?:{_COMMA}{_SHARE})*", re.IGNORECASE)
_TIMES = re.compile(rf"{_TIME}(?:{_UNTIL}{_TIME})*", re.IGNORECASE)
_CORNERS = re.compile(
    rf"[(\[{{<]\s*({_SHARE}){_COMMA}({_SHARE})\s*[)\]}}>]\s*[,;-]?\s*"
    rf"[(\[{{<]\s*({_SHARE}){_COMMA}({_SHARE})\s*[)\]}}>]",
    re.IGNORECASE,
)
_LABEL = re.compile(r"[(\[{<]([^()\[\]{}<>\n\r]*)$")
_LABEL_ENDS = " \t,;:|=.\"'`\u2018\u2019\u201c\u201d"
_FAR = (-1.0, 2.0)  # a number beyond these is not in 0..1 by any slip


def read_boxes(text: str) -> list[LabelledBox]:
    """Every box in `text`, in its order."""
    found = []
    for row in _SHARES.finditer(text):
        numbers = list(re.finditer(_SHARE, row.group(), re.IGNORECASE))
        start = row.start() + numbers[-4].start() if len(numbers) >= 4 else row.start()
        label = _label(text[:start])
        if len(numbers) == 4 or (len(numbers) > 4 and label is not None):  # "[route 66, 0.1, 0.2, 0.3, 0.4]"
            found.append(_box([n.group() for n in numbers[-4:]], label))
    if not any(found):
        found = [_box(list(two.groups()), _label(text[: two.start()])) for two in _CORNERS.finditer(text)]
    return [box for box in found if box is not None]


def read_box(text: str) -> LabelledBox | None:
    """The first box in `text`, or None."""
    return next(iter(read_boxes(text)), None)


def read_intervals(text: str) -> list[Interval]:
    """Every interval in `text`, in its order, in seconds."""
    found = []
    for row in _TIMES.finditer(text):
        numbers = [float(n.rstrip("second ")) for n in re.findall(_TIME, row.group().lower())]
        start, end = max(0.0, min(numbers)), max(numbers)
        if len(numbers) == 2 and start < end < math.inf:
            found.append((start, end))
    return found


def read_verdict(text: str) -> bool | None:
    """Whether `text` says true (yes) or false (no); None when it says both or neither."""
    said = set()
    for negation, word in re.findall(r"(\bnot\s+|n['\u2019]t\s+)?\b(true|yes|false|no)\b", text.lower()):
        said.add((word in ("true", "yes")) != bool(negation))
    return said.pop() if len(said) == 1 else None


_NUMBER_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
    "twenty",
)


def normalise_answer(text: str) -> str:
    """The one form in which answers are compared: "The Two dogs!" -> "2 dogs".

    Unicode NFKC, lower case; everything that is no letter or digit becomes a space, but apostrophes go and a
    decimal point between digits stays; a, an, the are dropped; zero..twenty become digits; single spaces.
    """
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    text = re.sub(r"['\u2019]", "", text)
    text = re.sub(r"(?<!\d)\.|\.(?!\d)|[^\w\s.]|_", " ", text)
    words = (word for word in text.split() if word not in ("a", "an", "the"))
    return " ".join(str(_NUMBER_WORDS.index(w)) if w in _NUMBER_WORDS else w for w in words)


def _label(before: str) -> str | None:
    """The label that ends `before`: text since an opening bracket, with at least one letter."""
    bracket = _LABEL.search(before)
    label = bracket.group(1).strip(_LABEL_ENDS) if bracket else ""
    return label if any(c.isalpha() for c in label) else None


def _box(numbers: list[str], label: str | None) -> LabelledBox | None:
    """Four numbers as written, sorted and clipped; None when no box is left."""
    written = [float(n.rstrip("% ")) / (100 if n.endswith("%") else 1) for n in numbers]
    if not all(_FAR[0] <= x <= _FAR[1] for x in written):
        return None
    x0, y0, x1, y1 = (min(max(x, 0.0), 1.0) for x in written)
    box = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
    if box[0] == box[2] or box[1] == box[3]:
        return None
    return LabelledBox(box, label, repaired=list(box) != written)
