"""Networks of timm: found by name, folder or hub id, built, asked for their grid, their weights converted."""

from __future__ import annotations

import difflib
import inspect
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from avalign.errors import AvalignError
from avalign.system.json_file import read_json
from avalign.weights.pretrained import hub_file, model_file

FILES = (
    "model.safetensors",
    "pytorch_model.bin",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
)
# Part of an architecture's name -> how timm resamples its position embeddings; else bicubic, antialiased.
RADIO = {"interpolation": "bilinear", "antialias": False}
RESAMPLED: dict[str, dict[str, Any]] = {
    "flexivit": {"interpolation": "bilinear", "antialias": False},
    "base_patch16_radio_v3": {**RADIO, "align_corners": True},
    "huge_patch16_radio_v3": {**RADIO, "align_corners": True},
    "radio": RADIO,
}


# ---- finding ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Network:
    """A model as the user wrote it, as timm takes it, and where its files are if not where timm says."""

    written: str
    name: str
    location: str | None = None  # local folder, or hub id

    def weights(self, model: Any) -> Path:
        """The file of weights that the model's name stands for."""
        if self.location is not None:
            return model_file(self.location, *FILES)
        stock = model.pretrained_cfg
        repository = stock.get("hf_hub_id")
        if not repository:
            raise AvalignError(
                f"timm has no weights for '{self.written}': name a checkpoint, or set `pretrained: false`."
            )
        name = stock.get("hf_hub_filename") or "pytorch_model.bin"
        safe = Path(name).stem.replace("pytorch_model", "model") + ".safetensors"
        return hub_file(repository, *dict.fromkeys((safe, name)))


def find(model: str) -> Network:
    """Where a model comes from; of the hub's models the configuration is fetched, of timm's names nothing."""
    import timm

    scheme, _, rest = model.partition(":")
    if scheme in ("hf-hub", "hf_hub") and rest:
        return Network(model, f"local-dir:{_described(model_file(rest, 'config.json').parent)}", rest)
    location = Path(rest if scheme == "local-dir" else model).expanduser()
    if location.is_dir():
        return Network(model, f"local-dir:{_described(location)}", str(location))
    if "/" in model or scheme == "local-dir":
        raise AvalignError(f"{model}: no such folder; a model of the hub is written hf-hub:owner/name.")
    architecture = model.split(".")[0]
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        raise AvalignError(
            f"timm has no model '{architecture}'. Did you mean {' or '.join(near) or 'another'}? "
            'Known: timm.list_models("vit*", pretrained=True).'
        )
    return Network(model, model)


