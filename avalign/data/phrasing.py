"""What every source's questions share: where the media stand, one phrasing or kind sampled of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from avalign.errors import AvalignError, suggest

MEDIA = "<image><audio>"


def phrase(choices: Sequence[str], rng: np.random.Generator, **slots: str) -> str:
    """An instruction in one of several wordings, its slots filled, image and audio before it."""
    return MEDIA + choices[int(rng.integers(len(choices)))].format(**slots)


def kind_shares(shares: Mapping[str, float] | None, known: Sequence[str], owner: str) -> dict[str, float]:
    """How often each known kind is asked: what was given, 0 for those not named; all equal if nothing was."""
    if shares is None:
        return dict.fromkeys(known, 1.0 / len(known))
    for kind in shares:
        if kind not in known:
            raise AvalignError(f"{owner}: no AVQA question '{kind}'.{suggest(kind, known)}")
    total = sum(shares.values())
    if total <= 0:
        raise AvalignError(f"{owner}: questions: all shares are 0")
    return {kind: shares.get(kind, 0.0) / total for kind in known}


def sample_kind(shares: Mapping[str, float], rng: np.random.Generator) -> str:
    return list(shares)[int(rng.choice(len(shares), p=list(shares.values())))]
