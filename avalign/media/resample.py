"""Audio at another rate, and of another length."""

from __future__ import annotations

import numpy as np


def resample(audio: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """(samples,) at `from_rate` Hz -> (samples,) float32 at `to_rate` Hz by soxr; pitch and duration stay."""
    if from_rate <= 0 or to_rate <= 0:
        raise ValueError(f"sample rates are positive, got {from_rate} and {to_rate} Hz")
    if from_rate == to_rate:
        return audio.astype(np.float32, copy=False)
    import soxr

    return soxr.resample(audio.astype(np.float32, copy=False), from_rate, to_rate)


def fit_length(audio: np.ndarray, samples: int) -> np.ndarray:
    """The first `samples` samples, silence (zeros) after the end: (n,) -> (samples,)."""
    if audio.shape[0] >= samples:
        return audio[:samples]
    return np.pad(audio, (0, samples - audio.shape[0]))
