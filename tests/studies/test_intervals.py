"""The two intervals of a study's numbers: what they are, and how often they hold what they should."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avalign.evaluation.metrics.bootstrap import Metric, mean, percentiles
from avalign.studies.results import over_samples, over_seeds


def test_three_seeds_by_hand():
    """Student's t of 2 degrees of freedom is 4.30265 at 0.975 (any table)."""
    found = over_seeds([0.6, 0.8, 0.7])
    assert found["mean"] == pytest.approx(0.7)
    assert found["sd"] == pytest.approx(0.1)
    assert found["low"] == pytest.approx(0.7 - 4.30265 * 0.1 / 3**0.5, abs=1e-6)
    assert found["high"] == pytest.approx(0.7 + 4.30265 * 0.1 / 3**0.5, abs=1e-6)
    assert found["n"] == 3


@pytest.mark.parametrize(("values", "mean"), [([], None), ([0.4], 0.4)])
def test_one_seed_has_no_interval(values, mean):
    assert over_seeds(values) == {"n": len(values), "mean": mean, "sd": None, "low": None, "high": None}


def test_students_interval_holds_the_truth_as_often_as_it_says_and_resampled_seeds_do_not():
    """Of 4,000 studies of 3 seeds each. Why Student's is shown: 0.95 of them against 0.76."""
    random = np.random.default_rng(0)
    studies = random.normal(0.3, 0.05, (4000, 3))
    held = [row["low"] <= 0.3 <= row["high"] for row in map(over_seeds, studies)]
    assert np.mean(held) == pytest.approx(0.95, abs=0.01)
    drawn = random.integers(0, 3, (1000, 3))
    bounds = np.percentile(studies[:, drawn].mean(-1), [2.5, 97.5], axis=1)
    assert np.mean((bounds[0] <= 0.3) & (bounds[1] >= 0.3)) < 0.8


def scores(right: np.ndarray) -> Metric:
    return mean("accuracy", right)


@given(st.integers(0, 2**32 - 1))
def test_models_that_answer_alike_differ_by_nothing_whatever_is_drawn(seed):
    """Paired: what both get wrong, and how hard the samples are, is no uncertainty of the difference."""
    random = np.random.default_rng(seed)
    seeds = [random.random(30) < 0.6 for _ in range(3)]
    assert over_samples([(scores(x), scores(x)) for x in seeds], 200) == [0.0, 0.0]
    shifted = [(scores(x + 0.25), scores(x)) for x in seeds]
    assert over_samples(shifted, 200) == pytest.approx([0.25, 0.25])


def test_samples_are_drawn_anew_for_each_seed():
    """Shares of n samples, averaged over k seeds, vary by p (1 - p) / (n k); drawn as one, k times that."""
    random = np.random.default_rng(1)
    right = [np.arange(400) < 240 for _ in range(4)]
    for one in right:
        random.shuffle(one)
    low, high = over_samples([(scores(one), None) for one in right], 4000)
    assert (high - low) / 2 == pytest.approx(1.96 * (0.6 * 0.4 / 1600) ** 0.5, rel=0.06)
    assert (high + low) / 2 == pytest.approx(0.6, abs=0.002)


def test_one_seed_is_the_bootstrap_of_its_report():
    metric = scores(np.arange(50) < 20)
    drawn = metric.resampled(500, 0)
    assert over_samples([(metric, None)], 500) == list(percentiles(drawn))


def test_what_cannot_be_resampled_has_no_interval():
    assert over_samples([]) is None
    assert over_samples([(Metric("METEOR", None, fixed=0.3), None)]) is None
    assert over_samples([(scores(np.ones(5)), Metric("METEOR", None, fixed=0.3))]) is None
