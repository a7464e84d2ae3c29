"""What can be told of a record by itself, without opening its media."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from avalign.answers import read_boxes, read_intervals, read_verdict, write_box, write_interval
from avalign.avfit.annotation import spoken
from avalign.data.manifest.phrasing_rules import SLOTS
from avalign.data.manifest.phrasings import Phrasings, fill
from avalign.data.manifest.record import Record
from avalign.errors import AvalignError, suggest
from avalign.media.file import END_SLACK

PLACEHOLDERS = ("<image>", "<audio>")
_TOKEN = re.compile(r"<(\w+)>")
_LONGEST = 20_000  # characters of a response
_ROUNDING = 0.005 + 1e-9  # the writer's two decimals

Problem = tuple[str, str]  # code of the finding, detail


def problems_of(record: Record, phrasings: Phrasings) -> Iterator[Problem]:
    """Every (code, detail) that is wrong with a record: boxes, intervals, response, instruction, origins."""
    yield from _numbers(record)
    yield from _response(record)
    yield from _instruction(record, phrasings)
    if record.image is None and record.audio is None:
        yield "record has neither picture nor sound", "no image, no audio"
    if not _is_strings(record.provenance.get("origins", [])):
        yield "origins are no list of texts", f"origins are {record.provenance['origins']!r:.80}"


def origins_of(record: Record) -> tuple[str, ...]:
    """What the record's media come from; none where provenance does not tell it in a list of strings."""
    origins = record.provenance.get("origins", [])
    return tuple(dict.fromkeys(origins)) if _is_strings(origins) else ()


def answer_of(record: Record) -> str:
    """What balance is counted by: AVFC's verdict, else the class, AVQA's answer; "" where each is its own."""
    if record.task == "avfc":
        return str(read_verdict(record.response))
    if record.task == "avqa":
        return record.response
    return record.label or ""


def _is_strings(origins: Any) -> bool:
    return isinstance(origins, list) and all(isinstance(origin, str) for origin in origins)


def _numbers(record: Record) -> Iterator[Problem]:
    span = (record.audio_start, record.audio_end)
    lasts = span[1] - span[0] if span[0] is not None and span[1] is not None else float("inf")
    for x0, y0, x1, y1 in record.boxes:
        if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
            pixels = ": pixels? they are to be in 0..1" if max(x0, y0, x1, y1) >= 2 else ""
            yield "box out of range or inverted", f"box [{x0:g}, {y0:g}, {x1:g}, {y1:g}]{pixels}"
    for start, end in record.intervals:
        if not 0 <= start < end:
            yield "interval inverted or before 0", f"interval [{start:g}, {end:g}] s"
        elif end > lasts + END_SLACK:
            told = f"interval [{start:g}, {end:g}] s of a span of {lasts:g} s"
            yield "interval behind its span's end", f"{told}: are its times of the file?"
    if record.task == "arig" and not record.boxes:
        yield "ARIG record without a box", "boxes are empty"
    if record.task == "igatl" and not record.intervals:
        yield "IGATL record without an interval", "intervals are empty"


def _response(record: Record) -> Iterator[Problem]:
    code, said = "response reads back differently", f"response {record.response!r:.100}"
    if not record.response.strip():
        yield "response is empty", said
    elif len(record.response) > _LONGEST:
        yield code, f"{said}: {len(record.response)} characters are too many to be read"
    elif record.task == "avfc":
        if read_verdict(record.response) is None:
            yield "verdict is neither true nor false", said
    elif record.task == "arig" and record.boxes:
        read = read_boxes(record.response)
        true = tuple(dict.fromkeys(record.boxes))  # drawn alike by several annotators, written once
        if not any(_same([found.box for found in read], t, write_box) for t in (true, record.boxes)):
            yield code, f"{said}: {len(read)} boxes read, they are not {_shown(record.boxes)}"
        for label in {found.label for found in read} - {None}:
            if record.label is not None and not _one_class(str(label), record.label):
                yield code, f"{said}: class {label!r} read, not {record.label!r}"
    elif record.task == "igatl" and record.intervals:
        spans = read_intervals(record.response)
        if not _same(spans, record.intervals, write_interval):
            yield code, f"{said}: {len(spans)} intervals read, they are not {_shown(record.intervals)}"


def _same(read: Sequence[Sequence[float]], true: Sequence[Sequence[float]], write: Any) -> bool:
    """Whether the numbers read are the true ones, to rounding, in their order."""
    return len(read) == len(true) and all(
        all(abs(a - b) <= _ROUNDING for a, b in zip(one, other, strict=True)) or _widened(one, other, write)
        for one, other in zip(read, true, strict=True)
    )


def _widened(read: Sequence[float], true: Sequence[float], write: Any) -> bool:
    """Whether these are the numbers of a side so short that the writer rounded it outwards."""
    try:
        return [f"{x:.2f}" for x in read] == write(true).strip("[]").split(", ")
    except ValueError:
        return False


def _one_class(read: str, label: str) -> bool:
    try:
        return spoken(read).casefold() == spoken(label).casefold()
    except ValueError:  # without a letter
        return read == label


def _shown(rows: Sequence[Sequence[float]]) -> str:
    return " ".join("[" + ", ".join(f"{x:g}" for x in row) + "]" for row in rows[:4])


def _instruction(record: Record, phrasings: Phrasings) -> Iterator[Problem]:
    said = f"instruction {record.instruction!r:.100}"
    if record.instruction:
        for placeholder, media in zip(PLACEHOLDERS, (record.image, record.audio), strict=True):
            count = record.instruction.count(placeholder)
            if media is not None and not count:
                yield "instruction lacks a place for media", f"{said}: no {placeholder} for {media!r:.80}"
            elif media is None and count:
                yield "instruction has a place without media", f"{said}: {placeholder}"
            if count > 1:
                yield "instruction repeats a place for media", f"{said}: {count} times {placeholder}"
    else:
        try:
            phrasings.of(record)
        except AvalignError as error:
            yield "no phrasing fits", str(error)
    known = set(SLOTS.values())
    for token in sorted(set(_TOKEN.findall(record.instruction)) - {"image", "audio"}):
        if token not in known or token not in record.slots:
            yield "instruction holds an unfilled token", f"{said}: <{token}>"
    for name, value in record.slots.items():
        try:
            written_slot(name, record)
        except AvalignError as error:
            yield "slot cannot be written", f"slot {name!r:.40} is {_brief(value)}: {error}"


def written_slot(name: str, record: Record) -> str:
    """A slot as it stands in the instruction. AvalignError where it cannot be written."""
    if name not in SLOTS.values():
        raise AvalignError(f"no phrasing holds it.{suggest(name, SLOTS.values())}")
    return fill(f"<{name}>", record)


def _brief(value: Any) -> str:
    try:
        return f"{value!r:.80}"
    except (ValueError, RecursionError):  # a number too long to be written out
        return "what cannot be printed"
