"""F1 by clip, as audio-visual video parsing (AVVP, LLP) counts it: all questions of one clip together.

What belongs to a clip says `provenance["clip"]` of its samples; each asks for one class (`label`) in one way
(`kind`): when it is heard ("audio"), seen ("visual"), or both at once ("audio-visual").

    audio, visual, audio-visual   per class 2TP / (2TP + FP + FN), averaged over the classes that are in
                                  prediction or truth (none is 1), then over the clips that were asked so
    Type@AV                       mean of these three
    Event@AV                      per class the counts of audio and visual added, then averaged likewise

The seconds of a class that are audio-visual are those answered to that question; where it was not asked,
those in which the class is both heard and seen, by the answers to both questions, as AVVP has it. A clip
counts where it was asked: AVVP asks for every class in every clip, and only then are these its numbers. They
are counted twice: on segments with their ends included, and, "half-open", on [start, end), as AVVP's
published code fills its rows (`GT_a[class, onset:offset] = 1`): what the literature's numbers stand on.

A worked example. A clip has a dog, heard 2-6 s and seen 0-4 s; the answers are 4-8 s and 0-4 s. With ends,
audio is 2 * 3 / 10 = 0.6, visual 1; audio-visual is 2 3 4 against 4, so 2 * 1 / 4 = 0.5; Type@AV 0.7.
Event@AV adds audio (TP 3, FP 2, FN 2) and visual (TP 5): 16 / 20 = 0.8 on segments.
Source: Tian, Li, Xu: Unified Multisensory Perception: Weakly-Supervised Audio-Visual Video Parsing,
ECCV 2020, and its code: github.com/YapengTian/AVVP-ECCV20, main_avvp.py and utils/eval_metrics.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from avalign.answers import Interval
from avalign.evaluation.metrics.bootstrap import Metric
from avalign.evaluation.metrics.overlap import Counts, event_counts, mean_f1, segment_counts, segments
from avalign.types import Sample

AUDIO, VISUAL, BOTH = KINDS = ("audio", "visual", "audio-visual")
LEVELS = {"segment": segment_counts, "event": event_counts}
COUNTINGS = {"": True, " (half-open)": False}  # ending of a metric's name -> whether ends are included
DEFINITIONS = {
    f"{name} {level} F1{ending}": f"LLP's, by clip: {what}; {how}, {counted}"
    for ending, counted in zip(
        COUNTINGS, ("ends included", "[start, end) as AVVP's code fills its rows"), strict=True
    )
    for level, how in (("segment", "1 s segments"), ("event", "runs of segments matched at IoU >= 0.5"))
    for name, what in (
        (
            AUDIO,
            "2TP / (2TP + FP + FN) of what is heard, mean over classes in prediction or truth, then clips",
        ),
        (VISUAL, "the same of what is seen"),
        (BOTH, "the same of what is heard and seen at once"),
        ("Type@AV", "mean of audio, visual and audio-visual"),
        ("Event@AV", "counts of audio and visual added for each class, then averaged likewise"),
    )
}


@dataclass
class Clip:
    """For each way of asking and each class: the segments answered and the true ones."""

    asked: dict[str, dict[str, tuple[frozenset[int], frozenset[int]]]] = field(
        default_factory=lambda: {kind: {} for kind in KINDS}
    )

    def add(self, kind: str, label: str, predicted: frozenset[int], true: frozenset[int]) -> None:
        before = self.asked[kind].get(label, (frozenset(), frozenset()))
        self.asked[kind][label] = (before[0] | predicted, before[1] | true)

    def complete(self) -> None:
        """Where a class was asked for by audio and by sight, but not by both at once: the seconds of both."""
        for label in self.asked[AUDIO].keys() & self.asked[VISUAL].keys() - self.asked[BOTH].keys():
            (audio, true_audio), (visual, true_visual) = self.asked[AUDIO][label], self.asked[VISUAL][label]
            self.asked[BOTH][label] = (audio & visual, true_audio & true_visual)

    def scores(self, level: str) -> dict[str, float | None]:
        """F1 of each kind, and Event@AV; None for what was not asked."""
        count = LEVELS[level]
        counts = {
            kind: {label: count(p, t) for label, (p, t) in rows.items()} for kind, rows in self.asked.items()
        }
        found: dict[str, float | None] = {
            kind: mean_f1(rows.values()) if rows else None for kind, rows in counts.items()
        }
        pooled = [
            _sum(counts[kind].get(label) for kind in (AUDIO, VISUAL))
            for label in sorted(counts[AUDIO].keys() | counts[VISUAL].keys())
        ]
        return found | {"Event@AV": mean_f1(pooled) if pooled else None}


def by_clip(samples: Sequence[Sample]) -> bool:
    """Whether these are questions of clips: each has a kind, a class and says its clip."""
    return bool(samples) and all(
        sample.kind in KINDS and sample.label and isinstance(sample.provenance.get("clip"), str)
        for sample in samples
    )


def clip_metrics(
    samples: Sequence[Sample], answered: Sequence[Sequence[Interval]], seconds: Sequence[float]
) -> Iterator[Metric]:
    """answered: intervals of each sample's answer; seconds: length of each sample's clip"""
    for ending, ends in COUNTINGS.items():
        clips: dict[str, Clip] = {}
        for sample, intervals, length in zip(samples, answered, seconds, strict=True):
            predicted, true = (segments(some, length, ends=ends) for some in (intervals, sample.intervals))
            clip = clips.setdefault(str(sample.provenance["clip"]), Clip())
            clip.add(str(sample.kind), str(sample.label), predicted, true)
        for clip in clips.values():
            clip.complete()
        for level in LEVELS:
            scores = [clip.scores(level) for clip in clips.values()]
            yield from _metrics(scores, f" {level} F1{ending}")


def _metrics(scores: Sequence[Mapping[str, float | None]], ending: str) -> Iterator[Metric]:
    columns = (*KINDS, "Event@AV")
    value = np.array([[score[name] or 0.0 for name in columns] for score in scores])
    asked = np.array([[score[name] is not None for name in columns] for score in scores], dtype=float)
    for index, name in enumerate(columns):
        yield Metric(name + ending, np.stack([value[:, index], asked[:, index]], 1), _mean, grouped=False)
        if name == BOTH:
            three = np.concatenate([value[:, :3], asked[:, :3]], 1)
            yield Metric("Type@AV" + ending, three, lambda sums: _mean_of(sums).mean(-1), grouped=False)


def _mean(sums: np.ndarray) -> np.ndarray:
    return np.asarray(_mean_of(sums)[..., 0])


def _mean_of(sums: np.ndarray) -> np.ndarray:
    """Sums (..., 2k) of values and of clips asked -> (..., k); not a number where none was."""
    values, asked = np.split(sums, 2, axis=-1)
    return np.divide(values, asked, out=np.full(values.shape, np.nan), where=asked > 0)


def _sum(counts: Iterable[Counts | None]) -> Counts:
    tp, fp, fn = (sum(column) for column in zip((0, 0, 0), *(c for c in counts if c), strict=True))
    return tp, fp, fn
