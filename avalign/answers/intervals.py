"""Time intervals as models write them, in seconds.

- "[1.2, 2.64]", "from 1.2 to 2.64 s", "1.2-2.64s", "between 1.2 and 2.64 sec": two numbers in a row.
- "0:01", "1:02.5", "00:00:01,500", "1 min 3 s" and "500 ms" are times; a percentage never is.
- Several intervals in a row must show which numbers belong together: "1-3 s, 5-7 s" does, "1, 3, 5, 7" does
  not, and is not read.
- "It starts at 2 s and ends at 4 s", {"start": 2, "end": 4}.
- The unit behind the last number holds for those before it: "2000-4000 ms", "1 to 2 min". Frames and
  shares of the clip are no times.
- Where one span has a unit or "from", those with neither are no times: "1 to 2 dogs bark from 3 to 5 s".
- When it is silent is not when it is heard: "not from 2 to 4 s" is not read, nor is what stands beside it.
- "It starts at 2 s and lasts 4 s" ends at 6 s.
- Swapped ends are sorted, and times before 0 clipped; what has no duration then is not read.
"""

from __future__ import annotations

import math
import re
from itertools import pairwise

from avalign.answers.text import NUMBER

Interval = tuple[float, float]

_CLOCK = re.compile(r"(?<![\w:.,])(?:(\d{1,2}):)?(\d{1,3}):([0-5]\d)(?:[.,](\d{1,3}))?(?![\w:]|[.,]\d)")
_MINUTES = re.compile(
    r"(?<![\w.:])(\d+(?:\.\d+)?)\s?(?:minutes?|mins?)\b\.?"
    r"(?:,?\s*(?:and\s+)?(\d+(?:\.\d+)?)\s?(?:seconds?|secs?|s)\b)?",
    re.IGNORECASE,
)
_MILLISECONDS = re.compile(r"(?<![\w.:])(\d+(?:\.\d+)?)\s?(?:milliseconds?|ms)\b", re.IGNORECASE)
_UNIT_BEFORE = re.compile(r"\b(?:seconds?|secs?|t\s*=|time\s*=)\s+(?=\d)", re.IGNORECASE)
_TIME = rf"{NUMBER}(?:\s?s(?:ec(?:ond)?s?)?\b)?(?!\s?%|[\w:]|\.\d)"
_A_TIME = re.compile(_TIME, re.IGNORECASE)
_SPAN = r"\s*(?:--?>|[\u2013\u2014\u2192~-]|\b(?:to|until|till|through)\b)\s*"
_LIST = r"\s*[,;|]\s*(?:and\s+)?|\s*\band\s+|\s+"
_TIMES = re.compile(rf"{_TIME}(?:(?:{_SPAN}|{_LIST}){_TIME})*", re.IGNORECASE)
_UNIT = r"milliseconds?|msecs?|ms|minutes?|mins?|seconds?|secs?|s"
_MEASURED = rf"({NUMBER})(\s?(?:{_UNIT})\b)?(?!\s?%|[\w:]|\.\d)"
_ROW = re.compile(rf"{_MEASURED}(?:(?:{_SPAN}|{_LIST}){_MEASURED})+", re.IGNORECASE)
_UNIT_BEHIND = re.compile(rf"\s*[\])]\s*\(?(?:in\s+)?({_UNIT})\b", re.IGNORECASE)
_NUMBERED = re.compile(r"^[ \t]*\(?\d{1,2}[.)][ \t]+(?=[^\n\d]*\d[^\n]*?\d)", re.MULTILINE)
_NO_SECONDS = re.compile(
    r"\bframes?\W{0,3}\d|_frame\b|\bin\s+frames\b|\d[\])]?\s*frames?\b|\bnormali[sz]ed\b|\bfractions?\b"
    r"|(?<![\d.])(?:0?\.\d+|1(?:\.0*)?)[\])]?\s+of\s+(?:the|its)\s+(?:clip|video|audio|recording|sound|duration|length|whole|total)\b",
    re.IGNORECASE,
)
_COUNTED = re.compile(r"\s+(?!(?:is|was|has|as|this)\b)[a-z]+s\b", re.IGNORECASE)  # "2-3 times"
_LENGTH = re.compile(r"\b(?:for|last\w*)\s+$", re.IGNORECASE)  # "for 2-3 s"
_SINCE = re.compile(r"\b(?:from|between)\s+$", re.IGNORECASE)
_SILENT = re.compile(r"\b(?:silent|silence|quiet|inaudible|absent|mute)\b", re.IGNORECASE)
_ELSE = re.compile(
    r"\b(?:otherwise|else|elsewhere|rest|then|before|after)\b[^.,;!?\n]{0,40}\b(?:silent|silence|quiet)\b",
    re.IGNORECASE,
)
_NOT = re.compile(r"\b(?:not|never|no|cannot|except|without|nothing)\b|n['\u2019]t\b", re.IGNORECASE)
_SENTENCE_ENDS = re.compile(r"[.!?](?!\d)|\n")
_HERE = "\0"  # stands for a span
_CLAUSE_ENDS = re.compile(r"[,;:]|\b(?:but|while|then)\b", re.IGNORECASE)
_STARTS = re.compile(
    r"\b(?:start|begin|onset|from)\w*[\"']?\s*(?:[:=]|\b(?:at|from|around|time)\b|\s)*\s*"
    rf"({_TIME})[^\d\n]{{0,40}}?\b(?:(?:end|stop|finish|offset)\w*|last\w*\s+(?=until|till))[\"']?"
    rf"\s*(?:[:=]|\b(?:at|by|around|until|time)\b|\s)*\s*({_TIME})",
    re.IGNORECASE,
)
_LASTS = re.compile(
    r"\b(?:start|begin|onset)\w*[\"']?\s*(?:[:=]|\b(?:at|from|around|time)\b|\s)*\s*"
    rf"({_TIME})[^\d\n]{{0,40}}?\b(?:last(?:s|ing)?|duration|for)\b[\"']?"
    rf"\s*(?:[:=]|\b(?:for|of|is|about|around)\b|\s)*\s*({_TIME})",
    re.IGNORECASE,
)


