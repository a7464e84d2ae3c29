"""Boxes as models write them.

- Words around, brackets of any kind or missing, missing commas or spaces, numbers like ".5", "1", "1e-1" are
  read. "50%" is 0.5 of an image.
- Four numbers are x, y, x, y, never another order but where names say so: {"x": 1, "y": 2, "width": 3, ...},
  "[y_min, x_min, y_max, x_max] = ...", "xywh". Of a centre no box is read, nor where two orders are named.
  Two corners, "(0.1, 0.2), (0.5, 0.6)", are a box when the text holds no box of four numbers. A row of any
  other length is no box.
- A fifth number is a confidence or a label's own: only that of "[route 66, 0.1, ...]" is plain.
- "not at [...]" leaves the whole text unread.
- Numbers are shares of the image. Another unit must be told, by the text ("in pixels", "out of 1000"), by its
  form (Qwen-VL's and InternVL's <box> are thousandths, PaliGemma's <loc> 1024ths, y first), or by who asks
  (`unit`); pixels need the size of the image. What the text says wins, but
  numbers in 0..1 with decimals are shares whatever is said of pixels or thousandths.
- Swapped corners are sorted and numbers outside 0..1 clipped; the box says so (`repaired`). A number outside
  -1..2 is of another unit: that box is not read. Nor is what has no area, once clipped.
- A label is what stands before the numbers in the same brackets, without quotes and punctuation at its ends.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from avalign.answers.text import NUMBER

Box = tuple[float, float, float, float]
Unit = Literal["relative", "percent", "thousandths", "pixels"]
UNITS: tuple[str, ...] = get_args(Unit)
Size = tuple[float, float]  # width and height of an image in pixels


@dataclass(frozen=True)
class LabelledBox:
    """A box as read from text; `repaired` when its corners had to be sorted or clipped."""

    box: Box
    label: str | None = None
    repaired: bool = False


_SHARE = rf"{NUMBER}(?:\s?(?:%|px\b|pixels?\b))?(?![\w:%]|\.\d)"
_SIGN = re.compile(r"\s?(%|px|pixels?)$", re.IGNORECASE)
_COMMA = r"(?:\s*[,;|]\s*|\s+)"
_SHARES = re.compile(rf"{_SHARE}(?:{_COMMA}{_SHARE})*", re.IGNORECASE)
_CORNERS = re.compile(
    rf"[(\[{{<]\s*({_SHARE}){_COMMA}({_SHARE})\s*[)\]}}>]\s*[,;-]?\s*"
    rf"[(\[{{<]\s*({_SHARE}){_COMMA}({_SHARE})\s*[)\]}}>]",
    re.IGNORECASE,
)
_LABEL = re.compile(r"[(\[{<]([^()\[\]{}<>\n\r]*)$")
_LABEL_ENDS = " \t,;:|=.\"'`\u2018\u2019\u201c\u201d"
_FAR = (-1.0, 2.0)  # a number beyond these is not in 0..1 by any slip
_MARKED = re.compile(r"<\|?box(?:_start)?\|?>([^<>]*)<(?:/box|\|box_end\|)>", re.IGNORECASE)
_REFERRED = re.compile(r"<\|?(?:ref|object_ref_start)\|?>([^<>]*)<(?:/ref|\|object_ref_end\|)>\s*$")
_LOC = re.compile(4 * r"<loc(\d{4})>" + r"(?!<loc)\s*([^<>;\n]*)")
_NAMED = re.compile(
    r"[\"']?\b((?a:x_?0|y_?0|x_?1|y_?1|x_?2|y_?2|x_?min|y_?min|x_?max|y_?max|left|top|right|bottom|x|y|w|h|width|height))\b"
    rf"[\"']?\s*[:=]\s*({_SHARE})",
    re.IGNORECASE,
)
_IN_ORDER = (0, 1, 2, 3)
_EDGES = {
    "x1": 0, "xmin": 0, "left": 0, "x": 0, "y1": 1, "ymin": 1, "top": 1, "y": 1, "x2": 2, "xmax": 2,
    "right": 2, "y2": 3, "ymax": 3, "bottom": 3, "w": 4, "width": 4, "h": 5, "height": 5,
}  # fmt: skip
_EDGES_FROM_0 = {"x0": 0, "y0": 1} | _EDGES | {"x1": 2, "y1": 3}
_CORNER_0, _CORNER_2 = (re.compile(rf"(?i)\b[xy]_?{k}\b") for k in (0, 2))
_XY = r"[xy]_?[012]|[xy]_?min|[xy]_?max|x|y|w|h"
_WORD = rf"{_XY}|left|top|right|bottom|width|height"
_ORDER = re.compile(
    rf"(?a:\b(?:(?:{_WORD})\s*[,;/]\s*){{3}}(?:{_WORD})\b|\b(?:(?:{_XY})\s+){{3}}(?:{_XY})\b"
    r"|\b(?:xyxy|xywh|xyhw|yxyx|yxhw|xxyy|yyxx|ltrb|tlbr|ltwh|tlwh|tlhw)\b)",
    re.IGNORECASE,
)
_LETTERS = {"l": "left", "t": "top", "r": "right", "b": "bottom"}
_CENTRE = re.compile(
    r"\bcxcy|\bc_?[xy]\b|\b[xy]_?c\b|\b[xy][ _]?cent(?:er|re)|cent(?:er|re)[ _]?[xy]\b", re.IGNORECASE
)
_NEGATED = re.compile(
    r"(?:\bnot|n['\u2019]t|\binstead\s+of|\brather\s+than)\s+(?:(?!(?:but|sure|certain)\b)\w+\s+){0,3}$",
    re.IGNORECASE,
)
_OWN_NUMBER = re.compile(r"[^\W\d_]\s[1-9]\d*$")  # "route 66"
_LABELLED = re.compile(r"[\"'](?:label|class|category|object|name)[\"']\s*:\s*[\"']([^\"'\n]{1,80})[\"']")
_IN_PIXELS = re.compile(r"\bpixels?\b|\d\s?px\b|\bin px\b", re.IGNORECASE)
_IN_THOUSANDTHS = re.compile(
    r"\b0\s*(?:-|\u2013|\.\.+|to)\s*(?:1000|999)\b"
    r"|\b(?:out of|over|normali[sz]ed to|scale of|/)\s*1[, ]?000\b",
    re.IGNORECASE,
)
_IN_PERCENT = re.compile(r"\bin percent\b|\bpercent(?:age)?s? of\b", re.IGNORECASE)


def read_boxes(text: str, unit: Unit = "relative", size: Size | None = None) -> list[LabelledBox]:
    """Every box in `text`, in its order.

    unit: of numbers where the text does not tell; size: of the image in pixels, without which none is read
    """
    if "<loc" in text.lower():
        return _of_tokens(text)
    order = _order(text)
    if order is None:
        return []
    marked = list(_MARKED.finditer(text))
    if marked:
        return [box for mark in marked if (box := _of_mark(text, mark, size, order)) is not None]
    told = _told(text) or unit
    rows = _IN_THOUSANDTHS.sub(" ", text) if told == "thousandths" else text
    named = _of_names(rows, told, size)
    if named:
        return named
    found = []
    for row in _SHARES.finditer(rows):
        numbers = list(re.finditer(_SHARE, row.group(), re.IGNORECASE))
        if len(numbers) not in (4, 5):
            continue
        start = row.start() + numbers[-4].start()
        if len(numbers) == 5:
            label_ends = row.start() + numbers[0].end()
            own_number = (
                _OWN_NUMBER.search(rows[max(0, label_ends - 30) : label_ends])
                and "," in rows[label_ends:start]
            )
            if told != "relative" or not own_number or _label(rows[:start]) is None:
                continue
        if _negated(rows[max(0, start - 300) : start]):
            return []
        found.append(_box([n.group() for n in numbers[-4:]], _label(rows[:start]), told, size, order))
    if not any(found):
        found = []
        for two in _CORNERS.finditer(rows):
            if _negated(rows[max(0, two.start() - 300) : two.start()]):
                return []
            found.append(_box(list(two.groups()), _label(rows[: two.start()]), told, size, order))
    boxes = [box for box in found if box is not None]
    labels = _LABELLED.findall(rows)
    if len(boxes) == len(labels) == 1 and boxes[0].label is None:
        return [replace(boxes[0], label=labels[0].strip())]
    return boxes


def read_box(text: str, unit: Unit = "relative", size: Size | None = None) -> LabelledBox | None:
    """The first box in `text`, or None."""
    return next(iter(read_boxes(text, unit, size)), None)


def _told(text: str) -> Unit | None:
    """The unit that the text itself names; None too where it names two."""
    units: list[Unit] = []
    if _IN_PIXELS.search(text):
        units.append("pixels")
    if _IN_THOUSANDTHS.search(text):
        units.append("thousandths")
    if _IN_PERCENT.search(text):
        units.append("percent")
    return units[0] if len(units) == 1 else None


def _order(text: str) -> Sequence[int] | None:
    """The edges that four numbers are, as the text names them; None where it names two orders or no box's."""
    named = {tuple(_edges(found.group())) for found in _ORDER.finditer(text)}
    named = {_IN_ORDER if order == (0, 1, 0, 1) else order for order in named}  # "x, y, x, y"
    if _CENTRE.search(text) or len(named) > 1:
        return None
    order = next(iter(named), _IN_ORDER)
    return order if sorted(order) in ([0, 1, 2, 3], [0, 1, 4, 5]) else None


