"""Scores of boxes, intervals and verdicts: the known answers, and what must hold for any input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from avalign.evaluation.metrics import overlap as metrics
from avalign.evaluation.metrics.overlap import (
    best_iou,
    binarised,
    box_iou,
    ciou,
    event_f1,
    fill,
    resized,
    segment_f1,
    segment_iou,
    segments,
    success_auc,
    temporal_iou,
    truth_map,
    verdict_counts,
)

side = st.tuples(st.integers(0, 50), st.integers(1, 50)).map(lambda s: (s[0] / 100, (s[0] + s[1]) / 100))
boxes = st.tuples(side, side).map(lambda s: (s[0][0], s[1][0], s[0][1], s[1][1]))
interval = st.tuples(st.integers(0, 40), st.integers(1, 40)).map(lambda s: (s[0] / 4, (s[0] + s[1]) / 4))
intervals = st.lists(interval, max_size=4)


# ---- boxes ----


@pytest.mark.parametrize(
    ("values", "reported", "auc"), [([1, 0.5, 0], 2 / 3, 0.51667), ([0.6, 0.3], 0.5, 0.475)]
)
def test_known_success_rate_and_auc(values, reported, auc):
    assert np.mean(np.array(values) >= 0.5) == pytest.approx(reported)
    assert success_auc(np.array(values)).mean() == pytest.approx(auc, abs=1e-5)


def test_the_mean_of_areas_is_the_area_of_the_mean():
    values = np.random.default_rng(0).random(50)
    rate = [(values >= i / 20).mean() for i in range(21)]
    assert success_auc(values).mean() == pytest.approx(np.trapezoid(rate, dx=0.05))


def test_known_ciou_top_half_against_left_half():
    assert ciou(fill([(0, 0, 1, 0.5)]), fill([(0, 0, 0.5, 1)])) == pytest.approx(1 / 3)


@given(boxes, boxes)
def test_ciou_of_boxes_is_their_pixels_iou(a, b):
    p, g = fill([a]), fill([b])
    both, either = np.logical_and(p, g).sum(), np.logical_or(p, g).sum()
    assert ciou(p, g) == pytest.approx(both / either if either else 0.0)


@given(boxes, boxes)
def test_box_iou_counted_on_a_grid_of_hundredths(a, b):
    def cells(box):
        x0, y0, x1, y1 = (round(100 * x) for x in box)
        return {(x, y) for x in range(x0, x1) for y in range(y0, y1)}

    p, t = cells(a), cells(b)
    assert box_iou(a, b) == pytest.approx(len(p & t) / len(p | t))
    assert best_iou(a, [b, a]) == pytest.approx(1.0)


def test_corners_are_truncated_and_clipped():
    grid = fill([(0.1, -0.5, 0.6, 1.5)])
    assert grid[:, 22:134].all()
    assert grid.sum() == 224 * (134 - 22)


def flickr(*boxes):
    """Annotators' boxes in Flickr-SoundNet's frame of 256 px, as a record keeps them."""
    return [tuple(x / 256 for x in box) for box in boxes]


def test_the_truth_of_flickr_soundnet_is_whole_where_two_annotators_agree():
    truth = truth_map(flickr((0, 0, 128, 256), (64, 0, 192, 256), (64, 0, 128, 256)), consensus=2)
    assert np.unique(truth[:, :56]) == 0.5
    assert np.unique(truth[:, 56:112]) == 1  # three boxes: no more than 1
    assert np.unique(truth[:, 112:168]) == 0.5
    assert truth[:, 168:].sum() == 0


def test_known_ciou_of_flickr_soundnet():
    """Two annotators, columns 0-111 and 56-167: G = 1/2, 1, 1/2 on three bands of 56 columns.

    The answer 0-111 has 56 (1/2 + 1) = 84 of sum(G) = 112, and nothing where G is 0: 0.75. The whole image
    has 112, and 56 columns where G is 0: 112 / 168. As a union (VGG-SS) the first would be 112 / 168.
    """
    boxes = flickr((0, 0, 128, 256), (64, 0, 192, 256))
    truth = truth_map(boxes, consensus=2)
    assert ciou(fill(flickr((0, 0, 128, 256))), truth) == pytest.approx(0.75)
    assert ciou(fill([(0, 0, 1, 1)]), truth) == pytest.approx(2 / 3)
    assert ciou(fill(flickr((0, 0, 128, 256))), truth_map(boxes)) == pytest.approx(2 / 3)


@given(st.lists(boxes, min_size=1, max_size=4))
def test_the_truth_of_vgg_ss_is_the_union(several):
    assert np.array_equal(truth_map(several), fill(several))


@pytest.mark.parametrize("shape", [(14, 14), (7, 9), (224, 224), (1, 3), (300, 500)])
def test_maps_are_resized_as_ez_vsl_does(shape):
    heat = np.random.default_rng(0).random(shape)
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(heat)[None, None], size=(224, 224), mode="bilinear", align_corners=True
    )
    assert np.allclose(resized(heat), theirs[0, 0].numpy(), atol=1e-12)


def test_known_ciou_of_a_heat_map():
    """A map that falls from top to bottom keeps the top half: against the left half 1/3."""
    heat = np.repeat(np.arange(14.0)[::-1, None], 14, 1)
    kept = binarised(resized(heat))
    assert kept.sum() == 224 * 112
    assert ciou(kept, fill([(0, 0, 0.5, 1)])) == pytest.approx(1 / 3)
    assert binarised(np.ones((224, 224))).all()


def test_half_a_map_is_kept_so_that_a_small_object_cannot_reach_one_half():
    heat = np.add.outer(np.arange(224.0) * 1000, np.arange(224.0))
    kept = binarised(heat)
    assert kept.sum() == 224 * 224 / 2
    assert kept[112:].all()
    assert ciou(kept, fill([(0, 0.6, 0.6, 1)])) < 0.5


# ---- intervals ----


def test_known_interval_two_seconds_late():
    """Truth 2-6 s, answer 4-8 s."""
    p, t = segments([(4, 8)], 10), segments([(2, 6)], 10)
    assert segment_f1({"dog": p}, {"dog": t}) == pytest.approx(0.6)
    assert segment_iou(p, t) == pytest.approx(3 / 7)
    assert event_f1({"dog": p}, {"dog": t}) == 0
    assert temporal_iou([(4, 8)], [(2, 6)]) == pytest.approx(2 / 6)


def test_known_interval_one_second_short():
    """Truth 2-6 s, answer 3-6 s."""
    p, t = segments([(3, 6)], 10), segments([(2, 6)], 10)
    assert segment_f1({"dog": p}, {"dog": t}) == pytest.approx(0.889, abs=5e-4)
    assert segment_iou(p, t) == pytest.approx(0.8)
    assert event_f1({"dog": p}, {"dog": t}) == 1
    assert temporal_iou([(3, 6)], [(2, 6)]) == pytest.approx(0.75)


def test_nothing_said_of_nothing_is_right_and_of_something_wrong():
    none, some = frozenset(), frozenset({1})
    for score in (segment_f1, event_f1):
        assert score({}, {}) == score({"dog": none}, {"cat": none}) == 1
        assert score({}, {"dog": some}) == score({"dog": some}, {}) == 0
        assert score({"dog": some, "cat": some}, {"dog": some}) == 0.5  # averaged over both classes
    assert segment_iou(none, none) == temporal_iou([], []) == 1
    assert temporal_iou([], [(0, 1)]) == 0


def test_segments_without_ends_are_those_of_avvp_rows():
    """AVVP's published rows are onset:offset of a list of seconds."""
    assert segments([(2, 6)], 10, ends=False) == {2, 3, 4, 5}
    assert segments([(2.3, 5.6), (9, 12)], 10, ends=False) == {2, 3, 4, 5, 9}
    assert segments([(2, 3)], 10, ends=False) == {2}


