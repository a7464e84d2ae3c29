"""CLAP's audio tower (HTS-AT) from transformers: fused and unfused, 48 kHz, 10 s."""

from __future__ import annotations

from typing import Any, Literal

from avalign.config.recipe import Share
from avalign.encoders.htsat import HtsAt, extractor_for
from avalign.weights.folders import config_of, extractor_of, load_tower

STOCK = {  # hub id -> how its mel bands are spaced; both have the shapes of ClapAudioConfig()
    "laion/clap-htsat-fused": "fusion",
    "laion/clap-htsat-unfused": "rand_trunc",
}
FOR_LONG_CLIPS = ("audio_encoder.patch_embed.fusion_model.", "audio_encoder.patch_embed.mel_conv2d.")


class ClapAudioEncoder(HtsAt):
    """CLAP's tokens before pooling: 2 bands x 32 segments of 10/32 s for the stock models, 768 wide.

    model:      hub id (laion/clap-htsat-fused, laion/clap-htsat-unfused, ...) or a local folder in
                transformers' format (config.json, model.safetensors, preprocessor_config.json), of the whole
                CLAP or of its audio tower
    pretrained: load the model's weights. False: random ones in the model's shapes, without asking the hub for
                the two stock models
    config:     fields of transformers' ClapAudioConfig in place of the model's, with `pretrained: false`
    padding:    what follows a clip shorter than 10 s: zeros, or repeatpad (the clip again and again, as CLAP
                was trained; every token then counts as real, and an interval names the first time only)
    min_loaded: share of the numbers that the weights must fill, 1 for all; what stays random below is named
                by a warning and in `loaded`

    Shapes: (b, samples) -> (b, 64, 768), in order of time: low band and high band of the first 0.31 s, ...
    The spectrogram is computed in float32 in `forward`. The fused models' extra channels serve clips of
    more than 10 s, which are refused here, as their tokens have no single time; so those weights
    (fusion_model, mel_conv2d) are left out, and what is left computes the same as the whole for such clips.
    """

    def __init__(
        self,
        *,
        model: str = "laion/clap-htsat-fused",
        pretrained: bool = True,
        config: dict[str, Any] | None = None,
        padding: Literal["zeros", "repeatpad"] = "zeros",
        min_loaded: Share = 1.0,
    ) -> None:
        from transformers import ClapAudioConfig, ClapFeatureExtractor

        settings = config_of(
            {"clap_audio_model": ClapAudioConfig},
            model,
            pretrained=pretrained,
            changes=config,
            stock={name: {} for name in STOCK},
            part="audio_config",
        )
        extractor = extractor_of(
            ClapFeatureExtractor,
            model,
            pretrained=pretrained,
            changes=config,
            stock=STOCK,
            otherwise=lambda: extractor_for(settings, STOCK.get(model, "fusion")),
        )
        without = {"for clips of more than 10 s": FOR_LONG_CLIPS} if settings.enable_fusion else {}
        super().__init__(settings, extractor, model, padding)
        if pretrained:
            self.loaded = load_tower(
                self.model, model, ["audio_model."], min_loaded=min_loaded, without=without
            )
