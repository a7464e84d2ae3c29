"""The Audio Spectrogram Transformer (AST) from transformers: 16 kHz, 10.24 s."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from avalign.config.recipe import Share
from avalign.encoders.positions import spans_about, within
from avalign.encoders.preprocessing import PaddedClip
from avalign.errors import AvalignError
from avalign.types import Tokens
from avalign.weights.folders import StockTower, config_of, extractor_of, load_tower

STOCK: dict[str, dict[str, Any]] = {"MIT/ast-finetuned-audioset-10-10-0.4593": {}}
WINDOW, HOP, FFT = 0.025, 0.010, 512  # s, s, points at 16 kHz: Kaldi's filter banks
PREEMPHASIS, LEAST = 0.97, 1.1920929e-07  # the least energy is float32's epsilon, as Kaldi has it


class AstAudioEncoder(StockTower):
    """AST's patch tokens after its last norm, without its class and distillation tokens.

    model:      hub id (MIT/ast-finetuned-audioset-10-10-0.4593, ...) or a local folder in transformers'
                format (config.json, model.safetensors, preprocessor_config.json), of ASTModel or of its
                classifier
    pretrained: load the model's weights. False: random ones in the model's shapes, without asking the hub for
                the model named above
    config:     fields of transformers' ASTConfig in place of the model's, with `pretrained: false`
    min_loaded: share of the numbers that the weights must fill, 1 for all; what stays random below is named
                by a warning and in `loaded`

    Shapes: (b, samples) -> (b, 1212, 768) for the stock model: 101 steps of 12 bands, in order of time, then
            from low to high
    A patch is 16 frames of 10 ms wide and begins 10 after the one before, so patches overlap. The span of a
    token is the segment of the clip nearer to its patch's middle than to another's: 0.1 s, the first from 0
    and the last to the end. Tokens whose span begins after the clip's end are masked; all attend to each
    other, as in training, where the frames after a clip were zeros before they were normalised.
    Source: Gong et al., AST, arXiv:2104.01778. The spectrogram is computed in float32 in `forward`.
    """

    times: Tensor
    filters: Tensor
    window: Tensor

    def __init__(
        self,
        *,
        model: str = "MIT/ast-finetuned-audioset-10-10-0.4593",
        pretrained: bool = True,
        config: dict[str, Any] | None = None,
        min_loaded: Share = 1.0,
    ) -> None:
        from transformers import ASTConfig, ASTFeatureExtractor, ASTModel
        from transformers.audio_utils import mel_filter_bank

        super().__init__()
        settings = config_of(
            {"audio-spectrogram-transformer": ASTConfig},
            model,
            pretrained=pretrained,
            changes=config,
            stock=STOCK,
        )
        with warnings.catch_warnings():  # the lowest of Kaldi's bands lie between two points of the FFT
            warnings.filterwarnings("ignore", "At least one mel filter has all zero values", UserWarning)
            extractor = extractor_of(
                ASTFeatureExtractor,
                model,
                pretrained=pretrained,
                changes=config,
                stock=STOCK,
                otherwise=lambda: ASTFeatureExtractor(
                    num_mel_bins=settings.num_mel_bins, max_length=settings.max_length
                ),
            )
            filters = mel_filter_bank(
                FFT // 2 + 1,
                settings.num_mel_bins,
                20.0,
                extractor.sampling_rate // 2,
                extractor.sampling_rate,
                mel_scale="kaldi",
                triangularize_in_mel_space=True,
            )
        for field in ("num_mel_bins", "max_length"):
            if getattr(extractor, field) != getattr(settings, field):
                raise AvalignError(
                    f"{model}: {field} is {getattr(extractor, field)} in preprocessor_config.json and "
                    f"{getattr(settings, field)} in config.json."
                )
        self.model = ASTModel(settings)
        if pretrained:
            self.loaded = load_tower(
                self.model, model, ["audio_spectrogram_transformer."], min_loaded=min_loaded
            )

        self.sample_rate = int(extractor.sampling_rate)
        self.hop, self.length = round(HOP * self.sample_rate), round(WINDOW * self.sample_rate)
        self.frames = settings.max_length
        self.seconds = self.frames * self.hop / self.sample_rate
        self.preprocessing = PaddedClip(self.sample_rate, self.seconds, "AST")
        self.mean, self.std = 0.0, 1.0
        if extractor.do_normalize:
            self.mean, self.std = float(extractor.mean), 2 * float(extractor.std)
        self.register_buffer("filters", torch.from_numpy(filters).float(), persistent=False)
        self.register_buffer("window", torch.hann_window(self.length, periodic=False), persistent=False)

        self.bands, self.steps = self.model.embeddings.get_shape(settings)
        self.width, self.token_count = settings.hidden_size, self.bands * self.steps
        patch = settings.patch_size if isinstance(settings.patch_size, int) else settings.patch_size[1]
        first = (
            ((patch - 1) * self.hop + self.length) / 2 / self.sample_rate
        )  # the middle of a patch's samples
        middles = first + torch.arange(self.steps) * (settings.time_stride * self.hop / self.sample_rate)
        times = spans_about(middles, self.seconds).repeat_interleave(self.bands, dim=0)
        self.register_buffer("times", times, persistent=False)

    def spectrogram(self, waves: Tensor, seconds: Tensor | None = None) -> Tensor:
        """(b, samples), (b,) s -> (b, frames, mel bands), log energy as in transformers' ASTFeatureExtractor.

        A frame that does not lie wholly within its clip is 0 before it is normalised, as in training.
        """
        with torch.autocast(waves.device.type, enabled=False):
            pieces = waves.float().unfold(1, self.length, self.hop)
            pieces = pieces - pieces.mean(-1, keepdim=True)
            before = torch.cat([pieces[..., :1], pieces[..., :-1]], -1)
            bins = torch.fft.rfft((pieces - PREEMPHASIS * before) * self.window, FFT)
            power = bins.real.square() + bins.imag.square()
            energy = (power @ self.filters).clamp(min=LEAST).log()
            if seconds is not None:
                samples = (seconds.float() * self.sample_rate).round()
                ends = torch.arange(energy.shape[1], device=waves.device) * self.hop + self.length
                energy = energy * (ends <= samples[:, None])[..., None]
            energy = torch.nn.functional.pad(energy, (0, 0, 0, self.frames - energy.shape[1]))
            return (energy - self.mean) / self.std

    def forward(self, x: Tensor, seconds: Tensor | None = None) -> Tokens:
        features = self.spectrogram(x, seconds).to(self.model.dtype)
        patches = self.model(input_values=features).last_hidden_state[:, 2:]
        values = rearrange(patches, "b (bands steps) d -> b (steps bands) d", bands=self.bands)
        return Tokens(values, within(self.times, seconds, len(values)), times=self.times)
