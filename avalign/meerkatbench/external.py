"""Score the answers of any other model: `avalign score MANIFEST PREDICTIONS.jsonl --out DIR`.

A line of the predictions is {"id": the record's, "answer": text}, for ARIG with a heat map over the picture if
there is one: "heat_map": the name of a .npy file below the folder of maps, or the map itself, a list of rows.
No picture or sound has to exist.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from avalign.batch import TASKS, Sample
from avalign.data.manifest import Manifest
from avalign.data.manifest.record import Record, stays_inside
from avalign.data.media import MediaError, seconds_of
from avalign.errors import AvalignError, suggest
from avalign.meerkatbench.igatl import UNKNOWN

FIELDS = ("id", "answer", "heat_map")
SHOWN = 20  # of each problem in scores.json; unmatched.jsonl names all
LONGEST = 1e5  # seconds that a provenance is believed
LARGEST = 4096  # rows or columns of a heat map
RATE = 16_000  # Hz of the silence that stands for a clip's length


# ---- the manifest's side ----


class Questions:
    """A manifest's samples of one split without their media: of all records, or only of those in `ids`.

    IGATL needs the clip's length: it is that of the record's span, what `provenance["seconds"]` says, or what
    the sound file's header says, whichever is there first; else it is not known, and taken as IGATL does.
    `lengths` counts which it was.
    """

    def __init__(self, manifest: Manifest, split: str, ids: Mapping[str, Any] | None = None) -> None:
        self.manifest, self.split = manifest, split
        self.lengths = {"span": 0, "provenance": 0, "file": 0, "unknown": 0}
        self._places: dict[str, Sequence[int]] = {}
        for task in manifest.tasks:
            all_of_it = range(manifest.size(split, task))
            self._places[task] = (
                all_of_it
                if ids is None
                else [i for i in all_of_it if manifest.record(split, task, i).id in ids]
            )
        self.tasks = tuple(task for task in TASKS if self._places.get(task))

    def size(self, split: str, task: str) -> int:
        return len(self._places.get(task, ())) if split == self.split else self.manifest.size(split, task)

    def sample(self, split: str, task: str, index: int) -> Sample:
        record = self.manifest.record(split, task, self._places[task][index])
        sample = self.manifest.question(record)
        seconds = self._seconds(record) if task == "igatl" else None
        if seconds is None:
            return sample
        silence = np.broadcast_to(np.float32(0), (round(seconds * RATE),))
        return replace(sample, audio=silence, sample_rate=RATE)

    def truth(self, split: str, task: str, index: int) -> Sample:
        return self.manifest.truth(split, task, index)

    def _seconds(self, record: Record) -> float | None:
        start, said = record.audio_start or 0.0, record.provenance.get("seconds")
        found: float | None = None
        if record.audio_end is not None:
            source, found = "span", record.audio_end - start
        elif isinstance(said, int | float) and not isinstance(said, bool) and 0 < said < LONGEST:
            source, found = "provenance", float(said)
        else:
            source = "file"
            try:
                if record.audio is not None:
                    found = seconds_of(self.manifest.folder / record.audio) - start
            except MediaError:
                found = None
            if found is None or found <= 0:
                source, found = "unknown", None
        self.lengths[source] += 1
        return found


# ---- the predictions' side ----


@dataclass
class Predictions:
    """An answerer that looks its answers up; what was not answered is "", and so counts as unparsed and wrong.

    file: the predictions; maps: folder that heat maps' names start from
    """

    file: Path
    maps: Path
    lines: int = 0
    unreadable: list[str] = field(default_factory=list)  # "predictions.jsonl:12: ..."
    repeated: list[str] = field(default_factory=list)  # "predictions.jsonl:13: id ..."; the first counts
    no_map: list[str] = field(default_factory=list)  # "id: heat map ..."
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

    @property
    def ids(self) -> Mapping[str, Any]:
        return self._answers

    def answer(self, samples: Sequence[Sample]) -> list[str]:
        return [self._answers.get(sample.id, ("", 0))[0] for sample in samples]

    def answer_with_maps(self, samples: Sequence[Sample]) -> list[tuple[str, np.ndarray | None]]:
        texts = self.answer(samples)
        return [
            (text, self._map(sample.id) if sample.id in self._mapped else None)
            for sample, text in zip(samples, texts, strict=True)
        ]

    def _map(self, name: str) -> np.ndarray | None:
        """The heat map of one line, read anew: all together may be more than memory holds."""
        with open(self.file, "rb") as lines:
            lines.seek(self._answers[name][1])
            given = json.loads(lines.readline())["heat_map"]
        try:
            return _checked_map(_map_file(self.maps, given) if isinstance(given, str) else given)
        except ValueError as error:
            self.no_map.append(f"{name}: heat map {error}")
            return None


def _prediction(line: bytes) -> dict[str, Any]:
    """The object of a line; a ValueError says why it is none."""
    try:
        found = json.loads(line)
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 text: byte {error.start} cannot be read") from error
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"is not a JSON object but a {type(found).__name__}")
    for name in found:
        if name not in FIELDS:
            raise ValueError(f"a prediction has no field {name!r:.80}.{suggest(name, FIELDS)}")
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
        heat: np.ndarray = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{name!r}: is no .npy file that can be read: {error}") from error
    return heat


def _checked_map(given: Any) -> np.ndarray:
    try:
        heat = np.asarray(given)
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


# ---- both ----


def score(
    manifest: Path,
    predictions: Path,
    out: Path,
    *,
    split: str = "test",
    tasks: Sequence[str] | None = None,
    allow_partial: bool = False,
    media: Path | None = None,
    maps: Path | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Scores of predictions for every record of a split: out/scores.json, scores.md, report.html, <task>.jsonl,
    and unmatched.jsonl with every id and line that did not find its other half.

    tasks: all that the split has when not given
    allow_partial: score only the records that were answered; otherwise those that were not count as wrong
    media: folder that the records' paths start from, the manifest's own when not given; nothing in it is needed
    maps: folder that heat maps' names start from; that of the predictions when not given
    """
    from avalign.meerkatbench.evaluate import TASKS as KNOWN
    from avalign.meerkatbench.evaluate import evaluate
    from avalign.meerkatbench.report import write_scores_page

    listed = Manifest(media=None if media is None else str(media))
    listed.prepare(str(manifest), seed=seed)
    said = Predictions(predictions, predictions.parent if maps is None else maps)
    for task in tasks or ():
        if task not in KNOWN:
            raise AvalignError(f"--tasks: no task {task!r}.{suggest(task, KNOWN)}")
    asked = [task for task in listed.tasks if listed.size(split, task) and (tasks is None or task in tasks)]
    lacking = [task for task in tasks or () if task not in asked]
    if lacking or not asked:
        there = [task for task in listed.tasks if listed.size(split, task)]
        raise AvalignError(
            f"{manifest}: split {split!r} has no record of {', '.join(lacking) or 'any task'}. "
            f"It has: {', '.join(there) or 'none'}"
        )
    wanted = [listed.record(split, task, i).id for task in asked for i in range(listed.size(split, task))]
    missing, unknown = _unmatched(said, listed, wanted)
    if len(missing) == len(wanted):
        raise AvalignError(
            f"{predictions}: none of its {len(said.ids)} ids, such as {next(iter(said.ids))!r}, is that of a record "
            f"asked for, such as {wanted[0]!r}"
        )
    source = Questions(listed, split, said.ids if allow_partial else None)

    def notes() -> dict[str, Any]:
        problems = {
            "missing": missing, "unknown": unknown, "repeated": said.repeated, "unreadable": said.unreadable,
            "unusable heat map": said.no_map,
        }  # fmt: skip
        with open(out / "unmatched.jsonl", "w", encoding="utf-8") as lines:
            for kind, found in problems.items():
                lines.writelines(
                    json.dumps({"problem": kind, "which": which}, ensure_ascii=False) + "\n"
                    for which in found
                )
        told = {kind: {"count": len(found), "first": found[:SHOWN]} for kind, found in problems.items()}
        return {
            "predictions": {
                "file": predictions.name, "lines": said.lines, "records": len(wanted), "partial": allow_partial,
                **told,
            },
            "clip_lengths": {**source.lengths, "unknown_taken_as": UNKNOWN} if "igatl" in asked else None,
        }  # fmt: skip

    scores = evaluate(
        said,
        source,
        tasks=[task for task in asked if task in source.tasks],
        samples="all",
        batch_size=500,
        bootstrap=bootstrap,
        seed=seed,
        modality_check=False,
        out=out,
        split=split,
        pictures=0,
        notes=notes,
    )
    write_scores_page(out, f"{predictions.name} on {manifest.name}")
    return scores


def _unmatched(said: Predictions, listed: Manifest, wanted: Sequence[str]) -> tuple[list[str], list[str]]:
    """Records that were not answered; and answers to no record asked for, saying if there is one elsewhere."""
    missing = [name for name in wanted if name not in said.ids]
    unknown = dict.fromkeys(said.ids)
    for name in wanted:
        unknown.pop(name, None)
    if unknown:  # a mistaken split or task is worth telling apart from a mistaken id
        for number in range(len(listed.table)):
            record = listed.table[number]
            if record.id in unknown:
                unknown[record.id] = f"{record.id} (a record of split {record.split}, task {record.task})"
    return missing, [name if where is None else where for name, where in unknown.items()]
