"""Image encoders from timm: any of its networks that keeps a grid, CLIP ViT-B/16 first."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from avalign.config.recipe import Share
from avalign.encoders.positions import patch_boxes
from avalign.encoders.preprocessing import SquareImage, colour
from avalign.encoders.timm_network import converted, create, find, grid_of, side
from avalign.interfaces import ImageEncoder
from avalign.types import Tokens
from avalign.weights.pretrained import Loaded, load_all, read_weights


class TimmImageEncoder(nn.Module, ImageEncoder):
    """The patches of a timm network after its last norm before pooling, without class or register tokens.

    model:      timm's name, with the tag of its weights: vit_base_patch16_clip_quickgelu_224.openai,
                vit_base_patch16_siglip_224.v2_webli, vit_small_patch14_reg4_dinov2.lvd142m,
                vit_small_patch16_dinov3.lvd1689m, eva02_base_patch14_224.mim_in22k, ...;
                hf-hub:owner/name or hf-hub:owner/name@revision; or a local folder in the hub's layout
                (config.json of timm, model.safetensors)
    pretrained: load the weights that `model` stands for, from the Hugging Face hub, its cache, or the folder
    checkpoint: local file (.safetensors; .pth and .bin as tensors only), loaded instead of those; by timm's
                names or the original's
    size:       px, both sides, a multiple of a patch's; images are squeezed to a square of this size. The
                model's own when not given, else its position embeddings are resampled as timm does it
    min_loaded: share of the numbers that the weights must fill, 1 for all; what stays random below that is
                named by a warning and in `loaded`

    Shapes: (b, 3, size, size) -> (b, n, width), patches row by row; CLIP ViT-B/16 has 196 of width 768.
            Of a network that gives a feature map (ConvNeXt, ResNet, Swin) the cells of its last map
    Images are normalised by the mean and deviation that the weights were trained with, and resized by their
    filter. What serves a pooled vector only (attention pooling, a norm after pooling, classifiers) is left
    away: all weights that are left reach the patches.
    timm has OpenAI's CLIP twice: under `_clip_quickgelu_` with the activation that it was trained with, under
    `_clip_` with another; loading the latter gives a UserWarning.
    `loaded` is the report of what was loaded, None for random weights.
    """

    boxes: Tensor

    def __init__(
        self,
        *,
        model: str = "vit_base_patch16_clip_quickgelu_224.openai",
        pretrained: bool = True,
        checkpoint: str | None = None,
        size: PositiveInt | None = None,
        min_loaded: Share = 1.0,
    ) -> None:
        super().__init__()
        import timm

        found = find(model)
        self.model = create(found, size)
        settings = timm.data.resolve_model_data_config(self.model)
        self.size = side(self.model, settings, found, size)
        self.grid = grid_of(lambda: create(found, size), self.size, found)
        self.loaded: Loaded | None = None
        if checkpoint is not None:
            self.loaded = self._load(Path(checkpoint), min_loaded)
        elif pretrained:
            self.loaded = self._load(found.weights(self.model), min_loaded)
            _warn_of_activation(self.model.pretrained_cfg)
        else:
            self._drop_heads()
        self.pretrained = self.loaded is not None and self.loaded.complete  # else a run keeps its own
        self.width, self.token_count = self.grid.width, self.grid.rows * self.grid.columns
        self.preprocessing = SquareImage(
            self.size, colour(settings["mean"]), colour(settings["std"]), settings["interpolation"]
        )
        self.register_buffer("boxes", patch_boxes(self.grid.rows, self.grid.columns), persistent=False)

    def forward(self, x: Tensor) -> Tokens:
        values = self.grid.patches(self.model.forward_features(x))
        return Tokens(values, values.new_ones(values.shape[:2], dtype=torch.bool), boxes=self.boxes)

    def train(self, mode: bool = True) -> TimmImageEncoder:
        """A frozen network stays in evaluation mode: batch norms would learn from every batch otherwise."""
        return super().train(mode and any(p.requires_grad for p in self.parameters()))

    def _drop_heads(self) -> None:
        for head in self.grid.heads:
            setattr(self.model, head, nn.Identity())

    def _load(self, file: Path, min_loaded: float) -> Loaded:
        found = read_weights(file)
        weights = converted(self.model, found, file)
        self._drop_heads()
        classifier = self.model.pretrained_cfg.get("classifier") or ()
        classifiers = (classifier,) if isinstance(classifier, str) else tuple(classifier)
        heads = tuple(f"{name}." for name in (*self.grid.heads, *classifiers))
        known = {tensor.data_ptr() for tensor in weights.values()}
        dropped = {
            "serves a pooled vector only": [name for name in weights if name.startswith(heads)],
            "left out, or joined to another, by timm's conversion": [
                name
                for name, tensor in found.items()
                if name not in weights and tensor.data_ptr() not in known
            ],
        }
        used = {name: tensor for name, tensor in weights.items() if not name.startswith(heads)}
        return load_all(self.model, used, file, min_loaded=min_loaded, dropped=dropped)


def _warn_of_activation(settings: dict[str, Any]) -> None:
    name = settings["architecture"]
    if "quickgelu" not in name and any("QuickGELU" in note for note in settings.get("notes") or ()):
        warnings.warn(
            f"{name}: these weights were trained with QuickGELU, but timm computes GELU under this name. The "
            f"original's tokens come from {name.replace('_clip_', '_clip_quickgelu_')}.",
            UserWarning,
            stacklevel=3,
        )
