"""Chance that is decided by numbers alone, and turns in which nothing comes twice before all came once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from math import gcd, lcm
from typing import TypeVar

Any = TypeVar("Any")
_ALL = (1 << 64) - 1


def key_of(*parts: int | str) -> int:
    """64 bits that differ wherever the parts do."""
    return int.from_bytes(blake2b("\0".join(map(str, parts)).encode(), digest_size=8).digest(), "little")


class SplitMix64:
    """Random numbers from a key and a number: SplitMix64 (Steele et al., OOPSLA 2014).

    A generator of the standard library or of numpy takes longer to be seeded than a record to be made.
    """

    def __init__(self, key: int, number: int) -> None:
        self.state = key ^ (number * 0xD1342543DE82EF95 & _ALL)

    def bits(self) -> int:
        self.state = (self.state + 0x9E3779B97F4A7C15) & _ALL
        z = self.state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _ALL
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _ALL
        return z ^ (z >> 31)

    def below(self, count: int) -> int:
        """0 .. count - 1"""
        return self.bits() * count >> 64

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * (self.bits() / 2**64)

    def one_of(self, choices: Sequence[Any]) -> Any:
        return choices[self.below(len(choices))]


class Pairs:
    """All pairs of one of `first` and one of `second` things, each once, and each thing as often as others.

    Index p is (p mod first, (p + p // lcm) mod second), its halves then permuted.
    """

    def __init__(self, first: int, second: int, key: int) -> None:
        self.first, self.second, self.lcm = first, second, lcm(first, second)
        rng = SplitMix64(key, 0)
        self.steps = [(_coprime(count, rng), rng.below(count)) for count in (first, second)]

    def __len__(self) -> int:
        return self.first * self.second

    def at(self, index: int) -> tuple[int, int]:
        """Of any index: beyond the last pair the first comes again."""
        index %= self.first * self.second
        (a, b), (c, d) = self.steps
        return (a * index + b) % self.first, (c * (index + index // self.lcm) + d) % self.second


def _coprime(count: int, rng: SplitMix64) -> int:
    """A stride that leads through all of 0 .. count - 1."""
    stride = 1 + rng.below(count)
    while gcd(stride, count) != 1:
        stride += 1
    return stride


class Turns:
    """Whose turn it is: in each round each has as many turns as its weight says, until it has had `most`.

    most: name -> turns it can have; when all had theirs, the rounds begin again
    """

    def __init__(self, most: Mapping[int, int], weights: Mapping[int, int], key: int) -> None:
        self.total = sum(most.values())
        self.ends: list[int] = [0]  # of the segments of rounds with the same takers
        self.segments: list[tuple[list[tuple[int, int]], dict[int, int], dict[int, int]]] = []
        rng, had = SplitMix64(key, 1), dict.fromkeys(most, 0)
        while any(had[name] < most[name] for name in most):
            left = {name: most[name] - had[name] for name in most if had[name] < most[name]}
            share = {name: min(weights[name], count) for name, count in left.items()}
            rounds = min(left[name] // share[name] for name in left)
            turns = [(name, turn) for name, count in share.items() for turn in range(count)]
            for index in range(len(turns) - 1, 0, -1):
                other = rng.below(index + 1)
                turns[index], turns[other] = turns[other], turns[index]
            self.segments.append((turns, dict(had), share))
            self.ends.append(self.ends[-1] + rounds * len(turns))
            for name, count in share.items():
                had[name] += rounds * count

    def at(self, number: int) -> tuple[int, int]:
        """The name, and how many turns it had before."""
        number %= self.total
        segment = bisect_right(self.ends, number) - 1
        turns, had, share = self.segments[segment]
        rounds, index = divmod(number - self.ends[segment], len(turns))
        name, turn = turns[index]
        return name, had[name] + rounds * share[name] + turn


def dealt(number: int, shares: Mapping[str, float]) -> tuple[str, int]:
    """Which name a number goes to, and how many numbers went there before: as near to the shares as can be.

    Each name in turn takes its share of what those before it left: exact, not by chance.
    """
    left = sum(shares.values())
    *some, last = [name for name, share in shares.items() if share > 0]
    for name in some:
        part = shares[name] / left
        before = int(number * part + 1e-9)
        if int((number + 1) * part + 1e-9) > before:
            return name, before
        number -= before
        left -= shares[name]
    return last, number
