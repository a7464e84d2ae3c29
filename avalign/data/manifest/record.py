"""One line of a manifest: a sample by the names of its files, before anything is decoded."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from avalign.errors import AvalignError, suggest
from avalign.system.atomic_write import unfinished
from avalign.system.json_file import read_line
from avalign.types import SPLITS, TASKS

VERSION = 1  # of the schema; raised when a field is added, renamed or changes its meaning
MOST = 10_000  # boxes, intervals, frames or references of one record


@dataclass(frozen=True)
class Record:
    """A sample as a manifest keeps it: one JSON object a line, or one row of a Parquet file.

    Paths are relative to the manifest's folder, with "/". `image` may be a video: `frame_times` says which
    frames are meant; one is an image, several are a video. `audio` may be a video or a long recording; the
    span says which part is meant. A phrasing holds "<image>" and "<audio>" where the media belong.
    Units: boxes (x_left, y_top, x_right, y_bottom) in 0..1 of the image; times in seconds: of the file for
           frame_times and the span, of the span for intervals
    """

    id: str
    task: str  # one of TASKS
    split: str  # one of SPLITS
    source: str  # the data set it was made from
    response: str
    instruction: str = ""  # a phrasing; "" where one of the task's is sampled when the sample is used
    slots: dict[str, Any] = field(
        default_factory=dict
    )  # what its <class>, <box>, <time>, <question> stand for
    image: str | None = None
    frame_times: tuple[float, ...] = ()
    audio: str | None = None
    audio_start: float | None = None
    audio_end: float | None = None
    references: tuple[str, ...] = ()
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    consensus: int = 1  # annotated boxes that must cover a point of the image for it to count in full
    intervals: tuple[tuple[float, float], ...] = ()
    label: str | None = None
    kind: str | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    version: int = VERSION

    def __post_init__(self) -> None:
        where = f"record {self.id!r}"
        if self.version != VERSION:
            raise AvalignError(f"{where}: version is {self.version}, this avalign reads {VERSION}")
        if not self.id:
            raise AvalignError(f"a record of {self.source!r} has no id")
        if self.task not in TASKS:
            raise AvalignError(f"{where}: no task {self.task!r}.{suggest(self.task, TASKS)}")
        if self.split not in SPLITS:
            raise AvalignError(f"{where}: no split {self.split!r}.{suggest(self.split, SPLITS)}")
        for name, path in (("image", self.image), ("audio", self.audio)):
            if path is not None and not stays_inside(path):
                raise AvalignError(f"{where}: {name} {path!r} is not a path below the manifest's folder")
        rising = all(a < b for a, b in pairwise((-1e-9, *self.frame_times)))
        if self.frame_times and (self.image is None or not rising):
            raise AvalignError(
                f"{where}: frame_times {list(self.frame_times)} s need an image, and rise from 0 or above"
            )
        if self.audio_end is not None and self.audio_start is None:
            raise AvalignError(f"{where}: audio_end is given without audio_start")
        if self.audio_start is not None:
            end = float("inf") if self.audio_end is None else self.audio_end
            if self.audio is None or not 0 <= self.audio_start < end:
                raise AvalignError(
                    f"{where}: the span [{self.audio_start:g}, {end:g}] s needs an audio file, a start of 0 "
                    "or above and an end behind it"
                )


FIELDS: dict[str, tuple[type, ...]] = dict.fromkeys((f.name for f in fields(Record)), (str,))
FIELDS |= dict.fromkeys(("audio_start", "audio_end"), (int, float))
FIELDS |= dict.fromkeys(("references", "boxes", "intervals", "frame_times"), (list,))
FIELDS |= {"version": (int,), "consensus": (int,), "slots": (dict,)}
REQUIRED = ("id", "task", "split", "source", "response", "version")
DEFAULTS = {
    f.name: f.default_factory() if f.default_factory is not MISSING else f.default for f in fields(Record)
}
_SAID: dict[tuple[type, ...], str] = {
    (str,): "a text",
    (int, float): "a number",
    (list,): "a list",
    (int,): "a whole number",
    (dict,): "an object",
}


def stays_inside(path: str) -> bool:
    """Whether a path is relative, written with "/", and never leads up."""
    return bool(path) and path[0] != "/" and "\\" not in path and ".." not in path.split("/")


def to_json(record: Record) -> str:
    """A line of a manifest, without the line's end. Fields that hold their default are left out."""
    values = {name: getattr(record, name) for name in FIELDS}
    saved = {name: value for name, value in values.items() if name in REQUIRED or value != DEFAULTS[name]}
    if "provenance" in saved:  # of any shape: kept as text, so that all lines have the same columns
        saved["provenance"] = json.dumps(saved["provenance"], ensure_ascii=False, sort_keys=True)
    return json.dumps(saved, ensure_ascii=False, allow_nan=False)


