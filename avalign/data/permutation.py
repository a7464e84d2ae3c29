"""What a number decides: the random state of a sample, and its index in a permutation of n things."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from math import isqrt

import numpy as np

from avalign.types import SPLITS, TASKS

ROUNDS = 4  # of two halves each
_MASK = (1 << 64) - 1


def random_state(seed: int, split: str, task: str, index: int) -> np.random.Generator:
    """Of sample `index` of a task: the same whenever it is asked for."""
    return np.random.default_rng((seed, SPLITS.index(split), TASKS.index(task), index))


def permuted(index: int, count: int, key: Sequence[int]) -> int:
    """Where `index` of 0..count-1 goes in the permutation of 0..count-1 that `key` decides.

    A Feistel network on pairs (left, right) of Z_a x Z_b, a * b the first product of near-equal sides that is
    not below `count`, walked on until it lands below `count` (Black and Rogaway, "Ciphers with arbitrary
    finite domains", 2002, method 3 and cycle walking). Each half round adds to one side a number that depends
    on the other alone, which can be taken off again: so it is one to one whatever that number is. a * b is
    less than count + a: one evaluation is nearly always enough.
    """
    if not 0 <= index < count:
        raise ValueError(f"index {index} is not below {count}")
    a = isqrt(count - 1) + 1
    b = -(-count // a)
    rounds = _rounds(tuple(key))
    while True:
        left, right = divmod(index, b)
        for one, two in rounds:
            left = (left + _mixed(right + one)) % a
            right = (right + _mixed(left + two)) % b
        index = left * b + right
        if index < count:
            return index


def _mixed(x: int) -> int:
    """A number of 64 bits, each of which depends on all of x: the finaliser of SplitMix64.

    Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014 (Stafford's variant 13).
    """
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


@lru_cache(maxsize=256)
def _rounds(key: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """The numbers of 64 bits that make the order of this key another than that of any other."""
    said = b"".join(part.to_bytes(16, "little", signed=True) for part in key)
    digests = [blake2b(said, digest_size=16, salt=bytes([k])).digest() for k in range(ROUNDS)]
    return tuple(
        (int.from_bytes(d[:8], "little") >> 1, int.from_bytes(d[8:], "little") >> 1) for d in digests
    )
