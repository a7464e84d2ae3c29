"""Score the answers of any other model: `avalign score MANIFEST PREDICTIONS.jsonl --out DIR`.

The answers take the model's place (predictions.py), the manifest's records without their media that of its
source, and everything else is as in evaluate.py. No picture or sound has to exist.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from avalign.batch import TASKS, Sample
from avalign.data.manifest import Manifest
from avalign.data.manifest.record import Record
from avalign.data.media import MediaError, seconds_of
from avalign.errors import AvalignError, suggest
from avalign.meerkatbench.igatl import UNKNOWN
from avalign.meerkatbench.predictions import Predictions

SHOWN = 20  # of each problem in scores.json; unmatched.jsonl names all
LONGEST = 1e5  # seconds that a provenance is believed
RATE = 16_000  # Hz of the silence that stands for a clip's length


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
    """Scores of predictions for every record of a split. Writes out/scores.json, scores.md, report.html,
    <task>.jsonl, and unmatched.jsonl with every id and line that did not find its other half.

    tasks: all that the split has when not given
    allow_partial: score only the records that were answered; otherwise those that were not count as wrong
    media: folder that the records' paths start from, the manifest's own when not given; none need exist
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
            f"{predictions}: none of its {len(said.ids)} ids, such as {next(iter(said.ids))!r}, is that of a "
            f"record asked for, such as {wanted[0]!r}"
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
        pictures=0,
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