def from_json(line: bytes | str) -> Record:
    """The record of a line. AvalignError if it is none, lacks a field, or has one of another kind."""
    try:
        return _from_json(line)
    except RecursionError:
        raise AvalignError("is nested too deeply") from None


def _from_json(line: bytes | str) -> Record:
    try:
        found = read_line(line, _no_number)
    except ValueError as error:
        raise AvalignError(str(error)) from error
    for name, value in found.items():
        kind = FIELDS.get(name)
        if kind is None:
            raise AvalignError(f"a record has no field {name!r}.{suggest(name, FIELDS)}")
        if not isinstance(value, kind) or isinstance(value, bool):
            raise AvalignError(f"{name} is {json.dumps(value)[:60]}, not {_SAID[kind]}")
    lacking = [name for name in REQUIRED if name not in found]
    if lacking:
        raise AvalignError(f"record {found.get('id', '')!r} lacks {', '.join(lacking)}")
    try:
        for name, value in found.items():
            if isinstance(value, list) and len(value) > MOST:
                raise ValueError(f"{name} has {len(value):,} entries, at most {MOST:,} are read")
        if "references" in found:
            found["references"] = _strings(found["references"])
        for name, size in (("boxes", 4), ("intervals", 2)):
            if name in found:
                found[name] = tuple(_numbers(row, size) for row in found[name])
        if "frame_times" in found:
            found["frame_times"] = _numbers(found["frame_times"], len(found["frame_times"]))
        if "provenance" in found:
            found["provenance"] = json.loads(found["provenance"], parse_constant=_no_number)
            if not isinstance(found["provenance"], dict):
                raise ValueError("provenance: the JSON text of an object is needed")
        for name in ("audio_start", "audio_end"):
            if name in found:
                _numbers([found[name]], 1)
    except (TypeError, ValueError) as error:
        raise AvalignError(f"record {found['id']!r}: {error}") from error
    return Record(**found)


def from_checked(line: bytes) -> Record:
    """As `from_json` in a third of the time, for a line that it has read. ValueError if it is no JSON."""
    found = json.loads(line)
    if "references" in found:
        found["references"] = tuple(found["references"])
    for name in ("boxes", "intervals"):
        if name in found:
            found[name] = tuple(map(tuple, found[name]))
    if "frame_times" in found:
        found["frame_times"] = tuple(found["frame_times"])
    found["provenance"] = json.loads(found["provenance"]) if "provenance" in found else {}
    found.setdefault("slots", {})  # its own: not the one that all records have by default
    record = object.__new__(Record)  # not through its __init__, which would check once more
    record.__dict__.update(DEFAULTS)
    record.__dict__.update(found)
    return record


def asking(record: Record, instruction: str) -> Record:
    """The record with another instruction: dataclasses.replace, without checking once more what stays."""
    made = object.__new__(Record)
    made.__dict__.update(record.__dict__, instruction=instruction)
    return made


def _strings(values: list[Any]) -> tuple[str, ...]:
    if not all(isinstance(value, str) for value in values):
        raise ValueError("references: a list of strings is needed")
    return tuple(values)


def _numbers(row: Any, size: int) -> tuple[float, ...]:
    if len(row) != size or not all(type(number) in (int, float) for number in row):
        raise ValueError(f"{row!s:.80} is not a list of {size} numbers")
    if all(abs(number) <= sys.float_info.max for number in row):  # whole numbers may be larger than any float
        return tuple(row)
    raise ValueError(f"{row!s:.80} holds a number that is too large")


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def write(records: Iterable[Record], file: Path) -> int:
    """Write a JSONL manifest, complete or not at all. Returns how many records it has; no two of one id."""
    seen: set[str] = set()
    with unfinished(file) as beside, open(beside, "w", encoding="utf-8") as lines:
        for record in records:
            if record.id in seen:
                raise AvalignError(f"{file}: two records have the id {record.id!r}")
            seen.add(record.id)
            lines.write(to_json(record) + "\n")
    return len(seen)
