"""Whisper's encoder from transformers: 16 kHz, up to 30 s, 50 tokens a second."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import PositiveInt
from torch import Tensor

from avalign.config.recipe import Positive, Share
from avalign.encoders.positions import spans, within
from avalign.encoders.preprocessing import PaddedClip
from avalign.errors import AvalignError
from avalign.layers.pooling import pooled, pooled_spans
from avalign.types import Tokens
from avalign.weights.folders import StockTower, config_of, extractor_of, load_tower


def _sizes(width: int, layers: int, mels: int = 80) -> dict[str, int]:
    return {
        "d_model": width,
        "encoder_layers": layers,
        "encoder_attention_heads": width // 64,
        "encoder_ffn_dim": 4 * width,
        "num_mel_bins": mels,
    }


STOCK = {
    **{
        f"openai/whisper-{name}{language}": _sizes(width, layers)
        for name, width, layers in (
            ("tiny", 384, 4),
            ("base", 512, 6),
            ("small", 768, 12),
            ("medium", 1024, 24),
        )
        for language in ("", ".en")
    },
    **{f"openai/whisper-large{version}": _sizes(1280, 32) for version in ("", "-v2")},
    **{f"openai/whisper-large-v3{version}": _sizes(1280, 32, 128) for version in ("", "-turbo")},
}


class WhisperAudioEncoder(StockTower):
    """Whisper's encoder tokens after its last norm: 1500 of 20 ms for a window of 30 s.

    model:      hub id (openai/whisper-small, openai/whisper-large-v3, ...) or a local folder in transformers'
                format (config.json, model.safetensors, preprocessor_config.json), of the whole Whisper or of
                its encoder
    pretrained: load the model's weights. False: random ones in the model's shapes, without asking the hub for
                OpenAI's models
    config:     fields of transformers' WhisperConfig in place of the model's, with `pretrained: false`
    seconds:    of the window, the model's own (30 s) when not given. A shorter one keeps the first positions:
                fewer tokens, and less time for short clips than Whisper was trained on
    pool:       how many neighbouring tokens become one, their mean over those within the clip; 1 keeps all
    min_loaded: share of the numbers that the weights must fill, 1 for all; what stays random below is named
                by a warning and in `loaded`

    Shapes: (b, samples) -> (b, ceil(50 seconds / pool), width), in order of time
    Silence follows a shorter clip, and all tokens attend to it, as Whisper was trained; those that begin
    after the clip's end are masked.
    Source: Radford et al., arXiv:2212.04356. The spectrogram is computed in float32 in `forward`.
    """

    times: Tensor
    filters: Tensor
    window: Tensor

    def __init__(
        self,
        *,
        model: str = "openai/whisper-small",
        pretrained: bool = True,
        config: dict[str, Any] | None = None,
        seconds: Positive | None = None,
        pool: PositiveInt = 1,
        min_loaded: Share = 1.0,
    ) -> None:
        from transformers import WhisperConfig, WhisperFeatureExtractor
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        super().__init__()
        settings = config_of(
            {"whisper": WhisperConfig}, model, pretrained=pretrained, changes=config, stock=STOCK
        )
        extractor = extractor_of(
            WhisperFeatureExtractor,
            model,
            pretrained=pretrained,
            changes=config,
            stock=STOCK,
            otherwise=lambda: WhisperFeatureExtractor(feature_size=settings.num_mel_bins),
        )
        if extractor.feature_size != settings.num_mel_bins:
            raise AvalignError(
                f"{model}: feature_size is {extractor.feature_size} in preprocessor_config.json and "
                f"num_mel_bins {settings.num_mel_bins} in config.json."
            )
        self.sample_rate, self.hop, self.fft = extractor.sampling_rate, extractor.hop_length, extractor.n_fft
        step = 2 * self.hop / self.sample_rate  # s; the second convolution takes every other frame
        most = settings.max_source_positions
        count = most if seconds is None else round(seconds / step)
        if not 0 < count <= most or (seconds is not None and abs(count * step - seconds) > 1e-6):
            raise AvalignError(
                f"seconds is {seconds}: a multiple of {step:g}, the length of a token, up to {most * step:g} "
                f"is needed, what {model} has positions for."
            )
        settings.max_source_positions, self.pool = count, pool
        self.model = WhisperEncoder(settings)
        if pretrained:
            self.loaded = load_tower(
                self.model,
                model,
                ["model.encoder.", "encoder."],
                min_loaded=min_loaded,
                first={"embed_positions.weight": count},
            )

        self.seconds, self.width = count * step, settings.d_model
        self.preprocessing = PaddedClip(self.sample_rate, self.seconds, "this Whisper")
        self.register_buffer("filters", torch.from_numpy(extractor.mel_filters).float(), persistent=False)
        self.register_buffer("window", torch.hann_window(self.fft), persistent=False)
        self.register_buffer("_each", spans(count, self.seconds), persistent=False)
        self.register_buffer("times", pooled_spans(self._each, pool), persistent=False)
        self.token_count = len(self.times)

    def spectrogram(self, waves: Tensor) -> Tensor:
        """(b, samples) -> (b, mel bands, frames), as transformers' WhisperFeatureExtractor has them."""
        with torch.autocast(waves.device.type, enabled=False):
            bins = torch.stft(waves.float(), self.fft, self.hop, window=self.window, return_complex=True)[
                ..., :-1
            ]
            power = bins.real.square() + bins.imag.square()
            mel = (self.filters.T @ power).clamp(min=1e-10).log10()
            return (torch.maximum(mel, mel.amax((1, 2), keepdim=True) - 8) + 4) / 4

    def forward(self, x: Tensor, seconds: Tensor | None = None) -> Tokens:
        values = self.model(self.spectrogram(x).to(self.model.dtype)).last_hidden_state
        if self.pool > 1:
            values = pooled(values, within(self._each, seconds, len(values)), self.pool)
        return Tokens(values, within(self.times, seconds, len(values)), times=self.times)
