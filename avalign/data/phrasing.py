"""What every source's questions share: where the media stand, and one phrasing drawn of several."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MEDIA = "<image><audio>"


def phrase(choices: Sequence[str], rng: np.random.Generator, **slots: str) -> str:
    """An instruction in one of several wordings, its slots filled, picture and sound before it."""
    return MEDIA + choices[int(rng.integers(len(choices)))].format(**slots)
