"""Models over the waveform, from transformers: wav2vec 2.0, HuBERT, WavLM and data2vec-audio, 16 kHz."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from avalign.config.recipe import Positive, Share
from avalign.encoders.positions import spans_about, within
from avalign.encoders.preprocessing import PaddedClip
from avalign.errors import AvalignError
from avalign.layers.pooling import pooled, pooled_spans
from avalign.types import Tokens
from avalign.weights.folders import StockTower, config_of, extractor_of, load_tower

STOCK: dict[str, dict[str, Any]] = {  # the base sizes, which their configurations have by default
    "facebook/wav2vec2-base": {},
    "facebook/wav2vec2-base-960h": {},
    "facebook/hubert-base-ls960": {"model_type": "hubert"},
    "microsoft/wavlm-base": {"model_type": "wavlm"},
    "microsoft/wavlm-base-plus": {"model_type": "wavlm"},
    "facebook/data2vec-audio-base": {"model_type": "data2vec-audio"},
    "facebook/data2vec-audio-base-960h": {"model_type": "data2vec-audio"},
}


class WaveformAudioEncoder(StockTower):
    """The tokens of wav2vec 2.0, HuBERT, WavLM or data2vec-audio after the last layer, 50 a second.

    model:      hub id (facebook/wav2vec2-base, facebook/hubert-base-ls960, microsoft/wavlm-base-plus, ...) or
                a local folder in transformers' format (config.json, model.safetensors,
                preprocessor_config.json), of the model or of one with a head; which of the four it is, its
                config.json says
    pretrained: load the model's weights. False: random ones in the model's shapes, without asking the hub for
                the base models of the four
    config:     fields of transformers' configuration in place of the model's (model_type chooses among
                wav2vec2, hubert, wavlm, data2vec-audio), with `pretrained: false`
    seconds:    longest clip; the models have no limit of their own
    pool:       how many neighbouring tokens become one, their mean over those within the clip; 1 keeps all
    min_loaded: share of the numbers that the weights must fill, 1 for all; what stays random below is named
                by a warning and in `loaded`

    Shapes: (b, samples) -> (b, ceil(m / pool), width), in order of time, m = 499 for 10 s
    A token sees 25 ms and begins 20 ms after the one before. Its span is the segment of the clip nearer to
    its middle than to another's, the first from 0 and the last to the end; tokens whose span begins after the
    clip's end are masked. Padding changes nothing: a clip gives the tokens that the model gives for that clip
    alone, with as much silence as completes the last token. Three things would break that: attention, which
    is masked (transformers advises against it for models with feat_extract_norm "group", since it cannot mask
    the next); the group norm of their first convolution, which takes its statistics over time, here of the
    clip alone; and data2vec's stacked positional convolutions, which are kept from carrying padding back.
    Samples are normalised over the clip, where the model's extractor says so (do_normalize). Time and
    channels are not masked at random in training (SpecAugment), and no layer is dropped.
    """

    times: Tensor

    def __init__(
        self,
        *,
        model: str = "facebook/wav2vec2-base",
        pretrained: bool = True,
        config: dict[str, Any] | None = None,
        seconds: Positive = 10.0,
        pool: PositiveInt = 1,
        min_loaded: Share = 1.0,
    ) -> None:
        import transformers

        super().__init__()
        kinds = {
            "wav2vec2": transformers.Wav2Vec2Config,
            "hubert": transformers.HubertConfig,
            "wavlm": transformers.WavLMConfig,
            "data2vec-audio": transformers.Data2VecAudioConfig,
        }
        settings = config_of(kinds, model, pretrained=pretrained, changes=config, stock=STOCK)
        for field in ("add_adapter", "conv_pos_batch_norm"):
            if getattr(settings, field, False):
                raise AvalignError(f"{model}: models with {field} are not supported.")
        settings.mask_time_prob = settings.mask_feature_prob = settings.layerdrop = 0.0
        extractor = extractor_of(
            transformers.Wav2Vec2FeatureExtractor,
            model,
            pretrained=pretrained,
            changes=config,
            stock=STOCK,
            otherwise=lambda: transformers.Wav2Vec2FeatureExtractor(),
        )
        self.sample_rate = int(extractor.sampling_rate)
        self.seconds, self.pool, self.width = seconds, pool, settings.hidden_size
        self.preprocessing = PaddedClip(
            self.sample_rate, seconds, "this encoder", normalised=bool(extractor.do_normalize)
        )
        self.model = transformers.AutoModel.from_config(settings)
        if pretrained:
            self.loaded = load_tower(
                self.model,
                model,
                [f"{self.model.base_model_prefix}."],
                min_loaded=min_loaded,
                without={"of masked training": ("masked_spec_embed",)},
            )
        # The convolutions are run here, where the length of each clip is known, and the rest by the model.
        self.convolutions, self.model.feature_extractor = self.model.feature_extractor, nn.Identity()
        if settings.model_type == "data2vec-audio":
            encoder = self.model.encoder
            encoder.pos_conv_embed = _WithinClip(encoder.pos_conv_embed.layers)

        self.field, self.stride = 1, 1  # samples: what a token sees, and how far the next one's begins
        for kernel, stride in zip(settings.conv_kernel, settings.conv_stride, strict=True):
            self.field, self.stride = self.field + (kernel - 1) * self.stride, self.stride * stride
        count = (round(seconds * self.sample_rate) - self.field) // self.stride + 1
        if count < 1:
            raise AvalignError(f"seconds is {seconds}: a token needs {self.field / self.sample_rate:g} s.")
        middles = (torch.arange(count) * self.stride + self.field / 2) / self.sample_rate
        self.register_buffer("_each", spans_about(middles, seconds), persistent=False)
        self.register_buffer("times", pooled_spans(self._each, pool), persistent=False)
        self.token_count = len(self.times)

    def forward(self, x: Tensor, seconds: Tensor | None = None) -> Tokens:
        real = within(self._each, seconds, len(x))
        x = x.to(self.model.dtype)
        if seconds is None:
            values = self._attend(self._features(x, None), None)
        else:
            # Up to the end of what the last token sees. One token at least: attention needs a key.
            samples = (real.sum(1).clamp(min=1) - 1) * self.stride + self.field
            mask = torch.arange(x.shape[1], device=x.device) < samples[:, None]
            values = self._attend(self._features(x, samples), mask.long())
        if self.pool > 1:
            values = pooled(values, real, self.pool)
        return Tokens(values, within(self.times, seconds, len(values)), times=self.times)

    def _attend(self, features: Tensor, mask: Tensor | None) -> Tensor:
        if torch.compiler.is_compiling():
            return self.model(features, attention_mask=mask).last_hidden_state
        with warnings.catch_warnings():  # WavLM gives torch masks of two types
            warnings.filterwarnings("ignore", "Support for mismatched key_padding_mask", UserWarning)
            return self.model(features, attention_mask=mask).last_hidden_state

    def _features(self, x: Tensor, samples: Tensor | None) -> Tensor:
        """(b, samples) and how many of each to hear, or None for all -> (b, channels, tokens)"""
        values = x[:, None]
        for layer in self.convolutions.conv_layers:
            norm = getattr(layer, "layer_norm", None)
            if samples is not None and isinstance(norm, nn.GroupNorm):
                frames = (samples - layer.conv.kernel_size[0]) // layer.conv.stride[0] + 1
                values = layer.activation(_norm_over(norm, layer.conv(values), frames))
            else:
                values = layer(values)
        return values


class _WithinClip(nn.Module):
    """data2vec's positional convolutions, each given zeros after the end of the clip, as if it were alone.

    (b, m, width) -> the same; the model has set what follows a clip to 0.
    """

    def __init__(self, layers: nn.ModuleList) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, values: Tensor) -> Tensor:
        inside = values.ne(0).any(-1)[:, None].to(values.dtype)
        values = values.transpose(1, 2)
        for layer in self.layers:
            values = layer(values) * inside
        return values.transpose(1, 2)


def _norm_over(norm: nn.GroupNorm, values: Tensor, frames: Tensor) -> Tensor:
    """A group norm of one channel a group, by the mean and variance over the first `frames` of each row.

    (b, c, t), (b,) -> (b, c, t)
    """
    with torch.autocast(values.device.type, enabled=False):
        wide = values.float()
        inside = (torch.arange(wide.shape[-1], device=wide.device) < frames[:, None])[:, None]
        count = frames[:, None, None]
        mean = (wide * inside).sum(-1, keepdim=True) / count
        variance = ((wide - mean).square() * inside).sum(-1, keepdim=True) / count
        wide = (wide - mean) * torch.rsqrt(variance + norm.eps)
        return (wide * norm.weight.float()[:, None] + norm.bias.float()[:, None]).to(values.dtype)
