"""What audio encoders share: a clip made ready for a model."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from avalign.errors import AvalignError
from avalign.media.file import check_audio
from avalign.media.resample import fit_length, resample


def clip(audio: np.ndarray, sample_rate: int, *, rate: int, seconds: float, model: str) -> np.ndarray:
    """(samples,) at `sample_rate` Hz -> (at most seconds * rate,) float32 at `rate` Hz, not padded.

    AvalignError if there is more than one channel, no sample, one that is not finite, or if it is too long.
    """
    if audio.ndim != 1:
        raise AvalignError(
            f"the audio has shape {audio.shape}, {model} takes one channel, (samples,): "
            "mix the channels down, or choose one."
        )
    check_audio(audio, "the audio")
    if len(audio) > (seconds + 0.01) * sample_rate:
        raise AvalignError(
            f"the audio lasts {len(audio) / sample_rate:.2f} s, {model} takes {seconds:g} s: "
            "cut it to the part that is meant."
        )
    return resample(audio, sample_rate, rate)[: round(seconds * rate)]


def padded(audio: np.ndarray, samples: int) -> Tensor:
    """(n,) -> (samples,), silence after the end"""
    return torch.from_numpy(np.ascontiguousarray(fit_length(audio, samples)))
