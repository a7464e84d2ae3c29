"""F1 of sound events as DCASE's challenges and the package sed_eval count it, over all clips and classes.

    segments   1 s segments [k, k + 1) in which a class sounds at all
    events     an event answered is right when one of its class is there whose onset is within 0.2 s and, for
               "onset and offset", whose offset is within max(0.2 s, half the true event's length); each true
               event is taken once, in the matching that finds the most

A worked example. Truth 2-6 s, answer 2.1-5 s. Segments: 2 3 4 5 against 2 3 4, F1 = 2 * 3 / 7 = 0.857. The
onset is 0.1 s off, the offset 1 s of an allowed 2 s: the event is right. Answer 2.3-6: the onset is 0.3 s
off, so it is wrong.
Source: Mesaros, Heittola, Virtanen: Metrics for polyphonic sound event detection, Applied Sciences 2016.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from avalign.answers import Interval
from avalign.evaluation.metrics.bootstrap import Metric
from avalign.evaluation.metrics.overlap import segments
from avalign.types import Sample

COLLAR = 0.2  # seconds by which an onset, or an offset, may be off
SHARE = 0.5  # of the true event's length, by which its offset may be off if that is more
DEFINITIONS = {
    "sound-event segment F1": "as sed_eval: 1 s segments [k, k + 1), 2TP / (2TP + FP + FN) over all clips "
    "and classes",
    "sound-event F1, onset": "as sed_eval: events of a class matched one to one, onset within 0.2 s; over "
    "all clips and classes",
    "sound-event F1, onset and offset": "the same, and the offset within max(0.2 s, half the true event)",
}


def asks_audio(samples: Sequence[Sample]) -> bool:
    """Whether each asks when a class is heard (and not when it is seen)."""
    return bool(samples) and all(sample.label and sample.kind in (None, "audio") for sample in samples)


def sound_event_metrics(
    samples: Sequence[Sample], answered: Sequence[Sequence[Interval]], seconds: Sequence[float]
) -> Iterator[Metric]:
    """answered: intervals of each sample's answer; seconds: length of each sample's clip"""
    clips: dict[str, list[int]] = defaultdict(list)
    for index, sample in enumerate(samples):
        clips[str(sample.provenance.get("clip", sample.id))].append(index)

    def metric(name: str, count: Callable[[int], tuple[int, int]]) -> Metric:
        """count: sample -> right, answered and true ones together"""
        rows = [np.sum([count(index) for index in indices], axis=0) for indices in clips.values()]
        return Metric(name, np.array(rows, dtype=float), _f1)

    def segment(index: int) -> tuple[int, int]:
        p, t = (segments(s, seconds[index], ends=False) for s in (answered[index], samples[index].intervals))
        return len(p & t), len(p) + len(t)

    def events(index: int, offsets: bool) -> tuple[int, int]:
        p, t = answered[index], samples[index].intervals
        return matched(p, t, offsets=offsets), len(p) + len(t)

    names = iter(DEFINITIONS)
    yield metric(next(names), segment)
    yield metric(next(names), lambda index: events(index, False))
    yield metric(next(names), lambda index: events(index, True))


def matched(predicted: Sequence[Interval], true: Sequence[Interval], *, offsets: bool) -> int:
    """How many events can be matched one to one within the collars."""
    if not predicted or not true:
        return 0
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import maximum_bipartite_matching

    p, t = np.asarray(predicted, dtype=float)[:, None], np.asarray(true, dtype=float)[None]
    near = abs(p[..., 0] - t[..., 0]) <= COLLAR
    if offsets:
        allowed = np.maximum(COLLAR, SHARE * (t[..., 1] - t[..., 0]))
        near &= abs(p[..., 1] - t[..., 1]) <= allowed
    return int((maximum_bipartite_matching(csr_matrix(near)) >= 0).sum())


def _f1(sums: np.ndarray) -> np.ndarray:
    """Sums (..., 2) of right ones and of all; not a number where nothing was answered and nothing is true."""
    right, total = sums[..., 0], sums[..., 1]
    return np.divide(2 * right, total, out=np.full(np.shape(total), np.nan), where=total > 0)
