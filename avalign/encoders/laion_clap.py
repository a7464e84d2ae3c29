"""HTS-AT from the checkpoints of the laion-clap package, without the package."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from avalign.config.recipe import Share
from avalign.encoders.htsat import HtsAt, extractor_for
from avalign.errors import AvalignError
from avalign.weights.folders import config_of
from avalign.weights.pretrained import hub_file, load_all, read_weights

REPOSITORY = "lukewys/laion_clap"  # where the package itself fetches its checkpoints
AMODELS = {  # what the package calls the towers' sizes -> first width, blocks of the four stages
    "HTSAT-tiny": (96, (2, 2, 6, 2)),
    "HTSAT-base": (128, (2, 2, 12, 2)),
    "HTSAT-large": (256, (2, 2, 12, 2)),
}
# Names in the package's checkpoints -> in transformers' ClapAudioModel; `qkv` is cut in three besides.
NAMES = (
    (r"^bn0\.", "batch_norm."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.relative_position_", ".attention.self.relative_position_"),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
)
WITHOUT = {  # reason -> what of the tower the tokens do not need
    "for clips of more than 10 s": r"(patch_embed\.)?(fusion_model|mel_conv[12]d)\.",
    "classes of AudioSet": r"(tscam_conv|head)\.",
    "computed, not learnt": r"(spectrogram_extractor|logmel_extractor)\.|.*\.attn_mask$",
}


class LaionClapAudioEncoder(HtsAt):
    """CLAP's tokens before pooling, of a checkpoint of the laion-clap package: HTSAT-tiny, -base or -large.

    checkpoint: local .pt file, or the name of one in the hub's lukewys/laion_clap:
                630k-audioset-fusion-best.pt, 630k-audioset-best.pt, music_audioset_epoch_15_esc_90.14.pt, ...
    pretrained: load it. Sizes, fusion and the window of the spectrogram are read off its weights
    amodel:     HTSAT-tiny, HTSAT-base or HTSAT-large: the shapes of random weights; a checkpoint of another
                is refused if it is named
    config:     fields of transformers' ClapAudioConfig in place of those of `amodel`, with
                `pretrained: false`
    padding:    what follows a clip shorter than 10 s: zeros, or repeatpad (the clip again and again, as CLAP
                was trained; every token then counts as real, and an interval names the first time only)
    min_loaded: share of the numbers that the weights must fill, 1 for all; what stays random below is named
                by a warning and in `loaded`

    Shapes: (b, samples) at 48 kHz -> (b, 64, width), as the encoder `clap`; 768, 1024 and 2048 wide
    The weights go into transformers' ClapAudioModel under its names, where they compute what the package's
    HTSAT_Swin_Transformer does: that package is not needed, nor asked for the text tokenizers it fetches when
    it is imported. It rounds samples to 16 bits first, this does not.
    """

    def __init__(
        self,
        *,
        checkpoint: str = "630k-audioset-fusion-best.pt",
        pretrained: bool = True,
        amodel: Literal["HTSAT-tiny", "HTSAT-base", "HTSAT-large"] | None = None,
        config: dict[str, Any] | None = None,
        padding: Literal["zeros", "repeatpad"] = "zeros",
        min_loaded: Share = 1.0,
    ) -> None:
        from transformers import ClapAudioConfig

        if config is not None and pretrained:
            raise AvalignError("option 'config' changes a model's shapes, so it needs `pretrained: false`.")
        if amodel is not None and amodel not in AMODELS:
            raise AvalignError(f"amodel '{amodel}' is not known. Known: {', '.join(AMODELS)}.")
        if not pretrained:
            size = amodel or "HTSAT-tiny"
            width, depths = AMODELS[size]
            fields = {"patch_embeds_hidden_size": width, "hidden_size": 8 * width, "depths": list(depths)}
            settings = config_of(
                {"clap_audio_model": ClapAudioConfig},
                size,
                pretrained=False,
                changes={**fields, **(config or {})},
                stock={},
            )
            truncation = "fusion" if "fusion" in checkpoint else "rand_trunc"
            super().__init__(settings, extractor_for(settings, truncation), size, padding)
            return

        file = Path(checkpoint)
        if file.suffix != ".pt":
            raise AvalignError(f"{checkpoint}: the checkpoints of laion-clap are .pt files.")
        if not file.is_file():
            if "/" in checkpoint:
                raise AvalignError(f"{checkpoint}: no such file.")
            file = hub_file(REPOSITORY, checkpoint)
        found = read_weights(file)
        tower = _tower(found, file)
        settings = ClapAudioConfig(**_shapes(tower, file))
        _must_be(amodel, settings, file)
        fused = any(re.match(WITHOUT["for clips of more than 10 s"], name) for name in tower)
        window = tower.get("spectrogram_extractor.stft.conv_real.weight")
        extractor = extractor_for(
            settings, "fusion" if fused else "rand_trunc", 1024 if window is None else window.shape[-1]
        )
        super().__init__(settings, extractor, str(file), padding)
        bands = tower.get("logmel_extractor.melW")
        if not fused and bands is not None:  # unfused ones hear through the bands that they carry with them
            if bands.shape != self.filters.shape:
                raise AvalignError(
                    f"{file}: its mel bands are of shape {tuple(bands.shape)}, a spectrogram of "
                    f"{tuple(self.filters.shape)} is known."
                )
            self.filters.copy_(bands)
        dropped = {
            reason: [name for name in tower if re.match(pattern, name)] for reason, pattern in WITHOUT.items()
        }
        left_out = {name for names in dropped.values() for name in names}
        dropped["text branch and projections"] = [name for name in found if "audio_branch." not in name]
        weights = renamed({name: weight for name, weight in tower.items() if name not in left_out})
        self.loaded = load_all(self.model, weights, file, min_loaded=min_loaded, dropped=dropped)


def renamed(tower: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of laion-clap's HTSAT_Swin_Transformer by the names of transformers' ClapAudioModel."""
    weights = {}
    for name, weight in tower.items():
        for pattern, new in NAMES:
            name = re.sub(pattern, new, name)
        name = f"audio_encoder.{name}"
        if ".attn.qkv." in name:
            for part, third in zip(("query", "key", "value"), weight.chunk(3), strict=True):
                weights[name.replace(".attn.qkv.", f".attention.self.{part}.")] = third
        else:
            weights[name] = weight
    return weights


