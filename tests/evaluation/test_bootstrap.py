"""Intervals of scores: right on average, paired where they should be, none where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from avalign.evaluation.metrics.bootstrap import Metric, difference, mean, mean_of_groups


def test_the_interval_of_a_mean_is_that_of_theory():
    """For 400 coin flips: 1.96 standard errors either side."""
    metric = mean("accuracy", np.arange(400) % 2)
    low, high = metric.interval(2000, seed=0)
    assert metric.value() == 0.5
    assert (0.5 - low, high - 0.5) == pytest.approx((1.96 * 0.025,) * 2, rel=0.1)


def test_the_interval_holds_the_truth_about_19_times_in_20():
    generator = np.random.default_rng(0)
    hits = 0
    for seed in range(200):
        low, high = mean("x", generator.normal(3, 2, size=60)).interval(200, seed)
        hits += low <= 3 <= high
    assert 0.88 <= hits / 200 <= 0.98


def test_the_same_seed_draws_the_same_interval():
    metric = mean("x", np.random.default_rng(0).random(30))
    assert metric.interval(250, seed=1) == metric.interval(250, seed=1) != metric.interval(250, seed=2)


def test_the_macro_mean_weighs_groups_alike():
    metric = mean_of_groups("macro", [1, 1, 1, 0], ["dog", "dog", "dog", "cat"])
    assert metric.value() == 0.5
    low, high = metric.interval(500, seed=0)
    assert 0 <= low < high <= 1


def test_a_paired_difference_is_surer_than_two_intervals():
    """b is right wherever a is, and in 10 more of 200: the intervals overlap, the difference is above 0."""
    right = np.arange(200) % 2
    a, b = mean("b", np.where(np.arange(200) < 20, 1, right)), mean("a", right)
    value, low, high = difference(a, b, 1000, seed=0)
    assert value == pytest.approx(0.05)
    assert 0 < low < value < high < 0.1
    assert a.interval(1000, 0)[0] < b.interval(1000, 0)[1]


def test_pairs_need_the_same_samples():
    with pytest.raises(ValueError, match=r"2 samples.*3"):
        difference(mean("a", [0, 1]), mean("b", [0, 1, 1]), 10, seed=0)


def test_what_is_not_available_has_neither_value_nor_interval():
    assert Metric("METEOR", None).value() is None
    assert Metric("METEOR", None, fixed=0.3).value() == 0.3
    assert Metric("METEOR", None, fixed=0.3).interval(10, 0) is None
    assert mean("x", []).value() is None
    assert mean("x", [1.0, 0.0]).interval(0, 0) is None
    assert mean("x", [1.0]).interval(10, 0) is None  # one sample says nothing of others
