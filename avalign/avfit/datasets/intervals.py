"""Sets of seconds as sorted intervals that do not touch."""

from __future__ import annotations

from collections.abc import Collection

from avalign.answers import Interval, write_interval

NEVER = "never"  # the answer where there is no interval; read so by MeerkatBench


def covered(intervals: Collection[Interval]) -> tuple[Interval, ...]:
    """The union: [(8, 10), (0, 8), (1, 2)] -> ((0, 10),)"""
    merged: list[Interval] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return tuple(merged)


def in_both(one: Collection[Interval], other: Collection[Interval]) -> tuple[Interval, ...]:
    """The intersection of two unions: ((0, 4), (6, 9)), ((3, 7),) -> ((3, 4), (6, 7))"""
    common = [(max(a, c), min(b, d)) for a, b in one for c, d in other]
    return covered([(start, end) for start, end in common if start < end])


def written(intervals: Collection[Interval]) -> str:
    """ "[0.00, 4.00] [6.00, 9.00]", or "never" """
    return " ".join(write_interval(interval) for interval in intervals) or NEVER
