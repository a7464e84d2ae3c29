"""IGATL, image-guided audio temporal localisation: when is what is in the image heard?

    prompt    <image> <audio> When does the object in the picture make its sound?
    answer    [2.00, 6.00]
    parse     all intervals read by `grammar.read_intervals`; words like "never" for none; nothing: unparsed
    score     continuous temporal IoU of the seconds covered; and F1 on 1 s segments and on events
    clips     where all samples say their clip and kind (LLP), F1 by clip as in AVVP: clips.py; where all ask
              for a class by its audio, F1 of sound events as in sed_eval: sound_events.py
    length    of the clip: what its record says (its span, or provenance "seconds"), else its audio; where no
              sound was read, 10 s or the last true end if that is later

A worked example. Truth [2.00, 6.00], answer "[3.00, 6.00]" in a 10 s clip: temporal IoU = 3 s / 4 s = 0.75.
Counted on 1 s segments, ends included: truth 2 3 4 5 6, answer 3 4 5 6, so temporal IoU = 4 / 5 = 0.8 and
segment F1 = 2 * 4 / (5 + 4) = 0.889; the one event matches, as 0.8 >= 0.5: event F1 = 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np

from avalign.answers import Interval, answer_in, read_intervals, write_interval
from avalign.evaluation.metrics import clip_f1 as clips
from avalign.evaluation.metrics import sound_events
from avalign.evaluation.metrics.bootstrap import Metric, mean, mean_of_groups
from avalign.evaluation.metrics.overlap import event_f1, segment_f1, segment_iou, segments, temporal_iou
from avalign.evaluation.tasks.task import Scored, Trivial
from avalign.interfaces import Task
from avalign.types import CLIP_SECONDS, Sample

UNKNOWN = 10.0  # seconds a clip is taken to last when nobody knows
_NEVER = re.compile(r"\b(?:never|none|nothing|silent|no sound)\b", re.IGNORECASE)
_NUMBER = re.compile(r"\d+(?:\.\d+)?")  # "silent from 2 to 4 s" is not "never"


class Igatl(Task):
    name = "igatl"
    title = "IGATL: image-guided audio temporal localisation"
    headline = "mean temporal IoU"
    group_name = "class"
    definitions = {  # noqa: RUF012
        "mean temporal IoU": "continuous: seconds in both over seconds in either; both empty is 1",
        "macro mean temporal IoU": "mean over classes of mean temporal IoU",
        "mean segment IoU": "temporal IoU counted on 1 s segments, ends included",
        "segment F1": "1 s segments, ends included; 2TP / (2TP + FP + FN) per class, mean over clips; both "
        "empty is 1",
        "event F1": "runs of 1 s segments, matched at temporal IoU >= 0.5, mean over clips",
        **clips.DEFINITIONS,
        **sound_events.DEFINITIONS,
    }

    def score(self, samples: Sequence[Sample], answers: Sequence[str]) -> list[Scored]:
        return [_score(sample, answer) for sample, answer in zip(samples, answers, strict=True)]

    def metrics(self, samples: Sequence[Sample], scored: Sequence[Scored]) -> Iterator[Metric]:
        continuous = [s.values["temporal IoU"] for s in scored]
        yield mean("mean temporal IoU", continuous)
        if all(sample.label for sample in samples):
            yield mean_of_groups("macro mean temporal IoU", continuous, [str(s.label) for s in samples])
        yield mean("mean segment IoU", [s.values["segment IoU"] for s in scored])
        yield mean("segment F1", [s.values["segment F1"] for s in scored])
        yield mean("event F1", [s.values["event F1"] for s in scored])
        answered = [s.parsed["intervals"] if s.parsed else [] for s in scored]
        seconds = [clip_seconds(sample) for sample in samples]
        if clips.by_clip(samples):
            yield from clips.clip_metrics(samples, answered, seconds)
        if sound_events.asks_audio(samples):
            yield from sound_events.sound_event_metrics(samples, answered, seconds)

    def trivial(self, train: Sequence[Sample], seed: int) -> dict[str, Trivial]:
        answers: dict[str, Trivial] = {"whole clip": lambda sample: _written((0.0, clip_seconds(sample)))}
        taught = [interval for sample in train for interval in sample.intervals]
        if not taught:
            return answers
        start, end = np.mean(taught, axis=0)

        def mean_interval(sample: Sample) -> str:
            clip = clip_seconds(sample)
            return _written((float(start), min(float(end), clip)) if start < clip else (0.0, clip))

        return {**answers, "mean interval of training": mean_interval}

    def group(self, sample: Sample) -> str | None:
        return sample.label


def clip_seconds(sample: Sample) -> float:
    """What the sample's record says, so that it is the same with and without media; else the length of its
    sound; without one, 10 s (as the data sets' clips), or the last true end if that is later."""
    said = sample.provenance.get(CLIP_SECONDS)
    if isinstance(said, int | float):
        return float(said)
    if sample.audio is not None:
        return len(sample.audio) / sample.sample_rate
    return max((end for _, end in sample.intervals if end > UNKNOWN), default=UNKNOWN)


def _score(sample: Sample, answer: str) -> Scored:
    answer = answer_in(answer)
    found = read_intervals(answer)
    if not found and (not _NEVER.search(answer) or len(_NUMBER.findall(answer)) > 1):
        return Scored(None, dict.fromkeys(("temporal IoU", "segment IoU", "segment F1", "event F1"), 0.0))
    clip = clip_seconds(sample)
    predicted, true = segments(found, clip), segments(sample.intervals, clip)
    name = sample.label or ""
    return Scored(
        {"intervals": [list(interval) for interval in found]},
        {
            "temporal IoU": temporal_iou(found, sample.intervals),
            "segment IoU": segment_iou(predicted, true),
            "segment F1": segment_f1({name: predicted}, {name: true}),
            "event F1": event_f1({name: predicted}, {name: true}),
        },
    )


def _written(interval: Interval) -> str:
    return write_interval(interval, decimals=3)