def read_intervals(text: str, *, denied: bool = False) -> list[Interval]:
    """Every interval in `text`, in its order, in seconds.

    denied: also where it is said that nothing is heard, as a question may ask
    """
    text = _in_seconds(_NUMBERED.sub("", text))
    if not denied and _of_silence(text):
        return []
    other_unit = _NO_SECONDS.search(text) is not None
    found, told = [], []
    for row in _TIMES.finditer(text):
        before, behind = text[max(0, row.start() - 12) : row.start()], text[row.end() : row.end() + 40]
        has_unit = (
            re.search(r"(?i)[\d.]\s?s", row.group()) is not None or _UNIT_BEHIND.match(behind) is not None
        )
        if _LENGTH.search(before) or (not has_unit and (other_unit or _COUNTED.match(behind))):
            continue
        numbers = list(_A_TIME.finditer(row.group()))
        between = [row.group()[a.end() : b.start()] for a, b in pairwise(numbers)]
        for first, second in _pairs(between, before):
            found.append((_seconds(numbers[first].group()), _seconds(numbers[second].group())))
            told.append(has_unit or _SINCE.search(before) is not None)
    if any(told):
        found = [pair for pair, sure in zip(found, told, strict=True) if sure]
    if not found:
        pairs = [] if other_unit else _STARTS.findall(text)
        lasting = [] if other_unit or pairs else _LASTS.findall(text)
        found = [(_seconds(a), _seconds(b)) for a, b in pairs]
        found += [(_seconds(a), _seconds(a) + _seconds(b)) for a, b in lasting]
    ordered = [(max(0.0, min(pair)), max(pair)) for pair in found]
    return [(start, end) for start, end in ordered if start < end < math.inf]


def _of_silence(text: str) -> bool:
    """Whether a sentence with a span says when there is no sound."""
    text = _TIMES.sub(lambda row: _HERE if len(_A_TIME.findall(row.group())) > 1 else row.group(), text)
    for sentence in _SENTENCE_ENDS.split(text):
        if _HERE in sentence and _SILENT.search(_ELSE.sub("", sentence)):
            return True
        if any(_HERE in clause and _NOT.search(clause) for clause in _CLAUSE_ENDS.split(sentence)):
            return True
    return False


def _pairs(between: list[str], before: str) -> list[tuple[int, int]]:
    """Which numbers of a row belong together, by what stands between them."""
    if len(between) == 1:
        return [(0, 1)]
    between_them = re.search(r"\bbetween\s+$", before, re.IGNORECASE) is not None
    spans = [
        re.fullmatch(_SPAN, gap, re.IGNORECASE) is not None
        or (between_them and index % 2 == 0 and "and" in gap.lower())
        for index, gap in enumerate(between)
    ]
    if len(between) % 2 and all(span == (index % 2 == 0) for index, span in enumerate(spans)):
        return [(index, index + 1) for index in range(0, len(between), 2)]
    return []


def _in_seconds(text: str) -> str:
    """Clock times, minutes and milliseconds as seconds."""
    text = _ROW.sub(_of_one_unit, text)
    text = _CLOCK.sub(lambda t: f"{int(t[1] or 0) * 3600 + int(t[2]) * 60 + int(t[3])}.{t[4] or 0} s", text)
    text = _MINUTES.sub(lambda t: f"{float(t[1]) * 60 + float(t[2] or 0):.6f} s", text)
    text = _MILLISECONDS.sub(lambda t: f"{float(t[1]) / 1000:.6f} s", text)
    return _UNIT_BEFORE.sub("", text)


def _of_one_unit(row: re.Match[str]) -> str:
    """Each number with the unit of the next one that has one; nothing where that leaves some without."""
    units = [
        (number, (number[2] or "").strip()) for number in re.finditer(_MEASURED, row.group(), re.IGNORECASE)
    ]
    behind = _UNIT_BEHIND.match(row.string, row.end())
    unit, told = behind[1] if behind else "", {u[:2].lower() for _, u in units if u}
    if not any(u.lower().startswith("m") for u in (*told, unit)):
        return row.group()
    mixed = len(told) > 1 and any(not u for _, u in units)
    if mixed or not (units[-1][1] or unit):
        return "?"
    written = row.group()
    for number, own in reversed(units):
        unit = own or unit
        if not own:
            written = f"{written[: number.end()]} {unit}{written[number.end() :]}"
    return written


def _seconds(written: str) -> float:
    return float(re.sub(r"(?i)\s?s(?:ec(?:ond)?s?)?$", "", written))