def _edges(names: str) -> list[int]:
    """The edges of "x, y, w, h", "xywh" or "tlbr"."""
    words = re.split(r"[\s,;/]+", names.lower().replace("_", ""))
    if len(words) == 1:
        seen: list[str] = []
        for letter in words[0]:
            seen.append(f"{letter}{1 + seen.count(letter + '1')}" if letter in "xy" else letter)
        words = [_LETTERS.get(letter, letter) for letter in seen]
    edges = _EDGES_FROM_0 if any(word in ("x0", "y0") for word in words) else _EDGES
    return [edges[word] for word in words]


def _negated(before: str) -> bool:
    """Whether the numbers behind, or the bracket that they stand in, are where it is not."""
    return _NEGATED.search(_LABEL.sub("", before).rstrip("[({<") + " ") is not None


def _of_tokens(text: str) -> list[LabelledBox]:
    """PaliGemma's: <loc0256><loc0128><loc0768><loc0512> dog, y first, 1024ths."""
    found = []
    for four in _LOC.finditer(text):
        y0, x0, y1, x1 = (int(n) / 1024 for n in four.groups()[:4])
        label = four.group(5).strip(_LABEL_ENDS)
        found.append(_sorted((x0, y0, x1, y1), label if any(c.isalpha() for c in label) else None))
    return [box for box in found if box is not None]


