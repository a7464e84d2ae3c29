"""Sets of millions of names in eight bytes each: names of files, of videos, of records."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable

import numpy as np


def hashed(*words: object) -> int:
    """64 bits of some words: of 10^12 names looked up among ten million, one is taken for another."""
    text = "\0".join(map(str, words)).encode(errors="surrogateescape")  # names of files are any bytes
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


class Names:
    """A set of strings that can be asked whether it holds one. hashes: (n,) uint64, sorted"""

    def __init__(self, hashes: np.ndarray) -> None:
        self.hashes = hashes

    @classmethod
    def of(cls, strings: Iterable[str]) -> Names:
        return cls(np.unique(np.frombuffer(array("Q", map(hashed, strings)), np.uint64)))

    def __contains__(self, text: str) -> bool:
        wanted = np.uint64(hashed(text))
        index = int(self.hashes.searchsorted(wanted))
        return index < len(self.hashes) and bool(self.hashes[index] == wanted)

    def __or__(self, other: Names) -> Names:
        return Names(np.union1d(self.hashes, other.hashes))

    def __len__(self) -> int:
        return len(self.hashes)

    def digest(self) -> str:
        return hashlib.blake2b(self.hashes.tobytes(), digest_size=16).hexdigest()
