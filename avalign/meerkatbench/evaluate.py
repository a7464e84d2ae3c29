"""Score anything that answers: five tasks, trivial answers beside it, and it without sound or picture."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from avalign.batch import Sample
from avalign.errors import AvalignError, suggest
from avalign.meerkatbench.arig import Arig
from avalign.meerkatbench.avcap import Avcap
from avalign.meerkatbench.avfc import Avfc
from avalign.meerkatbench.avqa import Avqa
from avalign.meerkatbench.bootstrap import LEVEL, Metric, difference
from avalign.meerkatbench.igatl import Igatl
from avalign.meerkatbench.tables import as_markdown, best_trivial
from avalign.meerkatbench.task import Scored, Task, Trivial

TASKS: dict[str, Task] = {task.name: task for task in (Arig(), Igatl(), Avfc(), Avqa(), Avcap())}
TRAIN_SAMPLES = 200  # from which the trivial answers are learnt


class Answerer(Protocol):
    def answer(self, samples: Sequence[Sample]) -> list[str]: ...


class Samples(Protocol):
    """A source, as far as scoring needs it (avalign/data). `skipped` is read if it has one."""

    @property
    def tasks(self) -> Sequence[str]: ...

    def sample(self, split: str, task: str, index: int) -> Sample: ...


def evaluate(
    answerer: Answerer,
    source: Samples,
    *,
    tasks: Sequence[str],
    samples: int,
    batch_size: int,
    bootstrap: int,
    seed: int,
    modality_check: bool,
    out: Path,
    split: str = "test",
    pictures: int = 6,
    progress: Callable[[str, int, int], None] = lambda task, done, total: None,
) -> dict[str, Any]:
    """The first `samples` samples of each task, scored. Returns and writes out/scores.json; scores.md shows
    it, and out/<task>.jsonl holds every sample with its answer.

    samples, batch_size: samples of each task, and how many are answered at once
    bootstrap: resamples behind each 95 % interval; 0 for none
    modality_check: answer again without the sound, and without the picture
    pictures: drawn of each task's first samples to out/pictures, if the answerer can `explain`
    progress: called with task, samples answered, samples to answer
    """
    for name in tasks:
        if name not in TASKS:
            raise AvalignError(f"evaluation.tasks: no task {name!r}.{suggest(name, TASKS)}")
        if name not in source.tasks:
            raise AvalignError(
                f"evaluation.tasks: source {type(source).__name__} has no task {name!r}."
                f"{suggest(name, source.tasks)}"
            )
    for field, number, least in (
        ("samples", samples, 1),
        ("batch_size", batch_size, 1),
        ("bootstrap", bootstrap, 0),
    ):
        if number < least:
            raise AvalignError(f"evaluation.{field}: must be {least} or more, got {number}")
    out.mkdir(parents=True, exist_ok=True)
    removed: dict[str, dict[str, bool]] = {"": {}}
    if modality_check:
        removed |= {"without_audio": {"audio": True}, "without_image": {"image": True}}
    results = {}
    for name in tasks:
        task = TASKS[name]
        train = [_without_media(source.sample("train", name, i)) for i in range(TRAIN_SAMPLES)]
        test: list[Sample] = []
        answers: dict[str, list[str]] = {check: [] for check in removed}
        first: list[Sample] = []  # to be drawn
        for start in range(0, samples, batch_size):
            asked = [source.sample(split, name, i) for i in range(start, min(start + batch_size, samples))]
            for check, less in removed.items():
                answers[check] += _answers(answerer, [sample.without(**less) for sample in asked])
            first += asked[: max(0, pictures - len(first))]
            test += [_without_media(sample) for sample in asked]
            progress(name, len(test), samples)
        judged = {check: _Judged(task, test, said, bootstrap, seed) for check, said in answers.items()}
        results[name] = _result(judged.pop(""), task.trivial(train, seed))
        results[name] |= {check: less.summary(headline_only=True) for check, less in judged.items()}
        _write_samples(out / f"{name}.jsonl", test, answers[""], task.score(test, answers[""]))
        if first and hasattr(answerer, "explain"):
            from avalign.meerkatbench.pictures import draw_samples

            draw_samples(answerer, first, out / "pictures")
    skipped = [str(problem) for problem in getattr(source, "skipped", ())]
    scores = {
        "split": split,
        "seed": seed,
        "bootstrap": {"resamples": bootstrap, "level": LEVEL, "method": "percentile, over samples"},
        "skipped": {"count": len(skipped), "problems": skipped},
        "tasks": results,
    }
    (out / "scores.json").write_text(json.dumps(scores, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    (out / "scores.md").write_text(as_markdown(scores), encoding="utf-8")
    return scores


class _Judged:
    """One answerer's answers to one task's samples."""

    def __init__(
        self, task: Task, samples: Sequence[Sample], answers: Sequence[str], bootstrap: int, seed: int
    ) -> None:
        self.task, self.samples, self.bootstrap, self.seed = task, samples, bootstrap, seed
        self.scored = task.score(samples, answers)

    def headline(self) -> Metric:
        return next(self.task.metrics(self.samples, self.scored))

    def summary(self, *, headline_only: bool = False) -> dict[str, Any]:
        metrics = self.task.metrics(self.samples, self.scored)
        shown = [next(metrics)] if headline_only else metrics
        return {
            "parse_failures": sum(s.parsed is None for s in self.scored) / len(self.scored),
            "metrics": {m.name: _with_interval(m, self.bootstrap, self.seed) for m in shown},
        }

    def groups(self) -> dict[str, Any] | None:
        """The same metrics in each class, type or question type."""
        rows: dict[str, list[int]] = {}
        for i, sample in enumerate(self.samples):
            group = self.task.group(sample)
            if group is not None:
                rows.setdefault(group, []).append(i)
        if not rows:
            return None
        table = {}
        for group, members in sorted(rows.items()):
            metrics = self.task.metrics([self.samples[i] for i in members], [self.scored[i] for i in members])
            inside = [m for m in metrics if not m.name.startswith("macro ")]
            table[group] = {
                "n": len(members),
                "metrics": {m.name: _with_interval(m, self.bootstrap, self.seed) for m in inside},
            }
        return {"by": self.task.group_name, "rows": table}


def _result(judged: _Judged, trivial: dict[str, Trivial]) -> dict[str, Any]:
    """All that is said of one task, but for the modality check."""
    task, samples = judged.task, judged.samples
    others = {
        name: _Judged(task, samples, [answer(s) for s in samples], judged.bootstrap, judged.seed)
        for name, answer in trivial.items()
    }
    result = {
        "title": task.title,
        "headline": task.headline,
        "n": len(samples),
        "test_list": _test_list(samples),
        "definitions": task.definitions,
        **judged.summary(),
        "trivial": {name: other.summary() for name, other in others.items()},
        "groups": judged.groups(),
    }
    low = result["metrics"][task.headline]["low"]
    highs = [t["metrics"][task.headline]["high"] for t in result["trivial"].values()]
    known = low is not None and all(high is not None for high in highs)
    result["clear_of_trivial"] = all(low > high for high in highs) if known else None
    best = best_trivial(result)
    gain = best and difference(judged.headline(), others[best].headline(), judged.bootstrap, judged.seed)
    result["over_best_trivial"] = dict(zip(("value", "low", "high"), gain, strict=True)) if gain else None
    return result


def _with_interval(metric: Metric, bootstrap: int, seed: int) -> dict[str, float | None]:
    interval = metric.interval(bootstrap, seed)
    low, high = interval or (None, None)
    return {"value": metric.value(), "low": low, "high": high}


def _answers(answerer: Answerer, samples: Sequence[Sample]) -> list[str]:
    said = answerer.answer(samples)
    if len(said) != len(samples) or not all(isinstance(text, str) for text in said):
        types = ", ".join(sorted({type(text).__name__ for text in said}))
        raise TypeError(
            f"{type(answerer).__name__}.answer: given {len(samples)} samples it must return as many strings, "
            f"not {len(said)} ({types})"
        )
    return said


def _without_media(sample: Sample) -> Sample:
    """What scoring needs: the truth, and how long the sound is (a view of one zero; no memory)."""
    sample = sample.without(image=True)
    return (
        sample
        if sample.audio is None
        else replace(sample, audio=np.broadcast_to(np.float32(0), sample.audio.shape))
    )


def _truth(sample: Sample) -> dict[str, Any]:
    """What a sample is scored by, as JSON."""
    truth = {
        "response": sample.response,
        "references": list(sample.references),
        "boxes": [[float(x) for x in box] for box in sample.boxes],
        "intervals": [[float(t) for t in interval] for interval in sample.intervals],
        "label": sample.label,
    }
    return {key: value for key, value in truth.items() if value}


def _test_list(samples: Sequence[Sample]) -> str:
    """sha256 of ids, instructions and truth: two scores compare only where it is the same."""
    lines = (json.dumps([s.id, s.instruction, s.kind, _truth(s)], sort_keys=True) for s in samples)
    return "sha256:" + hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _write_samples(
    path: Path, samples: Sequence[Sample], answers: Sequence[str], scored: Sequence[Scored]
) -> None:
    with path.open("w", encoding="utf-8") as file:
        for sample, answer, judged in zip(samples, answers, scored, strict=True):
            row = {
                "id": sample.id,
                "kind": sample.kind,
                "instruction": sample.instruction,
                "truth": _truth(sample),
                "answer": answer,
                "parsed": judged.parsed,
                "values": judged.values,
            }
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
