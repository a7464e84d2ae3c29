"""Whether an item came before in its file, without a list of millions of names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice


class Repeats:
    """Called with one key after another: has it come before?

    While keys rise, as they do in a sorted file, the last one answers it, and nothing else is kept. At the
    first that does not rise, those before it are read once more; from then on all are kept.

    keys: gives the same keys from the first on
    """

    def __init__(self, keys: Callable[[], Iterable[str]]) -> None:
        self._keys = keys
        self._highest, self._risen = "", 0
        self._seen: set[str] | None = None

    def __call__(self, key: str) -> bool:
        if self._seen is None:
            if key > self._highest:
                self._highest, self._risen = key, self._risen + 1
                return False
            self._seen = set(islice(self._keys(), self._risen))
        repeated = key in self._seen
        self._seen.add(key)
        return repeated
