"""Score the answers of any other model: `avalign score MANIFEST PREDICTIONS.jsonl --out DIR`.

The answers take the model's place (predictions.py), the manifest's records without their media that of its
source, and everything else is as in evaluate.py. No image or audio has to exist.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from avalign.answers import UNITS
from avalign.data.manifest import Manifest
from avalign.data.manifest.record import Record
from avalign.errors import AvalignError, suggest
from avalign.evaluation.predictions import Predictions
from avalign.evaluation.tasks.igatl import UNKNOWN
from avalign.interfaces import Samples
from avalign.media.file import MediaError
from avalign.media.read import read_frames, read_image, seconds_of
from avalign.system.atomic_write import atomic_write
from avalign.types import CLIP_SECONDS, TASKS, Sample

SHOWN = 20  # of each problem in scores.json; unmatched.jsonl names all


class Questions(Samples):
    """A manifest's samples of one split without their media: of all records, or only of those in `said`.

    IGATL needs the clip's length: it is that of the record's span, what `provenance["seconds"]` says, what
    stands in the prediction's line (a run's own answers have it), or how long the audio file lasts, whichever
    is there first; else it is not known, and taken as IGATL does. `lengths` counts which it was.
    """

    def __init__(
        self, manifest: Manifest, split: str, said: Predictions, partial: bool = False, unit: str = UNITS[0]
    ) -> None:
        self.manifest, self.split, self.said, self.unit = manifest, split, said, unit
        self.lengths = {"span": 0, "provenance": 0, "prediction": 0, "file": 0, "unknown": 0}
        self._indices: dict[str, Sequence[int]] = {}
        for task in manifest.tasks:
            all_of_it = range(manifest.size(split, task))
            self._indices[task] = (
                [i for i in all_of_it if manifest.record(split, task, i).id in said.ids]
                if partial
                else all_of_it
            )
        self.tasks = tuple(task for task in TASKS if self._indices.get(task))

    def size(self, split: str, task: str) -> int:
        return len(self._indices.get(task, ())) if split == self.split else self.manifest.size(split, task)

    def sample(self, split: str, task: str, index: int) -> Sample:
        record = self.manifest.record(split, task, self._indices[task][index])
        sample = self.manifest.question(record)
        more: dict[str, Any] = {}
        if task == "igatl":
            more = self._length(record, sample)
        elif task == "arig":
            more = {"box_unit": self.unit} | self._size(record)
        return replace(sample, provenance=sample.provenance | more)

    def truth(self, split: str, task: str, index: int) -> Sample:
        return self.manifest.truth(split, task, index)

    def _length(self, record: Record, sample: Sample) -> dict[str, Any]:
        found: float | None = None
        if CLIP_SECONDS in sample.provenance:
            source = "provenance" if record.audio_end is None else "span"
            found = sample.provenance[CLIP_SECONDS]
        elif record.id in self.said.seconds:
            source, found = "prediction", self.said.seconds[record.id]
        else:
            source = "file"
            try:
                _, audio = self.manifest.files(record, 0)
                if audio is not None:
                    found = seconds_of(audio) - (record.audio_start or 0.0)
            except MediaError:
                found = None
            if found is None or found <= 0:
                source, found = "unknown", None
        self.lengths[source] += 1
        return {} if found is None else {CLIP_SECONDS: found}

    def _size(self, record: Record) -> dict[str, Any]:
        """The image's width and height in pixels, which boxes in pixels need: what the provenance says, or
        the file."""
        if "image_size" in record.provenance or self.unit != "pixels" or record.image is None:
            return {}
        try:
            image, _ = self.manifest.files(record, 0)
            assert image is not None
            shape = (
                read_frames(image, record.frame_times[:1])[0] if record.frame_times else read_image(image)
            ).shape
        except MediaError as error:
            raise AvalignError(
                f"--box-unit pixels needs each image's size: record {record.id!r} has no image_size in its "
                f"provenance, and {error}"
            ) from error
        return {"image_size": [shape[1], shape[0]]}


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
    box_unit: str = UNITS[0],
) -> dict[str, Any]:
    """Scores of predictions for every record of a split. Writes out/scores.json, scores.md, report.html,
    <task>.jsonl, and unmatched.jsonl with every id and line that did not find its other half.

    tasks: all that the split has when not given
    allow_partial: score only the records that were answered; otherwise those that were not count as wrong
    media: folder that the records' paths start from, the manifest's own when not given; none need exist
    box_unit: of the numbers of boxes where an answer does not tell it
    maps: folder that heat maps' names start from; that of the predictions when not given
    """
    from avalign.evaluation.evaluate import TASKS as KNOWN
    from avalign.evaluation.evaluate import evaluate
    from avalign.report.report import write_scores_page

    listed = Manifest(media=None if media is None else str(media))
    listed.prepare(str(manifest), seed=seed)
    said = Predictions(predictions, predictions.parent if maps is None else maps)
    if box_unit not in UNITS:
        raise AvalignError(f"--box-unit: no unit {box_unit!r}.{suggest(box_unit, UNITS)}")
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
            f"{predictions}: none of its {len(said.ids)} ids, such as {next(iter(said.ids))!r}, is that of a "
            f"record asked for, such as {wanted[0]!r}"
        )
    source = Questions(listed, split, said, allow_partial, box_unit)

    def notes() -> dict[str, Any]:
        problems = {
            "missing": missing, "unknown": unknown, "repeated": said.repeated, "unreadable": said.unreadable,
            "unusable heat map": said.no_map,
        }  # fmt: skip
        lines = (
            json.dumps({"problem": kind, "which": which}, ensure_ascii=False) + "\n"
            for kind, found in problems.items()
            for which in found
        )
        atomic_write(out / "unmatched.jsonl", "".join(lines))
        told = {kind: {"count": len(found), "first": found[:SHOWN]} for kind, found in problems.items()}
        return {
            "predictions": {
                "file": predictions.name, "lines": said.lines, "records": len(wanted),
                "partial": allow_partial, **told,
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
        figures=0,
        notes=notes,
    )
    write_scores_page(out, f"{predictions.name} on {manifest.name}")
    return scores


def _unmatched(said: Predictions, listed: Manifest, wanted: Sequence[str]) -> tuple[list[str], list[str]]:
    """Records that were not answered; answers to no record asked for, saying if there is one elsewhere."""
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
