"""A weighted sampler of names: which one each number takes, decided by the number alone, in no memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np

from avalign.errors import AvalignError

BLOCK = 256  # numbers that are permuted together


class Mixture:
    """An endless sequence of names, each in the share of its weight, numbered from 0.

    Every segment of BLOCK numbers holds each name as often as its share says, to the nearest number above or
    below that the segments before it leave over; within a segment they are permuted at random. So a number
    decides its name and how often that name came before, without going through the numbers before it: what
    is taken by that second number takes all things of a name before any comes again.

    weights: name -> weight; one of 0 is never taken
    seed:    decides the order
    """

    def __init__(self, weights: Mapping[str, float], seed: Sequence[int]) -> None:
        for name, weight in weights.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise AvalignError(f"the weight of {name!r} is {weight}, not a number of 0 or above")
        self.names = [name for name, weight in weights.items() if weight > 0]
        if not self.names:
            raise AvalignError("there is no weight above 0 in " + repr(dict(weights)))
        exact = [Fraction(weights[name]) for name in self.names]
        self._shares = [part / sum(exact[k:]) for k, part in enumerate(exact)]  # of what is left over
        self._seed = tuple(seed)
        self._block = -1
        self._sampled: list[tuple[str, int]] = []

    def __getitem__(self, number: int) -> tuple[str, int]:
        """The name that `number` takes, and how many numbers before it took the same."""
        block, position = divmod(number, BLOCK)
        if block != self._block:
            self._sampled, self._block = self._permuted(block), block
        return self._sampled[position]

    def before(self, number: int) -> dict[str, int]:
        """How many of the numbers before `number` took each name."""
        block, position = divmod(number, BLOCK)
        counts = dict(zip(self.names, self._counts(block), strict=True))
        for name, _ in self._permuted(block)[:position]:
            counts[name] += 1
        return counts

    def _counts(self, blocks: int) -> list[int]:
        """Numbers of each name in the first `blocks` segments: integers, rising, BLOCK * blocks in all."""
        left, counts = blocks * BLOCK, []
        for share in self._shares:
            counts.append(left * share.numerator // share.denominator)
            left -= counts[-1]
        return counts

    def _permuted(self, block: int) -> list[tuple[str, int]]:
        counts = self._counts(block)
        new = np.subtract(self._counts(block + 1), counts)
        indices = np.repeat(np.arange(len(self.names)), new)
        sampled = []
        for name in np.random.default_rng((*self._seed, block)).permutation(indices).tolist():
            sampled.append((self.names[name], counts[name]))
            counts[name] += 1
        return sampled
