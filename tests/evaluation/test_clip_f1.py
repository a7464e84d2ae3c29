"""F1 by clip: cases worked by hand, and AVVP's counting done anew with matrices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avalign.evaluation.metrics.clip_f1 import DEFINITIONS, KINDS, by_clip, clip_metrics
from avalign.evaluation.tasks.igatl import Igatl
from avalign.types import Sample
from tests.helpers.strategies import quick

CLASSES = ("Dog", "Cat", "Speech")


def asked(kind, label, intervals, clip="a"):
    name = f"llp/{kind}/{clip}/{label}"
    return Sample(
        name, "igatl", "", "", intervals=tuple(intervals), label=label, kind=kind, provenance={"clip": clip}
    )


def scores(rows):
    """rows: (sample, answered intervals) -> metric -> value"""
    samples, answers = zip(*rows, strict=True)
    return {m.name: m.value() for m in clip_metrics(samples, answers, [10.0] * len(samples))}


def test_worked_example():
    """The dog of the module's docstring; its audio-visual seconds were not asked for."""
    found = scores(
        [(asked("audio", "Dog", [(2, 6)]), [(4, 8)]), (asked("visual", "Dog", [(0, 4)]), [(0, 4)])]
    )
    assert list(found) == list(DEFINITIONS)
    assert [found[f"{name} segment F1"] for name in (*KINDS, "Type@AV", "Event@AV")] == pytest.approx(
        [0.6, 1, 0.5, 0.7, 0.8]
    )
    # events: audio 3/7 no match; visual matched; audio-visual {4} in {2, 3, 4} is 1/3, none; pooled 2 / 4
    assert [found[f"{name} event F1"] for name in (*KINDS, "Type@AV", "Event@AV")] == pytest.approx(
        [0, 1, 0, 1 / 3, 0.5]
    )
    # half-open: audio 2 3 4 5 against 4 5 6 7; audio-visual 2 3 against none; pooled TP 6, FP 2, FN 2
    halves = [found[f"{name} segment F1 (half-open)"] for name in (*KINDS, "Type@AV", "Event@AV")]
    assert halves == pytest.approx([0.5, 1, 0, 0.5, 0.75])


@pytest.mark.parametrize(("answer", "segment", "event"), [((4, 8), 0.6, 0), ((3, 6), 8 / 9, 1)])
def test_known_answers(answer, segment, event):
    """Truth 2-6 s: METRICS.md's."""
    found = scores([(asked("audio", "Dog", [(2, 6)]), [answer])])
    assert found["audio segment F1"] == pytest.approx(segment)
    assert found["audio event F1"] == event


def test_nothing_said_of_nothing_is_one_and_what_was_not_asked_is_not_counted():
    found = scores(
        [
            (asked("audio", "Dog", []), []),
            (asked("audio", "Cat", [(0, 3)], clip="b"), []),
            (asked("visual", "Cat", [(0, 3)], clip="b"), [(0, 3)]),
        ]
    )
    assert found["audio segment F1"] == 0.5  # 1 of clip a, 0 of clip b
    assert found["visual segment F1"] == 1  # of clip b alone
    assert found["Event@AV segment F1"] == pytest.approx((1 + 2 * 4 / (2 * 4 + 4)) / 2)
    only_heard = scores([(asked("audio", "Dog", [(0, 1)]), [(0, 1)])])
    assert only_heard["audio segment F1"] == only_heard["Event@AV segment F1"] == 1
    assert only_heard["visual segment F1"] is None
    assert only_heard["Type@AV segment F1"] is None


def test_classes_are_averaged_in_a_clip_before_clips():
    found = scores(
        [
            (asked("audio", "Dog", [(0, 3)]), [(0, 3)]),
            (asked("audio", "Cat", [(0, 3)]), []),
            (asked("audio", "Dog", [(0, 3)], clip="b"), [(0, 3)]),
        ]
    )
    assert found["audio segment F1"] == 0.75


def test_an_audio_visual_question_is_taken_before_the_intersection():
    rows = [(asked("audio", "Dog", [(0, 9)]), [(0, 9)]), (asked("visual", "Dog", [(0, 9)]), [(0, 9)])]
    rows.append((asked("audio-visual", "Dog", [(0, 9)]), []))
    assert scores(rows)["audio-visual segment F1"] == 0
    assert scores(rows[:2])["audio-visual segment F1"] == 1