def _described(folder: Path) -> Path:
    """`folder`, if its config.json is timm's."""
    import timm

    file = folder / "config.json"
    if not file.is_file():
        raise AvalignError(f"{folder}: this folder holds no config.json.")
    architecture = read_json(file).get("architecture")
    if architecture is None:
        raise AvalignError(
            f"{file}: is not timm's, as it names no `architecture`; CLIP in transformers' format is read by "
            "the image encoder 'clip'."
        )
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(str(architecture), timm.list_models(), n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise AvalignError(f"{file}: timm has no architecture '{architecture}'.{hint}")
    return folder


# ---- building --------------------------------------------------------------------------------------


def create(found: Network, size: int | None) -> Any:
    """timm's model with random weights, its pooling heads still on."""
    import timm

    options: dict[str, Any] = {"num_classes": 0}
    try:
        if size is not None:
            with torch.device("meta"):
                stock = timm.create_model(found.name, **options).pretrained_cfg
            if stock.get("fixed_input_size"):  # the others take any, and know no such argument
                options["img_size"] = size
        return timm.create_model(found.name, **options)
    except (RuntimeError, ValueError, TypeError, AssertionError, KeyError, AttributeError) as error:
        said = str(error).strip() or type(error).__name__
        known = ""
        if found.location is None:
            architecture = found.name.split(".")[0]
            tags = [n for n in timm.list_pretrained(f"{architecture}*") if n.split(".")[0] == architecture]
            known = f" Known weights: {', '.join(tags)}."
        raise AvalignError(
            f"timm cannot build '{found.written}'{'' if size is None else f' for {size} px'}: {said}.{known}"
        ) from error


def side(model: Any, settings: dict[str, Any], found: Network, size: int | None) -> int:
    """px of the square images that the model takes."""
    channels, height, width = settings["input_size"]
    if channels != 3:
        raise AvalignError(f"{found.written}: takes {channels} channels; images here have 3.")
    if size is not None:
        return size
    height, width = getattr(getattr(model, "patch_embed", None), "img_size", None) or (height, width)
    if height != width:
        raise AvalignError(
            f"{found.written}: takes images of {height} x {width} px; set `size` for square ones, to which "
            "its position embeddings are resampled."
        )
    return int(height)


@dataclass(frozen=True)
class Grid:
    """How a network's output is laid out, and which of its parts have no share in it."""

    rows: int
    columns: int
    width: int
    layout: str  # "tokens", "NCHW", "NHWC"
    prefix: int  # class and register tokens, before the patches
    heads: tuple[str, ...]

    def patches(self, features: Tensor) -> Tensor:
        """What forward_features gave -> (b, rows * columns, width), row by row."""
        if self.layout == "NCHW":
            return rearrange(features, "b d rows columns -> b (rows columns) d")
        if self.layout == "NHWC":
            return rearrange(features, "b rows columns d -> b (rows columns) d")
        return features[:, self.prefix :]


def grid_of(build: Callable[[], Any], px: int, found: Network) -> Grid:
    """Asked of the network itself: its shapes and gradients on the meta device, which computes nothing."""
    with torch.inference_mode(False), torch.enable_grad(), torch.device("meta"):
        model = build().eval()
        try:
            features = model.forward_features(torch.zeros(1, 3, px, px))
        except (RuntimeError, ValueError, AssertionError) as error:
            raise AvalignError(f"timm's '{found.written}' does not take {px} px: {error}.") from error
        prefix = getattr(model, "num_prefix_tokens", None)
        stages = getattr(model, "feature_info", None)
        if (
            not stages
            or not isinstance(features, Tensor)
            or not (features.ndim == 4 or (features.ndim == 3 and prefix is not None))
        ):
            raise AvalignError(f"timm's '{found.written}' gives no grid of patch tokens and no feature map.")
        features.sum().backward()
    stride, prefix, shape = int(stages[-1]["reduction"]), prefix or 0, tuple(features.shape[1:])
    rows = columns = px // stride
    layout = (getattr(model, "output_fmt", None) or "NCHW") if features.ndim == 4 else "tokens"
    expected = {"NCHW": (rows, columns), "NHWC": (rows, columns), "tokens": (prefix + rows * columns,)}
    if px % stride:
        near = " or ".join(str(n * stride) for n in (rows, rows + 1) if n)
        raise AvalignError(
            f"timm's '{found.written}' has patches of {stride} px: set `size` to {near}, not {px}."
        )
    if (shape[1:] if layout == "NCHW" else shape[:-1]) != expected[layout]:
        raise AvalignError(
            f"timm's '{found.written}' gives {shape} for {px} px, not {rows} x {columns} patches of {stride}."
        )
    unused = tuple(
        name
        for name, part in model.named_children()
        if (weights := list(part.parameters())) and all(weight.grad is None for weight in weights)
    )
    width = shape[0] if layout == "NCHW" else shape[-1]
    return Grid(rows, columns, width, layout, prefix, unused)


def converted(model: Any, weights: dict[str, Tensor], file: Path) -> dict[str, Tensor]:
    """The original's names to timm's, position embeddings to this size, by timm's own conversion."""
    import timm

    architecture = model.pretrained_cfg["architecture"]
    homes = (timm.models.model_entrypoint(architecture).__module__, type(model).__module__)
    found = [getattr(sys.modules[home], "checkpoint_filter_fn", None) for home in homes]
    convert = next((one for one in found if one is not None), None)
    if convert is None:
        return dict(weights)
    takes = inspect.signature(convert).parameters
    ways = next((ways for part, ways in RESAMPLED.items() if part in architecture), {})
    options = {name: value for name, value in ways.items() if name in takes}
    try:
        with warnings.catch_warnings():  # of how timm's own code for BEiT's position biases calls torch
            warnings.filterwarnings("ignore", module=r"timm\.")
            return convert(dict(weights), model, **options) if len(takes) > 1 else convert(dict(weights))
    except (RuntimeError, LookupError, ValueError, TypeError, AttributeError, AssertionError) as error:
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise AvalignError(f"{file}: these weights are not those of {architecture}: {said}") from error
