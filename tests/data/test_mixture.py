"""Mixtures: shares are kept to the draw, the order is random, and a number decides what it is."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from avalign.data.mixture import BLOCK, Mixture
from avalign.errors import AvalignError
from tests.helpers.strategies import quick, seeds

weights = st.dictionaries(
    st.sampled_from("abcdefg"), st.floats(0, 100) | st.just(1.0) | st.just(1e-4), min_size=1
).filter(lambda drawn: any(weight > 0 for weight in drawn.values()))


@quick
@given(weights, seeds, st.integers(0, 10 * BLOCK))
def test_the_nth_draw_of_a_name_says_so(drawn: dict[str, float], seed: int, stop: int) -> None:
    """Of each name the numbers 0, 1, 2, ... without a gap; and `before` counts them, from any draw on."""
    mixture, seen = Mixture(drawn, (seed,)), Counter[str]()
    for number in range(stop):
        name, nth = mixture[number]
        assert nth == seen[name]
        seen[name] += 1
    assert Counter(Mixture(drawn, (seed,)).before(stop)) == seen


@quick
@given(weights, seeds, st.integers(0, 10**7))
def test_shares_are_kept_at_the_end_of_every_segment(
    drawn: dict[str, float], seed: int, stretch: int
) -> None:
    counts = Mixture(drawn, (seed,)).before(stretch * BLOCK)
    assert sum(counts.values()) == stretch * BLOCK
    total = sum(drawn.values())
    for name, weight in drawn.items():
        expected = stretch * BLOCK * weight / total
        assert counts.get(name, 0) == pytest.approx(expected, rel=1e-9, abs=len(drawn)), name


@quick
@given(weights, seeds, st.lists(st.integers(0, 10**9), min_size=1, max_size=6))
def test_a_number_decides_whatever_was_asked_before(
    drawn: dict[str, float], seed: int, numbers: list[int]
) -> None:
    mixture = Mixture(drawn, (seed, 1))
    assert [mixture[n] for n in numbers] == [Mixture(drawn, (seed, 1))[n] for n in numbers]


def test_the_order_within_a_segment_is_random_and_the_seed_s() -> None:
    orders = [[Mixture({"a": 1, "b": 3}, (seed,))[n][0] for n in range(8 * BLOCK)] for seed in (0, 1)]
    assert orders[0] != orders[1]
    assert orders[0][:BLOCK] != orders[0][BLOCK : 2 * BLOCK]
    followed = Counter(pairwise(orders[0]))
    expected = [(8 * BLOCK - 1) * one * two / 16 for one in (1, 3) for two in (1, 3)]
    assert chisquare([followed[one, two] for one in "ab" for two in "ab"], expected).pvalue > 1e-3


def test_what_weighs_nothing_is_never_drawn_and_what_weighs_little_is() -> None:
    mixture = Mixture({"never": 0.0, "seldom": 1.0, "often": 99_999.0}, (0,))
    assert "never" not in mixture.names
    assert mixture.before(1_000 * BLOCK) == {"seldom": 2, "often": 255_998}


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"a": -1.0}, "the weight of 'a' is -1.0"),
        ({"a": float("nan")}, "is nan"),
        ({"a": float("inf"), "b": 1}, "is inf"),
        ({"a": 0.0}, "no weight above 0"),
        ({}, "no weight above 0"),
    ],
)
def test_weights_that_are_none_are_refused(wrong: dict[str, float], why: str) -> None:
    with pytest.raises(AvalignError, match=why):
        Mixture(wrong, (0,))