def _of_mark(text: str, mark: re.Match[str], size: Size | None, order: Sequence[int]) -> LabelledBox | None:
    """Between <box> and </box>: thousandths where no unit is told, but shares where none is above 1.

    (0, 0), (1, 1) could be either, and is not read.
    """
    numbers = re.findall(_SHARE, mark.group(1), re.IGNORECASE)
    if len(numbers) != 4:
        return None
    referred = _REFERRED.search(text[max(0, mark.start() - 300) : mark.start()])
    label = referred.group(1).strip(_LABEL_ENDS) if referred else ""
    told = _told(text)
    if told is None and not any(_SIGN.search(n) for n in numbers):
        values = [float(n) for n in numbers]
        if not 0 <= min(values) <= max(values) <= 1000 or {0.0, 1.0}.issuperset(values):
            return None
        told = "relative" if max(values) <= 1 else "thousandths"
    return _box(numbers, label or None, told or "relative", size, order)


def _of_names(text: str, unit: Unit, size: Size | None) -> list[LabelledBox]:
    """{"x1": ..., "y1": ..., "x2": ..., "y2": ...}, or x, y, width and height, in any order."""
    found: list[LabelledBox] = []
    edges: dict[int, str] = {}
    indices = _EDGES
    if _CORNER_0.search(text):
        if _CORNER_2.search(text):  # three corners are no box
            return []
        indices = _EDGES_FROM_0
    for name, number in _NAMED.findall(text):
        index = indices[name.lower().replace("_", "")]
        if index in edges:
            edges = {}
        edges[index] = number
        corners = [edges.get(k) for k in (0, 1, 2, 3)]
        sides = [edges.get(k) for k in (0, 1, 4, 5)]
        box = None
        if all(n is not None for n in corners):
            box = _box([str(n) for n in corners], None, unit, size)
        elif all(n is not None for n in sides):
            box = _box([str(n) for n in sides], None, unit, size, (0, 1, 4, 5))
        else:
            continue
        edges = {}
        if box is not None:
            found.append(box)
    return found


def _label(before: str) -> str | None:
    """The label that ends `before`: text since an opening bracket, with at least one letter."""
    bracket = _LABEL.search(before[-300:])
    label = bracket.group(1).strip(_LABEL_ENDS) if bracket else ""
    no_class = _KEY.fullmatch(label) or _ORDER.fullmatch(label)
    return label if any(c.isalpha() for c in label) and not no_class else None


_KEY = re.compile(r"(?:bbox|box|bounding[ _]?box)(?:_?2d)?[\"']?", re.IGNORECASE)  # of JSON: no class


def _box(
    numbers: Sequence[str], label: str | None, unit: Unit, size: Size | None, order: Sequence[int] = _IN_ORDER
) -> LabelledBox | None:
    """Four numbers as written, in shares of the image; None when no box is left.

    order: the edge of each, as in _EDGES
    """
    numbers = [number for _, number in sorted(zip(order, numbers, strict=True))]
    sides = 4 in order
    if unit in ("pixels", "thousandths") and _plain_shares(numbers):
        unit = "relative"
    shares = []
    for index, written in enumerate(numbers):
        sign = _SIGN.search(written)
        if sign and sign[1] != "%" and unit != "pixels":  # the text names another unit, too
            return None
        value = float(_SIGN.sub("", written))
        if written.endswith("%") or unit == "percent":
            value /= 100
        elif unit == "thousandths":
            value /= 1000
        elif unit == "pixels":
            if size is None:
                return None
            value /= size[index % 2]
        shares.append(value)
    if not all(_FAR[0] <= x <= _FAR[1] for x in shares):
        return None
    x0, y0, x1, y1 = shares
    return _sorted((x0, y0, x0 + x1, y0 + y1) if sides else (x0, y0, x1, y1), label)


def _plain_shares(numbers: Sequence[str]) -> bool:
    """Whether all are bare numbers in 0..1, and one has decimals."""
    bare = all(number[-1].isdigit() or number[-1] == "." for number in numbers)
    return bare and any("." in number for number in numbers) and all(0 <= float(n) <= 1 for n in numbers)


def _sorted(written: Box, label: str | None) -> LabelledBox | None:
    """Sorted and clipped; None when no box is left."""
    x0, y0, x1, y1 = (min(max(x, 0.0), 1.0) for x in written)
    box = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
    if box[0] == box[2] or box[1] == box[3]:
        return None
    return LabelledBox(box, label, repaired=box != written)
