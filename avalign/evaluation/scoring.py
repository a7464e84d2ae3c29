"""From answers to scores: one task's samples with what was answered, summed up, grouped, and by source."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from avalign.evaluation.metrics.bootstrap import Metric, difference
from avalign.evaluation.paper import beside_the_paper
from avalign.evaluation.tasks.igatl import clip_seconds
from avalign.evaluation.tasks.task import Scored, Trivial
from avalign.interfaces import Mapped, Task
from avalign.report.tables import best_trivial
from avalign.system.atomic_write import unfinished
from avalign.types import CLIP_SECONDS, Sample

SHOWN = 5  # answers that could not be read, of each task
LONGEST_SHOWN = 200  # characters of each


@dataclass
class Answered:
    """A task's samples, without their media, and what was answered to each.

    maps:    this sample's share in the metrics of its heat map; None where no map came
    without: the answers to the same samples with audio or image taken away, by the name of the check
    """

    samples: list[Sample] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    maps: list[dict[str, float] | None] = field(default_factory=list)
    without: dict[str, list[str]] = field(default_factory=dict)

    def of(self, indices: Sequence[int]) -> Answered:
        return Answered(
            [self.samples[i] for i in indices],
            [self.answers[i] for i in indices],
            [self.maps[i] for i in indices],
            {check: [answers[i] for i in indices] for check, answers in self.without.items()},
        )

    def by_source(self) -> dict[str, Answered]:
        """The samples of each data set that the records name as their source; empty unless there are
        several."""
        indices: dict[str, list[int]] = {}
        for i, sample in enumerate(self.samples):
            indices.setdefault(source_of(sample) or "(not named)", []).append(i)
        return {name: self.of(rows) for name, rows in sorted(indices.items())} if len(indices) > 1 else {}


@dataclass(frozen=True)
class TaskScorer:
    """Everything that is said of a task's answers. bootstrap, seed: of the intervals"""

    task: Task
    trivial: Mapping[str, Trivial]
    trained_on: int  # training samples that the trivial answers were learnt from
    bootstrap: int
    seed: int

    def result(self, answered: Answered) -> dict[str, Any]:
        """The task's part of scores.json, with a part of the same form for each source."""
        return self._section(answered) | {
            "sources": {name: self._section(part) for name, part in answered.by_source().items()}
        }

    def scored(self, answered: Answered) -> list[Scored]:
        scored = self.task.score(answered.samples, answered.answers)
        if not (any(answered.maps) and isinstance(self.task, Mapped)):
            return scored
        maps = [
            self.task.map_values(sample, None) if values is None else values
            for sample, values in zip(answered.samples, answered.maps, strict=True)
        ]
        return [replace(s, values=s.values | extra) for s, extra in zip(scored, maps, strict=True)]

    def _section(self, answered: Answered) -> dict[str, Any]:
        task, samples = self.task, answered.samples
        scores = _TaskScores(task, samples, self.scored(answered), self.bootstrap, self.seed)
        others = {name: self._trivial(name, answered) for name in self.trivial}
        result: dict[str, Any] = {
            "title": task.title,
            "headline": task.headline,
            "n": len(samples),
            "test_list": test_list(samples),
            "definitions": task.definitions,
            **scores.summary(),
            "trivial": {name: other.summary() for name, other in others.items()},
            "trained_on": self.trained_on,
            "groups": scores.groups(),
            "unparsed": scores.unparsed(answered.answers),
        }
        if any(answered.maps):
            result["maps"] = sum(values is not None for values in answered.maps)
        for check, answers in answered.without.items():
            less = _TaskScores(task, samples, task.score(samples, answers), self.bootstrap, self.seed)
            result[check] = less.summary(headline_only=True)
        low = result["metrics"][task.headline]["low"]
        highs = [t["metrics"][task.headline]["high"] for t in result["trivial"].values()]
        known = low is not None and bool(highs) and all(high is not None for high in highs)
        result["clear_of_trivial"] = all(low > high for high in highs) if known else None
        best = best_trivial(result)
        gain = best and difference(scores.headline(), others[best].headline(), self.bootstrap, self.seed)
        result["over_best_trivial"] = dict(zip(("value", "low", "high"), gain, strict=True)) if gain else None
        result["paper"] = beside_the_paper(task.name, samples, result)
        return result

    def _trivial(self, name: str, answered: Answered) -> _TaskScores:
        samples, answer = answered.samples, self.trivial[name]
        said = Answered(samples, [answer(sample) for sample in samples], [None] * len(samples))
        if any(answered.maps) and isinstance(self.task, Mapped):
            heat = self.task.trivial_maps().get(name)
            if heat is not None:
                said.maps = [self.task.map_values(sample, heat) for sample in samples]
        return _TaskScores(self.task, samples, self.scored(said), self.bootstrap, self.seed)


