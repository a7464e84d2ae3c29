"""Scores of boxes, intervals and verdicts, one formula a function, with its source.

Boxes are (x_left, y_top, x_right, y_bottom) in 0..1, intervals (start, end) in seconds, scores in 0..1.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np

from avalign.answers import Box, Interval

GRID = 224  # pixels of the grid on which cIoU is counted
THRESHOLDS = np.arange(21) / 20  # i / 20, for 0.05 * i loses 0.6 and 0.3 to rounding


# ---- boxes ----


def box_iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def best_iou(box: Box, true_boxes: Collection[Box]) -> float:
    """IoU with the true box that fits best (several objects may sound; finding one of them is right)."""
    return max((box_iou(box, true) for true in true_boxes), default=0.0)


def fill(boxes: Collection[Box]) -> np.ndarray:
    """(224, 224) map, 1 inside the union of boxes; corners are int(224 * clip(x, 0, 1)), as for VGG-SS."""
    grid = np.zeros((GRID, GRID))
    for box in boxes:
        x0, y0, x1, y1 = (int(GRID * min(max(x, 0.0), 1.0)) for x in box)
        grid[y0:y1, x0:x1] = 1
    return grid


def truth_map(boxes: Collection[Box], consensus: int = 1) -> np.ndarray:
    """(224, 224) truth G = min(sum of the boxes' maps / consensus, 1).

    consensus: boxes that must cover a pixel for it to count in full. 1 (VGG-SS): the union of the boxes;
               2 (Flickr-SoundNet): where two annotators agree, half where only one saw it
    """
    return np.minimum(sum((fill([box]) for box in boxes), np.zeros((GRID, GRID))) / consensus, 1)


def resized(heat: np.ndarray) -> np.ndarray:
    """(rows, columns) -> (224, 224) by bilinear interpolation, corners on corners, as EZ-VSL scores its
    maps."""
    down, across = (_between(size) for size in heat.shape)
    return np.asarray(down @ heat.astype(float) @ across.T)


def _between(size: int) -> np.ndarray:
    """(224, size): each point of the grid as a mean of the two cells that it lies between."""
    at = np.linspace(0, size - 1, GRID)
    return np.maximum(0, 1 - abs(at[:, None] - np.arange(size)))


def binarised(heat: np.ndarray) -> np.ndarray:
    """The top 50 % of a heat map's pixels as 1 (EZ-VSL): all that reach the upper median, so that a constant
    map is 1 everywhere. The map protocol, not to be mixed with the boxes'."""
    return (heat >= np.sort(heat, axis=None)[heat.size // 2]).astype(float)


def ciou(prediction: np.ndarray, truth: np.ndarray) -> float:
    """sum(P G) / (sum(G) + sum(P where G = 0)), maps of one shape (Localizing Visual Sounds the Hard Way)."""
    extent = truth.sum() + prediction[truth == 0].sum()
    return float((prediction * truth).sum() / extent) if extent > 0 else 0.0


def success_auc(values: np.ndarray) -> np.ndarray:
    """Per sample, the trapezoid area under "value >= threshold" over 0, 0.05, ..., 1; their mean is the AUC.

    (n,) -> (n,). The area is linear in the success rate, so that the mean of areas is the area of the mean.
    """
    success = (np.asarray(values)[:, None] >= THRESHOLDS).astype(float)
    return (success.sum(1) - (success[:, 0] + success[:, -1]) / 2) / (len(THRESHOLDS) - 1)


# ---- intervals ----


def temporal_iou(predicted: Collection[Interval], true: Collection[Interval]) -> float:
    """Continuous: seconds covered by both over seconds covered by either; both empty is 1."""
    edges = sorted({edge for interval in (*predicted, *true) for edge in interval})
    both = either = 0.0
    for low, high in itertools.pairwise(edges):
        in_predicted = any(s <= low and high <= e for s, e in predicted)
        in_true = any(s <= low and high <= e for s, e in true)
        both += (high - low) * (in_predicted and in_true)
        either += (high - low) * (in_predicted or in_true)
    return both / either if either > 0 else 1.0


def segments(intervals: Collection[Interval], clip: float, *, ends: bool = True) -> frozenset[int]:
    """The 1 s segments touched, ends included: (2, 6) -> 2, 3, 4, 5, 6; without ends 2, 3, 4, 5.

    Segment k is [k, k + 1) of a clip of `clip` seconds; segments that the clip does not have do not count.
    """
    last = math.ceil(clip) - 1
    return frozenset(
        k
        for start, end in intervals
        for k in range(math.floor(start), min(math.floor(end) if ends else math.ceil(end) - 1, last) + 1)
        if k >= 0
    )


def segment_iou(predicted: frozenset[int], true: frozenset[int]) -> float:
    """Temporal IoU counted on distinct 1 s segments; both empty is 1."""
    return len(predicted & true) / len(predicted | true) if predicted | true else 1.0


def segment_f1(predicted: Mapping[str, frozenset[int]], true: Mapping[str, frozenset[int]]) -> float:
    """One clip's 2TP / (2TP + FP + FN) per class, averaged over classes in prediction or truth; none is 1."""
    return mean_f1(segment_counts(p, t) for p, t in _by_class(predicted, true))


def event_f1(predicted: Mapping[str, frozenset[int]], true: Mapping[str, frozenset[int]]) -> float:
    """One clip's F1 of events, averaged like `segment_f1`."""
    return mean_f1(event_counts(p, t) for p, t in _by_class(predicted, true))


Counts = tuple[int, int, int]  # TP, FP, FN


def segment_counts(predicted: frozenset[int], true: frozenset[int]) -> Counts:
    both = len(predicted & true)
    return both, len(predicted) - both, len(true) - both


def event_counts(predicted: frozenset[int], true: frozenset[int]) -> Counts:
    """An event is a run of segments; two match at temporal IoU >= 0.5, which none can do with two others."""
    p, t = _runs(predicted), _runs(true)
    matched = sum(any(segment_iou(a, b) >= 0.5 for b in t) for a in p)
    return matched, len(p) - matched, len(t) - matched


def mean_f1(counts: Iterable[Counts]) -> float:
    """Mean of 2TP / (2TP + FP + FN) over the classes that have any of them; 1 if none has."""
    scores = [2 * tp / (2 * tp + fp + fn) for tp, fp, fn in counts if tp + fp + fn]
    return sum(scores) / len(scores) if scores else 1.0


def _by_class(
    predicted: Mapping[str, frozenset[int]], true: Mapping[str, frozenset[int]]
) -> Iterator[tuple[frozenset[int], frozenset[int]]]:
    for name in sorted(predicted.keys() | true.keys()):
        yield predicted.get(name, frozenset()), true.get(name, frozenset())


def _runs(marked: frozenset[int]) -> list[frozenset[int]]:
    """{1, 2, 3, 7} -> [{1, 2, 3}, {7}]"""
    runs: list[list[int]] = []
    for k in sorted(marked):
        if runs and runs[-1][-1] == k - 1:
            runs[-1].append(k)
        else:
            runs.append([k])
    return [frozenset(run) for run in runs]


# ---- verdicts ----


def verdict_counts(predicted: Sequence[bool | None], true: Sequence[bool]) -> np.ndarray:
    """(n, 6): TP, FP, FN, TN, right and 1 of each sample.

    None (unparsed) is never "yes": a miss where the truth is True, nothing where it is False, never right.
    """
    rows = []
    for p, t in zip(predicted, true, strict=True):
        tp, fp, fn, tn = p is True and t, p is True and not t, p is not True and t, p is False and not t
        rows.append((tp, fp, fn, tn, tp or tn, True))
    return np.array(rows, dtype=float).reshape(-1, 6)


def precision(counts: np.ndarray) -> np.ndarray:
    """TP / (TP + FP) of sums (..., 6) as from `verdict_counts`; 0 when nothing was called True."""
    return ratio(counts[..., 0], counts[..., 0] + counts[..., 1])


def recall(counts: np.ndarray) -> np.ndarray:
    """TP / (TP + FN); 0 when nothing is True."""
    return ratio(counts[..., 0], counts[..., 0] + counts[..., 2])


def f1(counts: np.ndarray) -> np.ndarray:
    """2 TP / (2 TP + FP + FN), the harmonic mean of precision and recall; 0 when there is nothing to find."""
    return ratio(2 * counts[..., 0], 2 * counts[..., 0] + counts[..., 1] + counts[..., 2])


def accuracy(counts: np.ndarray) -> np.ndarray:
    """(TP + TN) / n"""
    return ratio(counts[..., 4], counts[..., 5])


def balanced_accuracy(counts: np.ndarray) -> np.ndarray:
    """Mean of the shares of True samples called True and of False samples called False."""
    false = counts[..., 5] - counts[..., 0] - counts[..., 2]
    return (recall(counts) + ratio(counts[..., 3], false)) / 2


def ratio(part: np.ndarray, total: np.ndarray) -> np.ndarray:
    """part / whole, 0 where whole is 0."""
    return np.divide(part, total, out=np.zeros(np.broadcast_shapes(part.shape, total.shape)), where=total > 0)
