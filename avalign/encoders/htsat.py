"""HTS-AT, CLAP's audio tower: a Swin Transformer over a spectrogram, in transformers' implementation."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from einops import rearrange
from torch import Tensor

from avalign.encoders.positions import spans, within
from avalign.encoders.preprocessing import PaddedClip
from avalign.errors import AvalignError
from avalign.types import Tokens
from avalign.weights.folders import StockTower

RATE, SECONDS, HOP, LOWEST, HIGHEST = 48_000, 10, 480, 50, 14_000  # Hz, s, samples, Hz, Hz: all CLAP models


class HtsAt(StockTower):
    """What every HTS-AT does once its shapes and its spectrogram are known; its weights are random.

    settings:  transformers' ClapAudioConfig
    extractor: transformers' ClapFeatureExtractor
    source:    what errors call the model
    padding:   what follows a clip that is shorter than the window: "zeros", or "repeatpad"
    """

    times: Tensor
    filters: Tensor
    window: Tensor

    def __init__(self, settings: Any, extractor: Any, source: str, padding: str) -> None:
        from transformers import ClapAudioModel

        super().__init__()
        if padding not in ("zeros", "repeatpad"):
            raise AvalignError(f"padding '{padding}' is not known. Known: zeros, repeatpad.")
        if settings.enable_fusion and settings.fusion_type == "channel_map":
            raise AvalignError(f"{source}: fusion_type channel_map is not supported.")
        settings.enable_fusion = False
        self.model = ClapAudioModel(settings)
        self.padding: Literal["zeros", "repeatpad"] = padding  # type: ignore[assignment]

        self.sample_rate = int(extractor.sampling_rate)
        self.seconds = float(extractor.max_length_s)
        self.preprocessing = PaddedClip(self.sample_rate, self.seconds, "CLAP", padding=self.padding)
        self.hop, self.fft = int(extractor.hop_length), int(extractor.fft_window_size)
        spaced = extractor.mel_filters if extractor.truncation == "fusion" else extractor.mel_filters_slaney
        self.register_buffer("filters", torch.from_numpy(spaced).float(), persistent=False)
        self.register_buffer("window", torch.hann_window(self.fft), persistent=False)

        # HTS-AT cuts the spectrogram into `ratio` pieces of time, lays them one under the other as a square
        # image, and halves that image at every stage but the last.
        encoder = self.model.audio_encoder
        ratio = encoder.freq_ratio
        frames, most = self.seconds * self.sample_rate // self.hop + 1, settings.spec_size * ratio
        if frames > most:
            raise AvalignError(
                f"{source}: {self.seconds:g} s are {frames:g} frames of {self.hop} samples, and spec_size "
                f"{settings.spec_size} with {settings.num_mel_bins} mel bins has room for {most}."
            )
        rows, columns = (side // 2 ** (len(settings.depths) - 1) for side in encoder.patch_embed.grid_size)
        self.bands, self.steps = rows // ratio, columns * ratio
        self.width, self.token_count = encoder.num_features, self.bands * self.steps
        times = spans(self.steps, self.seconds).repeat_interleave(self.bands, dim=0)
        self.register_buffer("times", times, persistent=False)

    def spectrogram(self, waves: Tensor) -> Tensor:
        """(b, samples) -> (b, 1, frames, mel bands) in dB, as transformers' ClapFeatureExtractor has them."""
        with torch.autocast(waves.device.type, enabled=False):
            bins = torch.stft(waves.float(), self.fft, self.hop, window=self.window, return_complex=True)
            power = bins.real.square() + bins.imag.square()
            mel = power.transpose(1, 2) @ self.filters
            return 10 * mel.clamp(min=1e-10).log10()[:, None]

    def forward(self, x: Tensor, seconds: Tensor | None = None) -> Tokens:
        features = self.spectrogram(x).to(self.model.dtype)
        values = self.model(input_features=features).last_hidden_state
        values = rearrange(values, "b width bands steps -> b (steps bands) width")
        if self.padding == "repeatpad" and seconds is not None:  # repeated to the end, if there is a sound
            seconds = torch.where(seconds > 0, self.seconds, 0.0)
        return Tokens(values, within(self.times, seconds, len(values)), times=self.times)


def extractor_for(settings: Any, truncation: str, fft: int = 1024) -> Any:
    """transformers' ClapFeatureExtractor of the stock models; coarser in time where the shapes are smaller.

    truncation: "fusion" (bands on the HTK scale) or "rand_trunc" (on Slaney's)
    fft:        samples of its window
    """
    from transformers import ClapFeatureExtractor

    frames = settings.spec_size * (settings.spec_size // settings.num_mel_bins)
    hop = max(HOP, math.ceil(RATE * SECONDS / (frames - 1)))
    return ClapFeatureExtractor(
        feature_size=settings.num_mel_bins,
        hop_length=hop,
        fft_window_size=max(fft, 2 ** math.ceil(math.log2(2 * hop))) if hop > HOP else fft,
        frequency_min=LOWEST,
        frequency_max=HIGHEST,
        truncation=truncation,
    )