def test_only_questions_of_clips_are_counted_by_clip():
    whole = [asked(kind, "Dog", [(0, 1)]) for kind in KINDS]
    assert by_clip(whole)
    assert not by_clip([*whole, Sample("x", "igatl", "", "", label="Dog", kind="audio")])
    assert not by_clip([*whole, asked("other", "Dog", [])])
    answers = ["[0, 1]"] * 3
    names = [m.name for m in Igatl().metrics(whole, Igatl().score(whole, answers))]
    assert set(DEFINITIONS) < set(names)
    assert not any(
        m.grouped for m in Igatl().metrics(whole, Igatl().score(whole, answers)) if m.name in DEFINITIONS
    )


def test_unparsed_answers_are_silence():
    clip = [asked("audio", "Dog", [(0, 3)]), asked("visual", "Dog", [])]
    found = {m.name: m.value() for m in Igatl().metrics(clip, Igatl().score(clip, ["mumble", "never"]))}
    assert found["audio segment F1"] == 0
    assert found["visual segment F1"] == 1


# ---- AVVP's counting, with matrices of classes x seconds as its code has them ----

rows = st.lists(st.booleans(), min_size=10, max_size=10)
matrix = st.lists(rows, min_size=3, max_size=3).map(lambda m: np.array(m, dtype=int))
clip_drawn = st.tuples(matrix, matrix, matrix, matrix)  # answered: heard, seen; true: heard, seen


def spans(row):
    """Runs of 1 as [start, end)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], row, [0]])))
    return [(float(s), float(e)) for s, e in edges.reshape(-1, 2)]


def avvp_f1(pairs):
    """pairs of matrices whose counts of a class are added -> mean over classes"""
    scores = []
    for label in range(len(CLASSES)):
        tp = sum((p[label] * t[label]).sum() for p, t in pairs)
        wrong = sum(abs(p[label] - t[label]).sum() for p, t in pairs)
        if tp + wrong:
            scores.append(2 * tp / (2 * tp + wrong))
    return np.mean(scores) if scores else 1.0


def avvp_events_f1(pairs):
    scores = []
    for label in range(len(CLASSES)):
        tp = everything = 0
        for p, t in pairs:
            events = [[set(range(int(s), int(e))) for s, e in spans(m[label])] for m in (p, t)]
            tp += sum(any(2 * len(a & b) >= len(a | b) for b in events[1]) for a in events[0])
            everything += len(events[0]) + len(events[1])
        if everything:
            scores.append(2 * tp / everything)
    return np.mean(scores) if scores else 1.0


@quick
@given(st.lists(clip_drawn, min_size=1, max_size=3))
def test_half_open_is_avvp_where_everything_is_asked(clips):
    made, by_hand = [], {level: [] for level in ("segment", "event")}
    for number, (heard, seen, truly_heard, truly_seen) in enumerate(clips):
        for kind, p, t in (("audio", heard, truly_heard), ("visual", seen, truly_seen)):
            made += [
                (asked(kind, name, spans(t[i]), clip=str(number)), spans(p[i]))
                for i, name in enumerate(CLASSES)
            ]
        a, v = (heard, truly_heard), (seen, truly_seen)
        both = (heard * seen, truly_heard * truly_seen)
        for level, f1 in (("segment", avvp_f1), ("event", avvp_events_f1)):
            by_hand[level].append([f1([a]), f1([v]), f1([both]), f1([a, v])])
    found = scores(made)
    for level, values in by_hand.items():
        a, v, av, event = np.mean(values, axis=0)
        names = (*KINDS, "Type@AV", "Event@AV")
        assert [found[f"{name} {level} F1 (half-open)"] for name in names] == pytest.approx(
            [a, v, av, (a + v + av) / 3, event]
        )


def test_the_interval_is_over_clips():
    samples = [asked("audio", "Dog", [(0, 3)], clip=str(k)) for k in range(40)]
    metric = next(iter(clip_metrics(samples, [[(0, 3)]] * 20 + [[]] * 20, [10.0] * 40)))
    low, high = metric.interval(500, seed=0)
    assert metric.value() == 0.5
    assert 0.3 < low < 0.45 < 0.55 < high < 0.7
