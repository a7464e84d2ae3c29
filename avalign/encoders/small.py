"""Small convolutional encoders for training from scratch, one for images and one for audio."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from avalign.config.recipe import Positive
from avalign.encoders.positions import patch_boxes, spans, within
from avalign.encoders.preprocessing import SmallClip, SmallImage
from avalign.interfaces import AudioEncoder, ImageEncoder
from avalign.types import Tokens


class Residual(nn.Module):
    """Two 3 x 3 convolutions beside the identity. (b, c, h, w) -> the same"""

    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(8, channels),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(8, channels),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def _down(dim_in: int, dim_out: int, stride: tuple[int, int]) -> nn.Sequential:
    return nn.Sequential(nn.GroupNorm(8, dim_in), nn.GELU(), nn.Conv2d(dim_in, dim_out, 3, stride, padding=1))


class SmallImageEncoder(nn.Module, ImageEncoder):
    """Residual convolutions that end in one token a cell of 8 x 8 px.

    size:   px, both sides; images are squeezed to a square of this size
    width:  of a token
    blocks: residual blocks on the final grid
    """

    def __init__(
        self, *, size: PositiveInt = 64, width: PositiveInt = 128, blocks: NonNegativeInt = 1
    ) -> None:
        super().__init__()
        if size % 8:
            raise ValueError(f"size is {size}: a multiple of 8 is needed, for cells of 8 x 8 px")
        self.size, self.width = size, width
        self.token_count = (size // 8) ** 2
        self.preprocessing = SmallImage(size)
        self.body = nn.Sequential(
            nn.Conv2d(3, 48, 6, 4, padding=1),
            Residual(48),
            _down(48, 96, (2, 2)),
            *(Residual(96) for _ in range(blocks)),
        )
        self.out = nn.Linear(96, width)
        self.norm = nn.LayerNorm(width)
        self.register_buffer("boxes", patch_boxes(size // 8, size // 8), persistent=False)

    def forward(self, x: Tensor) -> Tokens:
        values = self.norm(self.out(self.body(x).flatten(2).transpose(1, 2)))
        return Tokens(values, values.new_ones(values.shape[:2], dtype=torch.bool), boxes=self.boxes)


class SmallAudioEncoder(nn.Module, AudioEncoder):
    """A log-mel spectrogram through convolutions to one token for every ten frames of 20 ms.

    sample_rate: Hz
    seconds:     longest clip; a multiple of 0.2
    mels:        bands of the spectrogram; a multiple of 8
    width:       of a token; a multiple of 8
    blocks:      residual blocks before the bands are joined
    """

    def __init__(
        self,
        *,
        sample_rate: Annotated[int, Field(ge=1000)] = 8_000,
        seconds: Positive = 4.0,
        mels: PositiveInt = 40,
        width: PositiveInt = 128,
        blocks: NonNegativeInt = 0,
    ) -> None:
        from transformers.audio_utils import mel_filter_bank

        super().__init__()
        for name, number in (("mels", mels), ("width", width)):
            if number % 8:
                raise ValueError(f"{name} is {number}: a multiple of 8 is needed")
        if abs(seconds * 5 - round(seconds * 5)) > 1e-6:
            raise ValueError(f"seconds is {seconds}: a multiple of 0.2 is needed, the length of a token")
        self.sample_rate, self.seconds, self.width = sample_rate, seconds, width
        self.token_count = round(seconds * 5)
        self.preprocessing = SmallClip(sample_rate, seconds)
        self.hop = sample_rate // 50
        self.window = 2 ** int(np.ceil(np.log2(2.5 * self.hop)))
        bank = mel_filter_bank(
            self.window // 2 + 1, mels, 40.0, sample_rate / 2, sample_rate, norm=None, mel_scale="htk"
        )
        self.register_buffer("bank", torch.from_numpy(bank).float(), persistent=False)
        self.register_buffer("hann", torch.hann_window(self.window), persistent=False)
        self.register_buffer("times", spans(self.token_count, seconds), persistent=False)
        self.body = nn.Sequential(
            nn.Conv2d(1, 24, 5, (2, 2), padding=2),
            _down(24, 48, (2, 1)),
            _down(48, 64, (2, 1)),
            *(Residual(64) for _ in range(blocks)),
        )
        self.join = nn.Conv1d(64 * (mels // 8), width, 5, 5)
        self.near = nn.Sequential(nn.GroupNorm(8, width), nn.GELU(), nn.Conv1d(width, width, 3, padding=1))
        self.norm = nn.LayerNorm(width)

    def spectrogram(self, waves: Tensor) -> Tensor:
        """(b, samples) -> (b, 1, mels, frames), log power, about unit scale"""
        with torch.autocast(waves.device.type, enabled=False):
            frames = torch.stft(waves.float(), self.window, self.hop, window=self.hann, return_complex=True)
            frames = frames[..., : self.token_count * 10].transpose(1, 2)  # as they lie in memory
            real, imaginary = torch.view_as_real(frames).unbind(-1)
            power = (real * real + imaginary * imaginary) @ self.bank
            return ((power + 1e-5).log() + 4).div(4).transpose(1, 2)[:, None]

    def forward(self, x: Tensor, seconds: Tensor | None = None) -> Tokens:
        bands = self.body(self.spectrogram(x))
        values = self.join(bands.flatten(1, 2))
        values = self.norm((values + self.near(values)).transpose(1, 2))
        return Tokens(values, within(self.times, seconds, len(values)), times=self.times)
