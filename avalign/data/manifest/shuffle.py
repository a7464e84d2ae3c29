"""A random order of n things without a list of it: number -> number, one to one, in no time and no memory."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

ROUNDS = 6


def shuffled(place: int, count: int, key: Sequence[int]) -> int:
    """Where `place` of 0..count-1 goes in the order that `key` decides: a permutation of 0..count-1.

    A Feistel network over the next power of 4, walked on until it lands below `count` (Black and Rogaway,
    "Ciphers with arbitrary finite domains", 2002): about 4 evaluations at worst, whatever `count` is.
    """
    if not 0 <= place < count:
        raise ValueError(f"place {place} is not below {count}")
    half = max(1, (count - 1).bit_length() + 1) // 2
    low = (1 << half) - 1
    secret = b"".join(part.to_bytes(8, "little", signed=True) for part in key)
    while True:
        left, right = place >> half, place & low
        for number in range(ROUNDS):
            message = right.to_bytes(8, "little") + bytes([number])
            digest = blake2b(message, digest_size=8, key=secret[:64]).digest()
            left, right = right, left ^ (int.from_bytes(digest, "little") & low)
        place = left << half | right
        if place < count:
            return place
