"""CLAP's audio tower (HTS-AT) from transformers: fused and unfused, 48 kHz, 10 s."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from avalign.batch import Tokens
from avalign.encoders.places import spans, within
from avalign.encoders.weights import hub_file, load_all, read_weights
from avalign.errors import AvalignError

STOCK = {  # hub id -> how its mel bands are spaced; both have the shapes of ClapAudioConfig()
    "laion/clap-htsat-fused": "fusion",
    "laion/clap-htsat-unfused": "rand_trunc",
}


class ClapAudioEncoder(nn.Module):
    """CLAP's tokens before pooling: 2 bands x 32 stretches of 10/32 s for the stock models, 768 wide.

    model:      hub id (laion/clap-htsat-fused, laion/clap-htsat-unfused, ...) or a local folder in
                transformers' format (config.json, model.safetensors, preprocessor_config.json), of the whole
                CLAP or of its audio tower
    pretrained: load the model's weights. False: random ones in the model's shapes, without asking the hub for
                the two stock models
    config:     fields of transformers' ClapAudioConfig in place of the model's, with `pretrained: false`
    padding:    what follows a clip shorter than 10 s: zeros, or repeatpad (the clip again and again, as CLAP
                was trained; every token then counts as real, and an interval names the first time only)

    Shapes: (b, samples) -> (b, 64, 768), in order of time: low band and high band of the first 0.31 s, ...
    The spectrogram is computed in float32 in `forward`. The fused models' extra channels serve clips of
    more than 10 s, which are refused here, as their tokens have no single time; so those weights
    (fusion_model, mel_conv2d) are left out, and what is left computes the same as the whole for such clips.
    """

    where: Tensor
    filters: Tensor
    window: Tensor

    def __init__(
        self,
        *,
        model: str = "laion/clap-htsat-fused",
        pretrained: bool = True,
        config: dict[str, Any] | None = None,
        padding: Literal["zeros", "repeatpad"] = "zeros",
    ) -> None:
        super().__init__()
        from transformers import ClapAudioModel

        if config is not None and pretrained:
            raise AvalignError("option 'config' changes a model's shapes, so it needs `pretrained: false`.")
        if padding not in ("zeros", "repeatpad"):
            raise AvalignError(f"padding '{padding}' is not known. Known: zeros, repeatpad.")
        settings = _config(model, pretrained, config or {})
        if settings.enable_fusion and settings.fusion_type == "channel_map":
            raise AvalignError(f"{model}: fusion_type channel_map is not supported.")
        fused, settings.enable_fusion = settings.enable_fusion, False
        self.model = ClapAudioModel(settings)
        self.pretrained, self.padding = pretrained, padding
        if pretrained:
            _load(self.model, model, fused)

        extractor = _extractor(model, pretrained or not config, settings)
        self.sample_rate = int(extractor.sampling_rate)
        self.seconds = float(extractor.max_length_s)
        self.hop, self.fft = int(extractor.hop_length), int(extractor.fft_window_size)
        spaced = extractor.mel_filters if extractor.truncation == "fusion" else extractor.mel_filters_slaney
        self.register_buffer("filters", torch.from_numpy(spaced).float(), persistent=False)
        self.register_buffer("window", torch.hann_window(self.fft), persistent=False)

        # HTS-AT cuts the spectrogram into `ratio` pieces of time, lays them one under the other as a square
        # picture, and halves that picture at every stage but the last.
        encoder = self.model.audio_encoder
        ratio = encoder.freq_ratio
        frames, most = self.seconds * self.sample_rate // self.hop + 1, settings.spec_size * ratio
        if frames > most:
            raise AvalignError(
                f"{model}: {self.seconds:g} s are {frames:g} frames of {self.hop} samples, and spec_size "
                f"{settings.spec_size} with {settings.num_mel_bins} mel bins has room for {most}."
            )
        rows, columns = (side // 2 ** (len(settings.depths) - 1) for side in encoder.patch_embed.grid_size)
        self.bands, self.steps = rows // ratio, columns * ratio
        self.width, self.token_count = encoder.num_features, self.bands * self.steps
        where = spans(self.steps, self.seconds).repeat_interleave(self.bands, dim=0)
        self.register_buffer("where", where, persistent=False)

    def prepare(self, audio: np.ndarray, sample_rate: int) -> Tensor:
        """(samples,) at any rate -> (seconds * self.sample_rate,) at the model's rate, padded as chosen."""
        from avalign.data.media import fit_length, resample

        if len(audio) > (self.seconds + 0.01) * sample_rate:
            raise AvalignError(
                f"the audio lasts {len(audio) / sample_rate:.2f} s, CLAP takes {self.seconds:g} s: "
                "cut it to the part that is meant."
            )
        audio = resample(audio, sample_rate, self.sample_rate)
        samples = round(self.seconds * self.sample_rate)
        if self.padding == "repeatpad" and 0 < len(audio) < samples:
            audio = np.tile(audio, samples // len(audio))
        return torch.from_numpy(np.ascontiguousarray(fit_length(audio, samples)))

    def spectrogram(self, waves: Tensor) -> Tensor:
        """(b, samples) -> (b, 1, frames, mel bands) in dB, as transformers' ClapFeatureExtractor has them."""
        with torch.autocast(waves.device.type, enabled=False):
            bins = torch.stft(
                waves.float(), self.fft, self.hop, window=self.window.float(), return_complex=True
            )
            power = bins.real.square() + bins.imag.square()
            mel = power.transpose(1, 2) @ self.filters.float()
            return 10 * mel.clamp(min=1e-10).log10()[:, None]

    def forward(self, x: Tensor, seconds: Tensor | None = None) -> Tokens:
        features = self.spectrogram(x).to(self.model.dtype)
        values = self.model(input_features=features).last_hidden_state  # (b, width, bands, steps)
        values = values.permute(0, 3, 2, 1).flatten(1, 2)
        if self.padding == "repeatpad" and seconds is not None:  # repeated to the end, if there is a sound
            seconds = torch.where(seconds > 0, self.seconds, 0.0)
        return Tokens(values, within(self.where, seconds, len(values)), self.where)

    def train(self, mode: bool = True) -> ClapAudioEncoder:
        """A frozen tower stays in evaluation mode: its batch norm would learn from every batch otherwise."""
        return super().train(mode and any(p.requires_grad for p in self.parameters()))


def _file(model: str, *names: str) -> Path:
    """The first of `names` in the folder or hub repository `model`."""
    if not Path(model).is_dir():
        if model.startswith((".", "/", "~")) or model.count("/") != 1:
            raise AvalignError(f"{model}: no such folder, and no hub id (owner/name) either.")
        return hub_file(model, *names)
    for name in names:
        if (Path(model) / name).is_file():
            return Path(model) / name
    raise AvalignError(f"{model}: this folder holds no {' or '.join(names)}.")


def _config(model: str, pretrained: bool, changes: dict[str, Any]) -> Any:
    """ClapAudioConfig of `model`, with `changes`."""
    import json

    from transformers import ClapAudioConfig

    fields: dict[str, Any] = {}
    if pretrained or Path(model).is_dir() or not (model in STOCK or changes):
        file = _file(model, "config.json")
        fields = json.loads(file.read_text())
        fields = fields.get("audio_config", fields)
        if "patch_embeds_hidden_size" not in fields and fields.get("model_type") != "clap_audio_model":
            raise AvalignError(f"{file}: is not the configuration of a CLAP model.")
    unknown = sorted(set(changes) - set(ClapAudioConfig().to_dict()))
    if unknown:
        raise AvalignError(f"ClapAudioConfig has no field '{unknown[0]}': see option 'config'.")
    return ClapAudioConfig.from_dict({**fields, **changes})


def _extractor(model: str, of_model: bool, settings: Any) -> Any:
    """transformers' ClapFeatureExtractor: the model's own, or the stock one, coarser if `settings` are."""
    import json

    from transformers import ClapFeatureExtractor

    if of_model and (Path(model).is_dir() or model not in STOCK):
        file = _file(model, "preprocessor_config.json")
        return ClapFeatureExtractor.from_dict(json.loads(file.read_text()))
    rate, seconds = 48_000, 10
    frames = settings.spec_size * (settings.spec_size // settings.num_mel_bins)
    hop = max(480, math.ceil(rate * seconds / (frames - 1)))
    return ClapFeatureExtractor(
        feature_size=settings.num_mel_bins,
        hop_length=hop,
        fft_window_size=max(1024, 2 ** math.ceil(math.log2(2 * hop))),
        truncation=STOCK.get(model, "fusion"),
    )


def _load(tower: nn.Module, model: str, fused: bool) -> None:
    """Load the audio tower's weights out of a file of the tower alone or of the whole CLAP."""
    file = _file(model, "model.safetensors", "pytorch_model.bin")
    if file.suffix == ".bin":  # older hub models have no other: tensors only, no code is run
        weights = torch.load(file, map_location="cpu", weights_only=True)
    else:
        weights = read_weights(file)
    inside = "audio_model."
    if any(k.startswith(inside) for k in weights):
        weights = {k.removeprefix(inside): v for k, v in weights.items() if k.startswith(inside)}
    for_long_clips = ("audio_encoder.patch_embed.fusion_model.", "audio_encoder.patch_embed.mel_conv2d.")
    load_all(tower, {k: v for k, v in weights.items() if not (fused and k.startswith(for_long_clips))}, file)