def _tower(weights: Mapping[str, Tensor], file: Path) -> dict[str, Tensor]:
    """The audio branch; its names begin with "module." where several processes trained it."""
    beginning = re.compile(r"^(module\.)?audio_branch\.")
    tower = {beginning.sub("", n): w for n, w in weights.items() if beginning.match(n)}
    if not tower:
        raise AvalignError(
            f"{file}: is not a checkpoint of laion-clap: no tensor is named audio_branch.*, but "
            f"{', '.join(list(weights)[:3])}, ..."
        )
    if "patch_embed.proj.weight" not in tower:
        raise AvalignError(f"{file}: its audio branch is no HTS-AT: it has no patch_embed.proj.weight.")
    return tower


def _shapes(tower: Mapping[str, Tensor], file: Path) -> dict[str, Any]:
    """Fields of ClapAudioConfig as the weights show them; the spectrogram's image is 256 x 256 in all."""
    width, channels = tower["patch_embed.proj.weight"].shape[:2]
    if channels != 1:
        raise AvalignError(f"{file}: fusion_type channel_map ({channels} channels) is not supported.")
    blocks = re.compile(r"layers\.(\d+)\.blocks\.(\d+)\.attn\.relative_position_bias_table")
    depths: dict[int, int] = {}
    heads: dict[int, int] = {}
    for name, table in tower.items():
        if match := blocks.fullmatch(name):
            stage, block = int(match[1]), int(match[2])
            depths[stage] = max(depths.get(stage, 0), block + 1)
            heads[stage] = table.shape[-1]
    if not depths or sorted(depths) != list(range(len(depths))) or "bn0.weight" not in tower:
        raise AvalignError(f"{file}: its audio branch is no whole HTS-AT: stages {sorted(depths)} are there.")
    return {
        "patch_embeds_hidden_size": width,
        "hidden_size": width * 2 ** (len(depths) - 1),
        "num_mel_bins": len(tower["bn0.weight"]),
        "depths": [depths[stage] for stage in sorted(depths)],
        "num_attention_heads": [heads[stage] for stage in sorted(depths)],
    }


def _must_be(amodel: str | None, settings: Any, file: Path) -> None:
    found = (settings.patch_embeds_hidden_size, tuple(settings.depths))
    if amodel is not None and found != AMODELS[amodel]:
        name = next((name for name, shapes in AMODELS.items() if shapes == found), "of other sizes")
        raise AvalignError(f"{file}: is {name}, not {amodel} ({found[0]} wide at first, blocks {found[1]}).")
