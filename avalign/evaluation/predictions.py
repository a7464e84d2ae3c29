"""Answers from a file instead of from a model.

A line is {"id": the record's, "answer": text}, for ARIG with a heat map over the image if there is one:
"heat_map": the name of a .npy file below the folder of maps, or the map itself, a list of rows. For IGATL
"clip_seconds" may say how long the clip lasts. What a run wrote of its own answers, eval/<task>.jsonl, is
such a file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from avalign.data.manifest.clip_length import LONGEST
from avalign.data.manifest.record import stays_inside
from avalign.errors import AvalignError, suggest
from avalign.system.json_file import read_line
from avalign.types import Sample

FIELDS = ("id", "answer", "heat_map", "clip_seconds")
OWN = ("kind", "instruction", "truth", "parsed", "values")  # besides, in what a run writes: not looked at
LARGEST = 4096  # rows or columns of a heat map


@dataclass
class Predictions:
    """An answerer that looks its answers up; what was not answered is "", and so unparsed and wrong.

    file: the predictions; maps: folder that heat maps' names start from
    """

    file: Path
    maps: Path
    lines: int = 0
    unreadable: list[str] = field(default_factory=list)  # "predictions.jsonl:12: ..."
    repeated: list[str] = field(default_factory=list)  # "predictions.jsonl:13: id ..."; the first counts
    no_map: list[str] = field(default_factory=list)  # "id: heat map ..."
    seconds: dict[str, float] = field(default_factory=dict)  # id -> how long its clip lasts
    _answers: dict[str, tuple[str, int]] = field(default_factory=dict)  # id -> answer, where its line begins
    _mapped: set[str] = field(default_factory=set)  # ids whose line has a heat map

    def __post_init__(self) -> None:
        try:
            with open(self.file, "rb") as lines:
                begin = 0
                for number, line in enumerate(lines, start=1):
                    if not line.isspace():
                        self._take(f"{self.file.name}:{number}", line, begin)
                    begin += len(line)
        except OSError as error:
            raise AvalignError(f"{self.file}: cannot be read: {error.strerror}") from error
        if not self._answers:
            why = f": {self.unreadable[0]}" if self.unreadable else ""
            raise AvalignError(f"{self.file}: holds no prediction{why}")

    def _take(self, where: str, line: bytes, begin: int) -> None:
        self.lines += 1
        try:
            found = _prediction(line)
        except ValueError as error:
            self.unreadable.append(f"{where}: {error}")
            return
        if found["id"] in self._answers:
            self.repeated.append(f"{where}: {found['id']}")
            return
        self._answers[found["id"]] = (found["answer"], begin)
        if found.get("heat_map") is not None:
            self._mapped.add(found["id"])
        if "clip_seconds" in found:
            self.seconds[found["id"]] = float(found["clip_seconds"])

    @property
    def ids(self) -> Mapping[str, Any]:
        return self._answers

    def answer(self, samples: Sequence[Sample]) -> list[str]:
        return [self._answers.get(sample.id, ("", 0))[0] for sample in samples]

    def answer_with_maps(self, samples: Sequence[Sample]) -> list[tuple[str, np.ndarray | None]]:
        answers = self.answer(samples)
        return [
            (text, self._map(sample.id) if sample.id in self._mapped else None)
            for sample, text in zip(samples, answers, strict=True)
        ]

    def _map(self, name: str) -> np.ndarray | None:
        """The heat map of one line, read anew: all together may be more than memory holds."""
        with open(self.file, "rb") as lines:
            lines.seek(self._answers[name][1])
            heat = json.loads(lines.readline())["heat_map"]
        try:
            return _checked_map(_map_file(self.maps, heat) if isinstance(heat, str) else heat)
        except ValueError as error:
            self.no_map.append(f"{name}: heat map {error}")
            return None


def _prediction(line: bytes) -> dict[str, Any]:
    """The object of a line; a ValueError says why it is none."""
    found = read_line(line)
    for name in found:
        if name not in FIELDS and name not in OWN:
            raise ValueError(f"a prediction has no field {name!r:.80}.{suggest(name, FIELDS)}")
    seconds = found.get("clip_seconds", 1.0)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < LONGEST:
        raise ValueError(f"clip_seconds is {json.dumps(seconds)[:60]}, not a length in seconds")
    for name in ("id", "answer"):
        if not isinstance(found.get(name), str):
            raise ValueError(f"{name} is {json.dumps(found.get(name))[:60]}, not a text")
    if not isinstance(found.get("heat_map"), str | list | None):
        raise ValueError("heat_map is neither the name of a file nor a list of rows")
    return found


def _map_file(folder: Path, name: str) -> np.ndarray:
    if not stays_inside(name) or "\0" in name or not name.endswith(".npy"):
        raise ValueError(f"{name!r:.120} is not the path of a .npy file below the folder of maps")
    file = (folder / name).resolve()
    if not file.is_relative_to(folder.resolve()):
        raise ValueError(f"{name!r} leads out of the folder of maps")
    try:
        heat: np.ndarray = np.lib.format.open_memmap(file, mode="r")  # np.load would take a zip, too
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{name!r}: is no .npy file that can be read: {error}") from error
    return heat


def _checked_map(values: Any) -> np.ndarray:
    try:
        heat = np.asarray(values)
    except ValueError as error:
        raise ValueError("has rows of different lengths") from error
    if heat.ndim != 2 or not heat.size or max(heat.shape) > LARGEST:
        raise ValueError(
            f"has the shape {heat.shape}; rows and columns are needed, at most {LARGEST} of each"
        )
    if heat.dtype.kind not in "fiub":
        raise ValueError(f"holds {heat.dtype}, not numbers")
    heat = heat.astype(float)
    if not np.isfinite(heat).all():
        raise ValueError("holds NaN or infinite values")
    return heat
