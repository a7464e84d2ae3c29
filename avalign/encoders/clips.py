"""What audio encoders share: a clip made ready for a model, and fewer tokens of it in time."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from avalign.errors import AvalignError


def clip(audio: np.ndarray, sample_rate: int, *, rate: int, seconds: float, model: str) -> np.ndarray:
    """(samples,) at `sample_rate` Hz -> (at most seconds * rate,) float32 at `rate` Hz, not padded.

    AvalignError if there is more than one channel, no sample, one that is not finite, or if it is too long.
    """
    from avalign.data.media import check_audio, resample

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
    from avalign.data.media import fit_length

    return torch.from_numpy(np.ascontiguousarray(fit_length(audio, samples)))


def pooled(values: Tensor, real: Tensor, every: int) -> Tensor:
    """The mean of each `every` neighbours, over those that are real.

    (b, m, d), (b, m) -> (b, ceil(m / every), d). A group without any is 0.
    """
    missing = -values.shape[1] % every
    weights = torch.nn.functional.pad(real.to(values), (0, missing)).unflatten(1, (-1, every))
    groups = torch.nn.functional.pad(values, (0, 0, 0, missing)).unflatten(1, (-1, every))
    shares = weights / weights.sum(-1, keepdim=True).clamp(min=1)
    return (shares[..., None] * groups).sum(2)


def pooled_spans(where: Tensor, every: int) -> Tensor:
    """From the start of the first to the end of the last. (m, 2) -> (ceil(m / every), 2)"""
    last = torch.arange(every - 1, len(where) + every - 1, every).clamp(max=len(where) - 1)
    return torch.stack([where[::every, 0], where[last.to(where.device), 1]], -1)
