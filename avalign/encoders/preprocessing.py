"""From decoded media to an encoder's input: small objects without weights, which loader processes are given.

An encoder has one as `preprocessing`: of an image (h, w, 3) uint8 -> Tensor, or of an audio clip (samples,)
float32 and its rate in Hz -> Tensor. It can be pickled, and its repr says all that decides what it does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from avalign.encoders.clips import clip, padded
from avalign.media.resample import fit_length, resample

Colour = tuple[float, float, float]  # red, green and blue, in 0..1


def colour(values: Iterable[float]) -> Colour:
    """As float32, in which pixels are."""
    red, green, blue = (float(np.float32(value)) for value in values)
    return red, green, blue


@dataclass(frozen=True)
class SquareImage:
    """(h, w, 3) uint8 -> (3, size, size), normalised. Squeezed, not cropped: boxes in 0..1 stay true.

    resampling: a filter of Pillow's by its name; bicubic if it has none of that name
    """

    size: int
    mean: Colour
    std: Colour
    resampling: str = "bicubic"

    def __call__(self, image: np.ndarray) -> Tensor:
        from PIL import Image

        how = Image.Resampling.__members__.get(self.resampling.upper(), Image.Resampling.BICUBIC)
        square = np.asarray(Image.fromarray(image).resize((self.size, self.size), how), np.float32) / 255
        normalised = (square - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        return torch.from_numpy(normalised).permute(2, 0, 1).contiguous()


@dataclass(frozen=True)
class SmallImage:
    """(h, w, 3) uint8 -> (3, size, size), about -1..1"""

    size: int

    def __call__(self, image: np.ndarray) -> Tensor:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()
        if pixels.shape[1:] != (self.size, self.size):
            pixels = torch.nn.functional.interpolate(
                pixels[None], (self.size, self.size), mode="bilinear", antialias=True
            )[0]
        return pixels / 127.5 - 1


@dataclass(frozen=True)
class PaddedClip:
    """(samples,) at any rate -> (seconds * rate,) at the model's rate, in Hz.

    model:      as errors call it, where a clip is refused
    normalised: to mean 0 and variance 1 over the clip
    padding:    what follows a shorter clip: zeros, or the clip again as often as it fits, then zeros
    """

    rate: int
    seconds: float
    model: str
    normalised: bool = False
    padding: Literal["zeros", "repeatpad"] = "zeros"

    def __call__(self, audio: np.ndarray, sample_rate: int) -> Tensor:
        audio = clip(audio, sample_rate, rate=self.rate, seconds=self.seconds, model=self.model)
        samples = round(self.seconds * self.rate)
        if self.normalised:
            audio = (audio - audio.mean()) / np.sqrt(audio.var() + 1e-7)
        if self.padding == "repeatpad" and 0 < len(audio) < samples:
            audio = np.tile(audio, samples // len(audio))
        return padded(audio, samples)


@dataclass(frozen=True)
class SmallClip:
    """(samples,) at any rate -> (seconds * rate,) at `rate` Hz, silence added at the end"""

    rate: int
    seconds: float

    def __call__(self, audio: np.ndarray, sample_rate: int) -> Tensor:
        audio = resample(audio, sample_rate, self.rate)
        return torch.from_numpy(fit_length(audio, round(self.seconds * self.rate)))
