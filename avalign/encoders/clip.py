"""CLIP's vision tower from transformers, and any other tower of its form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from avalign.config.recipe import Share
from avalign.encoders.positions import patch_boxes
from avalign.encoders.preprocessing import Colour, SquareImage, colour
from avalign.errors import AvalignError, suggest
from avalign.interfaces import ImageEncoder
from avalign.system.json_file import read_json
from avalign.types import Tokens
from avalign.weights.pretrained import Loaded, load_all, model_file, read_weights

LARGE = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
STOCK: dict[str, dict[str, int]] = {  # hub id -> where it differs from CLIPVisionConfig()
    "openai/clip-vit-base-patch16": {"patch_size": 16},
    "openai/clip-vit-base-patch32": {"patch_size": 32},
    "openai/clip-vit-large-patch14": {**LARGE, "patch_size": 14},
    "openai/clip-vit-large-patch14-336": {**LARGE, "patch_size": 14, "image_size": 336},
}
POSITIONS = "embeddings.position_embedding.weight"
FIELDS = (
    *(
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "image_size",
        "patch_size",
    ),
    *("hidden_act", "layer_norm_eps", "attention_dropout", "initializer_range", "initializer_factor"),
)
OTHERS = {  # what a file of the whole CLIP holds besides -> why it is left out
    "text_model.": "is the text tower",
    "text_projection.": "is the text tower",
    "visual_projection.": "serves the pooled vector only",
    "logit_scale": "serves the contrastive loss only",
    "embeddings.position_ids": "counts from 0, and is no longer kept",
}


class ClipImageEncoder(nn.Module, ImageEncoder):
    """CLIP's patches after the last layer and its norm, without the class token.

    model:      hub id (openai/clip-vit-base-patch16, owner/name@revision, ...) or a local folder in
                transformers' format (config.json, model.safetensors, preprocessor_config.json), of the whole
                CLIP or of its vision tower
    pretrained: load the model's weights. False: random ones in the model's shapes, without asking the hub for
                OpenAI's four models
    config:     fields of transformers' CLIPVisionConfig in place of the model's, with `pretrained: false`
    size:       px, both sides, a multiple of a patch's; images are squeezed to a square of this size. The
                model's own when not given, else its position embeddings are resampled, as timm does it
    min_loaded: share of the numbers that the weights must fill, 1 for all; what stays random below that is
                named by a warning and in `loaded`

    Shapes: (b, 3, size, size) -> (b, n, width), patches row by row; ViT-B/16 has 196 of width 768
    The norm is the tower's `post_layernorm`, which transformers itself applies to the class token alone; so
    these are the tokens of timm's vit_base_patch16_clip_quickgelu_224.openai, number by number.
    `loaded` is the report of what was loaded, None for random weights.
    """

    boxes: Tensor

    def __init__(
        self,
        *,
        model: str = "openai/clip-vit-base-patch16",
        pretrained: bool = True,
        config: dict[str, Any] | None = None,
        size: PositiveInt | None = None,
        min_loaded: Share = 1.0,
    ) -> None:
        super().__init__()
        from transformers import CLIPVisionModel

        if config is not None and pretrained:
            raise AvalignError("option 'config' changes a model's shapes, so it needs `pretrained: false`.")
        model = str(Path(model).expanduser()) if model.startswith("~") else model
        settings = _config(model, pretrained, config or {})
        if size is not None:
            settings.image_size = size
        self.size, patch, self.width = settings.image_size, settings.patch_size, settings.hidden_size
        if not isinstance(patch, int) or not isinstance(self.size, int) or settings.num_channels != 3:
            raise AvalignError(f"{model}: only towers of square images and patches in RGB are known here.")
        if self.size % patch:
            below = self.size // patch * patch
            near = " or ".join(str(n) for n in (below, below + patch) if n)
            raise AvalignError(f"{model}: has patches of {patch} px: set `size` to {near}, not {self.size}.")
        side = self.size // patch
        full_model = CLIPVisionModel(settings)
        # inside another module before transformers 5.1
        self.model = getattr(full_model, "vision_model", full_model)
        self.loaded = _load(self.model, model, side, min_loaded) if pretrained else None
        self.pretrained = self.loaded is not None and self.loaded.complete  # else a run keeps its own
        self.preprocessing = SquareImage(self.size, *_normalisation(model, pretrained or not config))
        self.token_count = side * side
        self.register_buffer("boxes", patch_boxes(side, side), persistent=False)

    def forward(self, x: Tensor) -> Tokens:
        last = self.model(pixel_values=x).last_hidden_state[:, 1:]
        values = self.model.post_layernorm(last)
        return Tokens(values, values.new_ones(values.shape[:2], dtype=torch.bool), boxes=self.boxes)


def _config(model: str, pretrained: bool, changes: dict[str, Any]) -> Any:
    """CLIPVisionConfig of `model`, with `changes`."""
    from transformers import CLIPVisionConfig

    unknown = sorted(set(changes) - set(FIELDS))
    if unknown:
        raise AvalignError(f"option 'config' has no field '{unknown[0]}'.{suggest(unknown[0], FIELDS)}")
    fields: dict[str, Any] = dict(STOCK.get(model, {}))
    origin = "option 'config'"
    if Path(model).is_dir() or (model not in STOCK and (pretrained or not changes)):
        file = model_file(model, "config.json")
        origin, fields = str(file), read_json(file)
        fields = fields.get("vision_config", fields)
        if fields.get("model_type") not in ("clip_vision_model", "clip"):
            hint = " It is timm's: see the image encoder 'timm'." if "architecture" in fields else ""
            raise AvalignError(f"{file}: is not the configuration of a CLIP model.{hint}")
    try:
        return CLIPVisionConfig.from_dict({**fields, **changes})
    except Exception as error:  # transformers checks types in a class of errors of its own
        said = str(error).strip().replace("\n", " ")
        raise AvalignError(f"{origin}: is no configuration of a CLIP tower: {said}") from error


def _normalisation(model: str, of_model: bool) -> tuple[Colour, Colour]:
    """Mean and deviation of red, green and blue in 0..1: the model's own, or CLIP's."""
    from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

    fields: dict[str, Any] = {}
    names = ("preprocessor_config.json", "processor_config.json")
    if Path(model).is_dir():
        found = [Path(model) / name for name in names if (Path(model) / name).is_file()]
        fields = read_json(found[0]) if found else {}
    elif of_model and model not in STOCK:
        fields = read_json(model_file(model, *names))
    fields = fields.get("image_processor", fields)
    mean, std = fields.get("image_mean", OPENAI_CLIP_MEAN), fields.get("image_std", OPENAI_CLIP_STD)
    return colour(mean), colour(std)


def _load(tower: nn.Module, model: str, side: int, min_loaded: float) -> Loaded:
    """Load the tower's weights out of a file of the tower alone or of the whole CLIP."""
    file = model_file(model, "model.safetensors", "pytorch_model.bin")
    weights, dropped = {}, dict[str, list[str]]()
    for name, tensor in read_weights(file).items():
        inside = name.removeprefix("vision_model.")
        why = next((why for start, why in OTHERS.items() if inside.startswith(start)), None)
        if why is not None:
            dropped.setdefault(why, []).append(name)
        else:
            weights[inside] = tensor
    if POSITIONS in weights and weights[POSITIONS].ndim == 2:
        weights[POSITIONS] = _resampled(weights[POSITIONS], side)
    return load_all(tower, weights, file, min_loaded=min_loaded, dropped=dropped)


def _resampled(positions: Tensor, side: int) -> Tensor:
    """(1 + any square, width) -> (1 + side * side, width): bicubic, antialiased, as timm does it."""
    from timm.layers import resample_abs_pos_embed

    if len(positions) == 1 + side * side or round((len(positions) - 1) ** 0.5) ** 2 != len(positions) - 1:
        return positions
    return resample_abs_pos_embed(positions[None].float(), [side, side], num_prefix_tokens=1)[0]