class _TaskScores:
    """One answerer's answers to one task's samples."""

    def __init__(
        self, task: Task, samples: Sequence[Sample], scored: Sequence[Scored], bootstrap: int, seed: int
    ) -> None:
        self.task, self.samples, self.scored = task, samples, scored
        self.bootstrap, self.seed = bootstrap, seed

    def headline(self) -> Metric:
        return next(self.task.metrics(self.samples, self.scored))

    def summary(self, *, headline_only: bool = False) -> dict[str, Any]:
        metrics = self.task.metrics(self.samples, self.scored)
        shown = [next(metrics)] if headline_only else metrics
        return {
            "parse_failures": sum(s.parsed is None for s in self.scored) / len(self.scored),
            "metrics": {m.name: self._with_interval(m) for m in shown},
        }

    def unparsed(self, answers: Sequence[str]) -> dict[str, Any]:
        """How many answers could not be read, and the first of them."""
        found = [answer for answer, s in zip(answers, self.scored, strict=True) if s.parsed is None]
        return {"count": len(found), "first": [answer[:LONGEST_SHOWN] for answer in found[:SHOWN]]}

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
            table[group] = {
                "n": len(members),
                "metrics": {m.name: self._with_interval(m) for m in metrics if m.grouped},
            }
        return {"by": self.task.group_name, "rows": table}

    def _with_interval(self, metric: Metric) -> dict[str, float | None]:
        low, high = metric.interval(self.bootstrap, self.seed) or (None, None)
        return {"value": metric.value(), "low": low, "high": high}


def source_of(sample: Sample) -> str | None:
    """The data set that a manifest's record names as its source."""
    source = sample.provenance.get("source")
    return source if isinstance(source, str) else None


def truth_of(sample: Sample) -> dict[str, Any]:
    """What a sample is scored by, as JSON."""
    truth = {
        "response": sample.response,
        "references": list(sample.references),
        "boxes": [[float(x) for x in box] for box in sample.boxes],
        "consensus": sample.consensus if sample.consensus != 1 else None,
        "intervals": [[float(t) for t in interval] for interval in sample.intervals],
        "label": sample.label,
    }
    return {key: value for key, value in truth.items() if value}


def test_list(samples: Sequence[Sample]) -> str:
    """sha256 of ids, instructions and truth: two scores compare only where it is the same."""
    lines = (json.dumps([s.id, s.instruction, s.kind, truth_of(s)], sort_keys=True) for s in samples)
    return "sha256:" + hashlib.sha256("\n".join(lines).encode()).hexdigest()


def write_samples(path: Path, answered: Answered, scored: Sequence[Scored]) -> None:
    with unfinished(path) as beside, open(beside, "w", encoding="utf-8") as file:
        for sample, answer, score in zip(answered.samples, answered.answers, scored, strict=True):
            row = {
                "id": sample.id,
                "kind": sample.kind,
                "instruction": sample.instruction,
                "truth": truth_of(sample),
                "answer": answer,
                "parsed": score.parsed,
                "values": score.values,
            }
            if sample.task == "igatl":
                row[CLIP_SECONDS] = clip_seconds(sample)
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
