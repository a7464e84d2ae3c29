"""Sound-event F1: the worked example, and sed_eval's own code where it is installed."""

from __future__ import annotations

import numpy as np
import pytest

from avalign.evaluation.metrics.sound_events import asks_audio, matched, sound_event_metrics
from avalign.types import Sample


def sample(name, label, intervals, kind=None, clip=None):
    return Sample(
        name, "igatl", "", "", intervals=tuple(intervals), label=label, kind=kind,
        provenance={"clip": clip} if clip else {},
    )  # fmt: skip


def scores(samples, answers, seconds=10.0):
    return [m.value() for m in sound_event_metrics(samples, answers, [seconds] * len(samples))]


def test_worked_example():
    dog = sample("1", "dog", [(2, 6)])
    assert scores([dog], [[(2.1, 5)]]) == pytest.approx([6 / 7, 1, 1])
    assert scores([dog], [[(2.3, 6)]]) == pytest.approx([1, 0, 0])
    assert scores([dog], [[(2, 3.9)]]) == pytest.approx([2 * 2 / 6, 1, 0])  # the offset 2.1 s of 2 s allowed


def test_a_collar_holds_its_edge():
    assert matched([(2.25, 4)], [(2.5, 4)], offsets=False) == 0
    assert matched([(1.2, 4)], [(1.0, 4)], offsets=False) == 1
    assert matched([(0.0, 4)], [(0.2, 4)], offsets=False) == 1
    assert matched([(1.0, 1.3)], [(1.0, 1.1)], offsets=True) == 1  # half of 0.1 s is less than the collar


def test_each_event_is_matched_once_and_as_many_as_can_be():
    """The first answer fits both true events, the second only the first: greedy would lose one."""
    assert matched([(1.1, 2), (0.9, 2)], [(1.0, 2), (1.3, 2)], offsets=False) == 2
    assert matched([(1.0, 2), (1.0, 2)], [(1.0, 2)], offsets=False) == 1


def test_counts_are_of_all_clips_and_classes_together():
    samples = [sample("1", "dog", [(0, 8)]), sample("2", "cat", [(0, 1)])]
    assert scores(samples, [[(0, 8)], []])[0] == pytest.approx(2 * 8 / (8 + 9))


def test_nothing_at_all_has_no_score():
    assert scores([sample("1", "dog", [])], [[]]) == [None] * 3


def test_only_sound_counts():
    heard, seen = sample("1", "dog", [], kind="audio"), sample("2", "dog", [], kind="visual")
    assert asks_audio([heard, sample("3", "dog", [])])
    assert not asks_audio([heard, seen])
    assert not asks_audio([heard, sample("4", None, [])])


@pytest.mark.parametrize("seed", range(5))
def test_against_sed_eval(seed):
    """Drawn clips of three classes, answers off by up to a second, some missed, some too many."""
    sed_eval = pytest.importorskip("sed_eval", reason="pip install sed_eval to cross-check")
    import dcase_util

    draw = np.random.default_rng(seed)
    labels = ("dog", "cat", "cow")
    samples, answers, theirs = [], [], []
    for clip in range(12):
        for label in labels:
            starts = np.cumsum(draw.uniform(0.5, 3, draw.integers(0, 4)))
            true = [
                (round(float(s), 2), round(float(min(s + draw.uniform(0.1, 0.5), 10)), 2)) for s in starts
            ]
            said = [
                (
                    round(max(0, s + float(draw.normal(0, 0.15))), 3),
                    round(e + abs(float(draw.normal(0, 0.4))), 3),
                )
                for s, e in true
                if draw.random() < 0.8
            ]
            said += [(7.25, 8.5)] if draw.random() < 0.2 else []
            said = [(s, e) for s, e in said if s < e <= 10]
            samples.append(sample(f"{clip}/{label}", label, true, kind="audio", clip=str(clip)))
            answers.append(said)
            theirs.append((clip, label, true, said))

    def events(clip, which):
        return dcase_util.containers.MetaDataContainer(
            [
                {"filename": f"{clip}.wav", "event_label": row[1], "onset": s, "offset": e}
                for row in theirs
                if row[0] == clip
                for s, e in row[which]
            ]
        )

    segment = sed_eval.sound_event.SegmentBasedMetrics(list(labels), time_resolution=1.0)
    onset = sed_eval.sound_event.EventBasedMetrics(list(labels), t_collar=0.2, evaluate_offset=False)
    both = sed_eval.sound_event.EventBasedMetrics(list(labels), t_collar=0.2, percentage_of_length=0.5)
    for clip in range(12):
        true, said = events(clip, 2), events(clip, 3)
        segment.evaluate(true, said, evaluated_length_seconds=10.0)
        onset.evaluate(true, said)
        both.evaluate(true, said)
    expected = [m.results_overall_metrics()["f_measure"]["f_measure"] for m in (segment, onset, both)]
    assert min(expected) > 0.05
    assert scores(samples, answers) == pytest.approx(expected)
