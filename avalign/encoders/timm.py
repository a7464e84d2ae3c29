"""Image encoders from timm: any Vision Transformer by its timm name, CLIP ViT-B/16 first."""

from __future__ import annotations

import difflib
import inspect
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from avalign.batch import Tokens
from avalign.encoders.places import patch_boxes
from avalign.encoders.weights import hub_file, load_all, read_weights
from avalign.errors import AvalignError


class TimmImageEncoder(nn.Module):
    """The patch tokens of a timm Vision Transformer after its last norm, without class or register tokens.

    model:      timm's name, with the tag of its weights: vit_base_patch16_clip_224.openai,
                vit_base_patch16_siglip_224.webli, vit_small_patch14_dinov2.lvd142m, ...
    pretrained: load the weights that the name stands for, from the Hugging Face hub or its cache
    checkpoint: local .safetensors file, loaded instead of the hub's; timm's names or the original's
    size:       px, both sides; pictures are squeezed to a square of this size. The model's own when not
                given, else its position embeddings are interpolated

    Shapes: (b, 3, size, size) -> (b, n, width), patches row by row; CLIP ViT-B/16 has 196 of width 768
    Weights that do not fit, name by name and shape by shape, are an error.
    """

    where: Tensor

    def __init__(
        self,
        *,
        model: str = "vit_base_patch16_clip_224.openai",
        pretrained: bool = True,
        checkpoint: str | None = None,
        size: int | None = None,
    ) -> None:
        super().__init__()
        import timm

        self.model = _create(model, size)
        self.pretrained = pretrained or checkpoint is not None
        if checkpoint is not None:
            _load(self.model, Path(checkpoint))
        elif pretrained:
            _load(self.model, _stock_weights(model, self.model))
        else:
            _drop_heads(self.model)
        rows, columns = self.model.patch_embed.grid_size
        self.size = int(self.model.patch_embed.img_size[0])
        self.width, self.token_count = int(self.model.num_features), rows * columns
        settings = timm.data.resolve_model_data_config(self.model)
        self._mean = torch.tensor(settings["mean"]).view(3, 1, 1)  # no buffers: prepare stays on the CPU
        self._std = torch.tensor(settings["std"]).view(3, 1, 1)
        self.register_buffer("where", patch_boxes(rows, columns), persistent=False)

    def prepare(self, image: np.ndarray) -> Tensor:
        """(h, w, 3) uint8 -> (3, size, size). Squeezed, not cropped: boxes in 0..1 stay true."""
        from PIL import Image

        square = Image.fromarray(image).resize((self.size, self.size), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.asarray(square, np.float32)).permute(2, 0, 1) / 255
        return (pixels - self._mean) / self._std

    def forward(self, x: Tensor) -> Tokens:
        values = self.model.forward_features(x)[:, self.model.num_prefix_tokens :]
        return Tokens(values, values.new_ones(values.shape[:2], dtype=torch.bool), self.where)


def _create(name: str, size: int | None) -> Any:
    """timm's model with random weights, its pooling heads still on."""
    import timm

    architecture = name.split(".")[0]
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        raise AvalignError(
            f"timm has no model '{architecture}'. Did you mean {' or '.join(near) or 'another'}? "
            'Known: timm.list_models("vit*", pretrained=True).'
        )
    try:
        options: dict[str, Any] = {} if size is None else {"img_size": size}
        model = timm.create_model(name, num_classes=0, **options)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        tags = [n for n in timm.list_pretrained(f"{architecture}*") if n.split(".")[0] == architecture]
        raise AvalignError(
            f"timm cannot build '{name}'{'' if size is None else f' for {size} px'}: {error}. "
            f"Known weights: {', '.join(tags)}."
        ) from error
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    if grid is None or not hasattr(model, "num_prefix_tokens"):
        raise AvalignError(f"timm's '{name}' is no Vision Transformer: it has no grid of patch tokens.")
    return model


def _drop_heads(model: Any) -> None:
    """Take away what serves a pooled vector only, so that every parameter left reaches the patch tokens."""
    model.reset_classifier(0, "")
    if hasattr(model, "fc_norm"):
        model.fc_norm = nn.Identity()


def _stock_weights(name: str, model: Any) -> Path:
    repository = model.pretrained_cfg.get("hf_hub_id")
    if not repository:
        raise AvalignError(
            f"timm has no weights for '{name}': name a checkpoint, or set `pretrained: false`."
        )
    file = Path(model.pretrained_cfg.get("hf_hub_filename") or "model.safetensors")
    return hub_file(repository, file.stem.replace("pytorch_model", "model") + ".safetensors")


def _load(model: Any, source: Path) -> None:
    """Load all weights from `source` and drop the heads, the model's and the file's."""
    weights = read_weights(source)
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is not None:  # the original's names to timm's, position embeddings to this size
        takes_model = len(inspect.signature(convert).parameters) > 1
        weights = convert(weights, model) if takes_model else convert(weights)
    with_heads = set(model.state_dict())
    _drop_heads(model)
    heads = with_heads - set(model.state_dict())
    classifier = model.pretrained_cfg.get("classifier") or ()
    names = tuple(f"{c}." for c in ((classifier,) if isinstance(classifier, str) else classifier))
    load_all(model, {k: v for k, v in weights.items() if k not in heads and not k.startswith(names)}, source)
