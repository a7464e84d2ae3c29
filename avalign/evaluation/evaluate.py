"""Score anything that answers: five tasks, trivial answers beside it, and it without audio or image.

What answers may be a model (its source then decodes images and audio clips) or a file of predictions
(external.py); everything after the answers is the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from avalign.data.collate import SampleError
from avalign.data.location import name_location
from avalign.errors import AvalignError, suggest
from avalign.evaluation.metrics.bootstrap import LEVEL
from avalign.evaluation.scoring import Answered, TaskScorer, write_samples
from avalign.evaluation.tasks.arig import Arig
from avalign.evaluation.tasks.avcap import Avcap
from avalign.evaluation.tasks.avfc import Avfc
from avalign.evaluation.tasks.avqa import Avqa
from avalign.evaluation.tasks.igatl import Igatl
from avalign.interfaces import Answerer, Explainer, Mapped, Mapper, Samples, Task
from avalign.media.file import MediaError
from avalign.offered import completed
from avalign.report.tables import as_markdown
from avalign.system.atomic_write import atomic_write
from avalign.types import Sample

TASKS: dict[str, Task] = {task.name: task for task in (Arig(), Igatl(), Avfc(), Avqa(), Avcap())}
TRAIN_SAMPLES = 200  # from which the trivial answers are learnt


def evaluate(
    answerer: Answerer,
    source: Samples,
    *,
    tasks: Sequence[str],
    samples: int | Literal["all"],
    batch_size: int,
    bootstrap: int,
    seed: int,
    modality_check: bool,
    out: Path,
    split: str = "test",
    figures: int = 6,
    progress: Callable[[str, int, int], None] = lambda task, done, total: None,
    notes: Callable[[], Mapping[str, Any]] = dict,
) -> dict[str, Any]:
    """The first `samples` samples of each task, scored. Returns and writes out/scores.json; scores.md shows
    it, and out/<task>.jsonl holds every sample with its answer.

    samples: of each task; "all", or more than a split has: every one that it has
    batch_size: how many are answered at once
    bootstrap: resamples behind each 95 % interval; 0 for none
    modality_check: answer again without the audio, and without the image
    figures: drawn of each task's first samples to out/pictures, if the answerer can `explain`
    progress: called with task, samples answered, samples to answer
    notes: what else scores.json is to say, asked for when all is answered
    """
    completed(source, Samples)
    _check(source, tasks, samples, batch_size, bootstrap)
    counts = {name: count(source, split, name, samples) for name in tasks}
    out.mkdir(parents=True, exist_ok=True)
    results = {}
    for name in tasks:
        task, train = TASKS[name], _train(source, name)
        scorer = TaskScorer(task, task.trivial(train, seed), len(train), bootstrap, seed)
        answered = Answered()
        first: list[Sample] = []  # to be drawn
        for start in range(0, counts[name], batch_size):
            stop = min(start + batch_size, counts[name])
            asked = [_sample(source, split, name, i) for i in range(start, stop)]
            try:
                _ask(answerer, task, asked, answered, modality_check)
            except SampleError as error:
                ids = [sample.id for sample in asked]
                if error.sample in ids:  # one of them cannot be asked
                    name_location(error, source, split, name, start + ids.index(error.sample))
                raise
            first += asked[: max(0, figures - len(first))]
            progress(name, stop, counts[name])
        results[name] = scorer.result(answered)
        write_samples(out / f"{name}.jsonl", answered, scorer.scored(answered))
        if first and isinstance(answerer, Explainer):
            from avalign.report.figures import draw_samples

            draw_samples(answerer, first, out / "pictures")
    skipped = [str(problem) for problem in source.skipped]
    scores = {
        "split": split,
        "seed": seed,
        "bootstrap": {"resamples": bootstrap, "level": LEVEL, "method": "percentile, over samples"},
        "skipped": {"count": len(skipped), "problems": skipped},
        **notes(),
        "tasks": results,
    }
    atomic_write(out / "scores.md", as_markdown(scores))
    atomic_write(out / "scores.json", json.dumps(scores, indent=1, allow_nan=False) + "\n")
    return scores


def count(source: Samples, split: str, task: str, samples: int | Literal["all"]) -> int:
    """How many samples of a task will be asked: as many as wanted, or as there are."""
    there = source.size(split, task)
    if there is None:
        if samples == "all":
            raise AvalignError(
                f"evaluation.samples: source {type(source).__name__} makes samples without end: "
                "give a number, not all"
            )
        return samples
    if there == 0:
        has = sorted(name for name in source.tasks if source.size(split, name))
        raise AvalignError(
            f"evaluation.tasks: split {split!r} has no sample of task {task!r}. "
            f"It has: {', '.join(has) or 'none'}"
        )
    return there if samples == "all" else min(samples, there)


def _check(
    source: Samples, tasks: Sequence[str], samples: int | Literal["all"], batch_size: int, bootstrap: int
) -> None:
    for name in tasks:
        if name not in TASKS:
            raise AvalignError(f"evaluation.tasks: no task {name!r}.{suggest(name, TASKS)}")
        if name not in source.tasks:
            raise AvalignError(
                f"evaluation.tasks: source {type(source).__name__} has no task {name!r}."
                f"{suggest(name, source.tasks)}"
            )
    if isinstance(samples, str) and samples != "all":
        raise AvalignError(f"evaluation.samples: must be a number or all, got {samples!r}")
    wanted = 1 if isinstance(samples, str) else samples
    for field, number, least in (
        ("samples", wanted, 1),
        ("batch_size", batch_size, 1),
        ("bootstrap", bootstrap, 0),
    ):
        if number < least:
            raise AvalignError(f"evaluation.{field}: must be {least} or more, got {number}")


def _train(source: Samples, task: str) -> list[Sample]:
    """Training samples from which the trivial answers are learnt; none where the source has none."""
    size = source.size("train", task)
    there = TRAIN_SAMPLES if size is None else min(TRAIN_SAMPLES, size)
    return [_without_media(source.truth("train", task, i)) for i in range(there)]


def _sample(source: Samples, split: str, task: str, index: int) -> Sample:
    try:
        return source.sample(split, task, index)
    except MediaError as error:
        name_location(error, source, split, task, index)
        raise


def _ask(
    answerer: Answerer, task: Task, asked: Sequence[Sample], answered: Answered, modality_check: bool
) -> None:
    """Adds the answers to these samples, and those without audio and without image."""
    maps: Sequence[np.ndarray | None] = [None] * len(asked)
    if isinstance(task, Mapped) and isinstance(answerer, Mapper):
        pairs = answerer.answer_with_maps(asked)
        answers, maps = [text for text, _ in pairs], [heat for _, heat in pairs]
    else:
        answers = answerer.answer(asked)
    answered.answers += _checked(answerer, asked, answers)
    answered.maps += [
        task.map_values(sample, heat) if heat is not None and isinstance(task, Mapped) else None
        for sample, heat in zip(asked, maps, strict=True)
    ]
    answered.samples += [_without_media(sample) for sample in asked]
    if modality_check:
        for check, less in (("without_audio", {"audio": True}), ("without_image", {"image": True})):
            fewer = [sample.without(**less) for sample in asked]
            answered.without.setdefault(check, []).extend(_checked(answerer, fewer, answerer.answer(fewer)))


def _checked(answerer: Answerer, samples: Sequence[Sample], said: list[str]) -> list[str]:
    if len(said) != len(samples) or not all(isinstance(text, str) for text in said):
        types = ", ".join(sorted({type(text).__name__ for text in said}))
        raise TypeError(
            f"{type(answerer).__name__}.answer: given {len(samples)} samples it must return as many strings, "
            f"not {len(said)} ({types})"
        )
    return said


def _without_media(sample: Sample) -> Sample:
    """What scoring needs: the truth, and how long the audio is (a view of one zero; no memory)."""
    sample = sample.without(image=True)
    return (
        sample
        if sample.audio is None
        else replace(sample, audio=np.broadcast_to(np.float32(0), sample.audio.shape))
    )
