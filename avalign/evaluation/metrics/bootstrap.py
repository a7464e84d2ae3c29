"""Scores with their uncertainty: every metric is a function of sums over samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95


@dataclass(frozen=True)
class Metric:
    """A score of n samples: `combine` of the sums over samples of `parts`.

    Shapes: parts (n, k); combine: sums (..., k) -> scores (...)
    Accuracy is a mean (k = 2: right, 1), F1 a ratio of sums, BLEU a function of ten; all are resampled alike.
    A score that cannot be resampled has parts None and its value in `fixed` (None: not available, "n/a").
    grouped: whether it says something of one class or type too
    """

    name: str
    parts: np.ndarray | None
    combine: Callable[[np.ndarray], np.ndarray] = lambda sums: sums[..., 0] / sums[..., 1]
    fixed: float | None = None
    grouped: bool = True

    def value(self) -> float | None:
        """None when not available, or not defined (no sample to score)."""
        if self.parts is None:
            return self.fixed
        if len(self.parts) == 0:
            return None
        return _finite(self.combine(self.parts.sum(0)))

    def interval(self, resamples: int, seed: int) -> tuple[float, float] | None:
        """The 95 % percentile bootstrap interval over samples; the same `seed` gives the same samples.

        None for one sample, for no resamples, and for what cannot be resampled.
        """
        samples = self.resampled(resamples, seed)
        return None if samples is None else percentiles(samples)

    def resampled(self, resamples: int, seed: int) -> np.ndarray | None:
        """(resamples,): the score of samples taken with replacement; None where there is no interval."""
        if self.parts is None or len(self.parts) < 2 or resamples == 0:
            return None
        n = len(self.parts)
        generator = np.random.default_rng(seed)
        sums = []
        for start in range(0, resamples, 100):  # 100 resamples at a time bound the memory
            times = generator.multinomial(n, np.full(n, 1 / n), size=min(100, resamples - start))
            sums.append(times @ self.parts)
        return np.asarray(self.combine(np.concatenate(sums)))


def mean(name: str, values: Sequence[float] | np.ndarray) -> Metric:
    """The metric that is the mean of one number a sample."""
    values = np.asarray(values, dtype=float)
    return Metric(name, np.stack([values, np.ones_like(values)], 1))


def mean_of_groups(name: str, values: Sequence[float] | np.ndarray, groups: Sequence[str]) -> Metric:
    """The macro mean: the mean over groups of the group's mean (groups that a resample misses are left
    out)."""
    values = np.asarray(values, dtype=float)
    member = np.array([[g == h for h in sorted(set(groups))] for g in groups], dtype=float).reshape(
        len(groups), -1
    )

    def combine(sums: np.ndarray) -> np.ndarray:
        right, count = np.split(sums, 2, axis=-1)
        means = np.divide(right, count, out=np.zeros_like(right), where=count > 0)
        return means.sum(-1) / (count > 0).sum(-1)

    return Metric(name, np.concatenate([member * values[:, None], member], 1), combine, grouped=False)


def difference(a: Metric, b: Metric, resamples: int, seed: int) -> tuple[float, float, float] | None:
    """a - b on the same samples with its 95 % interval, both resampled alike (paired bootstrap): value, low,
    high."""
    if a.parts is None or b.parts is None or len(a.parts) == 0:
        return None
    if len(a.parts) != len(b.parts):
        raise ValueError(
            f"paired bootstrap: {len(a.parts)} samples of {a.name!r}, {len(b.parts)} of {b.name!r}"
        )
    value_a, value_b = a.value(), b.value()
    samples_a, samples_b = a.resampled(resamples, seed), b.resampled(resamples, seed)
    if value_a is None or value_b is None or samples_a is None or samples_b is None:
        return None
    bounds = percentiles(samples_a - samples_b)
    return None if bounds is None else (value_a - value_b, *bounds)


def percentiles(samples: np.ndarray) -> tuple[float, float] | None:
    """The middle 95 % of the samples, less what is not finite."""
    samples = samples[np.isfinite(samples)]
    if len(samples) == 0:
        return None
    low, high = np.percentile(samples, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)


def _finite(x: np.ndarray | float) -> float | None:
    return float(x) if math.isfinite(float(x)) else None