def test_segments_stay_in_the_clip():
    assert segments([(0, 10)], 10) == frozenset(range(10))
    assert segments([(1.2, 2.64), (9.5, 1e12)], 9.8) == {1, 2, 9}
    assert segments([(20, 30)], 10) == frozenset()


@given(intervals, intervals)
def test_temporal_iou_counted_on_quarter_seconds(predicted, true):
    def quarters(spans):
        return {q for start, end in spans for q in range(round(4 * start), round(4 * end))}

    p, t = quarters(predicted), quarters(true)
    assert temporal_iou(predicted, true) == pytest.approx(len(p & t) / len(p | t) if p | t else 1.0)


@given(st.frozensets(st.integers(0, 30)), st.frozensets(st.integers(0, 30)))
def test_events_match_at_most_once(predicted, true):
    assert 0 <= event_f1({"dog": predicted}, {"dog": true}) <= 1
    assert event_f1({"dog": true}, {"dog": true}) == 1
    assert event_f1({"dog": predicted}, {"dog": true}) == event_f1({"dog": true}, {"dog": predicted})


# ---- verdicts ----


def test_known_verdicts():
    predicted = [True] * 3 + [False] * 2 + [True] + [False] * 4
    sums = verdict_counts(predicted, [True] * 5 + [False] * 5).sum(0)
    assert sums[:4].tolist() == [3, 1, 2, 4]
    assert metrics.precision(sums) == 0.75
    assert metrics.recall(sums) == 0.6
    assert metrics.f1(sums) == pytest.approx(0.6667, abs=5e-5)
    assert metrics.accuracy(sums) == 0.7
    assert metrics.balanced_accuracy(sums) == pytest.approx((0.6 + 0.8) / 2)


def test_an_unparsed_verdict_is_wrong_and_never_yes():
    sums = verdict_counts([None, None, True, False], [True, False, True, False]).sum(0)
    assert metrics.accuracy(sums) == 0.5
    assert metrics.recall(sums) == 0.5
    assert metrics.precision(sums) == 1
    assert metrics.balanced_accuracy(sums) == 0.5


def test_scores_of_nothing_are_zero():
    sums = verdict_counts([False], [False]).sum(0)
    assert metrics.precision(sums) == metrics.recall(sums) == metrics.f1(sums) == 0
