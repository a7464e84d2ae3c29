"""timm's families, each small and in the hub's own layout: tokens, normalisation and other sizes are timm's.

The truth is timm itself: its writer makes the folders, and its loader reads them beside ours.
"""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf

from avalign.encoders.timm import TimmImageEncoder
from avalign.errors import AvalignError
from tests.helpers.tolerances import assert_close

SMALL_VIT = {"embed_dim": 32, "depth": 2, "num_heads": 2}


@dataclass(frozen=True)
class Family:
    name: str  # timm's, with the tag that decides the normalisation
    args: dict[str, Any]  # what makes it small
    size: int  # px
    other: int  # px
    stride: int  # px of a patch
    prefix: int = 0  # class and register tokens


FAMILIES = {
    "clip": Family(
        "vit_base_patch16_clip_quickgelu_224.openai", {**SMALL_VIT, "img_size": 64}, 64, 112, 16, 1
    ),
    "siglip": Family("vit_base_patch16_siglip_224.webli", {**SMALL_VIT, "img_size": 64}, 64, 96, 16),
    "siglip2": Family("vit_base_patch16_siglip_224.v2_webli", {**SMALL_VIT, "img_size": 64}, 64, 96, 16),
    "siglip2_naflex": Family(
        "naflexvit_base_patch16_siglip.v2_webli", {**SMALL_VIT, "pos_embed_grid_size": (4, 4)}, 384, 96, 16
    ),
    "dinov2": Family("vit_small_patch14_dinov2.lvd142m", {**SMALL_VIT, "img_size": 70}, 70, 112, 14, 1),
    "dinov2_registers": Family(
        "vit_small_patch14_reg4_dinov2.lvd142m", {**SMALL_VIT, "img_size": 70}, 70, 98, 14, 5
    ),
    "dinov3": Family("vit_small_patch16_dinov3.lvd1689m", {**SMALL_VIT, "img_size": 64}, 64, 112, 16, 5),
    "eva02": Family("eva02_tiny_patch14_224.mim_in22k", {**SMALL_VIT, "img_size": 56}, 56, 98, 14, 1),
    "eva02_clip": Family(
        "eva02_base_patch16_clip_224.merged2b", {**SMALL_VIT, "img_size": 64}, 64, 80, 16, 1
    ),
    "perception_encoder": Family(
        "vit_pe_core_tiny_patch16_384.fb", {**SMALL_VIT, "img_size": 64}, 64, 112, 16, 1
    ),
    "mae": Family("vit_base_patch16_224.mae", {**SMALL_VIT, "img_size": 64}, 64, 96, 16, 1),
    "aimv2": Family("aimv2_large_patch14_224.apple_pt", {**SMALL_VIT, "img_size": 56}, 56, 84, 14),
    "flexivit": Family("flexivit_small.1200ep_in1k", {**SMALL_VIT, "img_size": 64}, 64, 96, 16, 1),
    "beit": Family("beit_base_patch16_224.in22k_ft_in22k", {**SMALL_VIT, "img_size": 64}, 64, 96, 16, 1),
    "swin": Family(
        "swin_tiny_patch4_window7_224.ms_in1k",
        {"embed_dim": 16, "depths": (1, 2), "num_heads": (1, 2), "window_size": 4, "img_size": 64},
        *(64, 96, 8),
    ),
    "convnext": Family(
        "convnext_tiny.fb_in22k", {"dims": (8, 8, 16, 16), "depths": (1, 1, 1, 1)}, 224, 64, 32
    ),
    "resnet": Family("test_resnet.r160_in1k", {}, 160, 96, 32),
}


def every_family(*names: str) -> Any:
    return pytest.mark.parametrize("family", names or FAMILIES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A family's small model, as timm writes it for the hub."""

    def written(name: str) -> Path:
        place = tmp_path_factory.getbasetemp() / "families" / name
        if not place.exists():
            family = FAMILIES[name]
            torch.manual_seed(3)
            model = timm.create_model(family.name, num_classes=4, **family.args)
            for tensor in (*model.parameters(), *model.buffers()):
                if tensor.is_floating_point() and tensor.requires_grad:
                    tensor.data += 0.1 * torch.randn_like(tensor)
            save_for_hf(model, place, model_args=family.args, safe_serialization=True)
        return place

    return written


def stock_patches(place: Path, family: Family, size: int, x: torch.Tensor) -> torch.Tensor:
    """By timm alone: (b, n, width), row by row."""
    warnings.filterwarnings("ignore", module=r"timm\.")  # of how its own resampling calls torch
    more = {} if family.name.startswith(("convnext", "test_resnet", "naflex")) else {"img_size": size}
    model = timm.create_model(f"local-dir:{place}", pretrained=True, **more).eval()
    found = model.forward_features(x)
    if found.ndim == 4:
        rows = found if family.name.startswith("swin") else found.permute(0, 2, 3, 1)
        return rows.reshape(len(x), -1, rows.shape[-1])
    return found[:, family.prefix :]


@every_family()
@pytest.mark.parametrize("which", ["size", "other"])
def test_its_tokens_are_those_of_timm_at_every_size(folder: Any, family: str, which: str) -> None:
    """Loaded weights, embeddings resampled to this size, class and register tokens gone, row by row."""
    kind, place = FAMILIES[family], folder(family)
    size = getattr(kind, which)
    encoder = TimmImageEncoder(model=str(place), size=None if which == "size" else size).eval()
    x = torch.randn(2, 3, size, size)
    side = size // kind.stride
    assert (encoder.size, encoder.token_count) == (size, side * side)
    with torch.no_grad():
        tokens = encoder(x)
        expected = stock_patches(place, kind, size, x)
    assert tokens.values.shape == (2, side * side, encoder.width) == expected.shape
    assert_close(tokens.values, expected, torch.float32)
    assert encoder.loaded is not None
    assert encoder.loaded.complete
    assert encoder.loaded.share == 1
    assert encoder.pretrained


@every_family()
def test_its_images_are_normalised_as_it_was_trained(folder: Any, family: str) -> None:
    """By the numbers that timm lists for the family, which differ: CLIP's, ImageNet's, halves."""
    stock = timm.get_pretrained_cfg(FAMILIES[family].name)
    encoder = TimmImageEncoder(model=str(folder(family)), pretrained=False)
    colour = np.array([255, 51, 0], np.uint8)
    pixels = encoder.preprocessing(np.broadcast_to(colour, (30, 50, 3)).copy())
    assert pixels.shape == (3, FAMILIES[family].size, FAMILIES[family].size)
    expected = (torch.tensor([1, 0.2, 0]) - torch.tensor(stock.mean)) / torch.tensor(stock.std)
    assert_close(pixels.mean((1, 2)), expected, torch.float32)


@every_family()
def test_every_weight_reaches_the_patches(folder: Any, family: str) -> None:
    """Pooling heads are gone, and no weight is left that could not learn."""
    encoder = TimmImageEncoder(model=str(folder(family))).eval()
    values = encoder(torch.randn(2, 3, encoder.size, encoder.size)).values
    (values * torch.randn_like(values)).sum().backward()
    assert [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.any()] == []


@every_family()
def test_a_token_lies_where_it_says(folder: Any, family: str) -> None:
    """Of all cells of the picture, the one that `boxes` names moves a token most."""
    kind = FAMILIES[family]
    torch.manual_seed(0)
    encoder = TimmImageEncoder(model=str(folder(family)), pretrained=False).eval()
    side = encoder.size // kind.stride
    for token in (0, side - 1, side + 1, side * side - 2):
        x = torch.randn(1, 3, encoder.size, encoder.size, requires_grad=True)
        values = encoder(x).values[0, token]
        (gradient,) = torch.autograd.grad((values * torch.randn_like(values)).sum(), x)
        cells = (
            gradient[0]
            .square()
            .sum(0)
            .unfold(0, kind.stride, kind.stride)
            .unfold(1, kind.stride, kind.stride)
        )
        strongest = int(cells.sum((-1, -2)).flatten().argmax())
        row, column = divmod(strongest, side)
        box = torch.tensor([column, row, column + 1, row + 1]) / side
        assert_close(encoder.boxes[token], box, torch.float32)


# ---- what is found, and what is refused ------------------------------------------------------------


def cached(place: Path, cache: Path, repository: str, revision: str = "main") -> None:
    """Put a folder's files where huggingface_hub keeps what it fetched."""
    home = cache / f"models--{repository.replace('/', '--')}"
    (home / "refs").mkdir(parents=True, exist_ok=True)
    (home / "refs" / revision).write_text("abc")
    shutil.copytree(place, home / "snapshots" / "abc")


@pytest.mark.parametrize("written", ["hf-hub:owner/name", "hf_hub:owner/name@v2"])
def test_a_hub_id_is_a_folder_in_the_cache(
    folder: Any, tmp_path: Path, monkeypatch: Any, written: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    cached(folder("dinov3"), tmp_path, "owner/name", "v2" if "@" in written else "main")
    encoder, same = (TimmImageEncoder(model=m).eval() for m in (written, str(folder("dinov3"))))
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(encoder(x).values, same(x).values)
    with pytest.raises(AvalignError, match=r"owner/other: config\.json is not in the local cache"):
        TimmImageEncoder(model="hf-hub:owner/other")


def test_the_report_says_what_was_left_out_and_why(folder: Any, tmp_path: Path) -> None:
    """DINOv2's original holds a token for its pretraining and calls its registers otherwise."""
    place = folder("dinov2_registers")
    weights = load_file(place / "model.safetensors")
    weights["register_tokens"] = weights.pop("reg_token")
    weights["mask_token"] = torch.zeros(1, 32)
    # the original adds its class token's place to it, and has none for registers
    weights["pos_embed"] = torch.cat([torch.zeros(1, 1, 32), weights["pos_embed"]], dim=1)
    torch.save({"model": weights, "epoch": 3}, tmp_path / "dinov2.pth")
    encoder = TimmImageEncoder(model=str(place), checkpoint=str(tmp_path / "dinov2.pth")).eval()
    same = TimmImageEncoder(model=str(place)).eval()
    assert encoder.loaded is not None
    assert encoder.loaded.dropped["serves a pooled vector only"] == ("head.bias", "head.weight")
    (left,) = (names for why, names in encoder.loaded.dropped.items() if "conversion" in why)
    assert "mask_token" in left
    x = torch.randn(1, 3, 70, 70)
    with torch.no_grad():
        assert torch.equal(encoder(x).values, same(x).values)


def test_a_share_of_the_weights_can_be_enough(folder: Any, tmp_path: Path) -> None:
    """A run then keeps the whole encoder, as its random part can be had nowhere else."""
    weights = load_file(folder("mae") / "model.safetensors")
    lost = {name for name in weights if name.startswith("blocks.1.")}
    save_file({n: w for n, w in weights.items() if n not in lost}, tmp_path / "half.safetensors")
    options = {"model": str(folder("mae")), "checkpoint": str(tmp_path / "half.safetensors")}
    with pytest.raises(AvalignError, match=r"12 missing: blocks\.1\."):
        TimmImageEncoder(**options)
    with pytest.warns(UserWarning, match=r"stays as it was drawn at random. 12 missing: blocks\.1\."):
        encoder = TimmImageEncoder(**options, min_loaded=0.5)
    assert encoder.loaded is not None
    assert set(encoder.loaded.missing) == lost
    assert not encoder.pretrained
    assert torch.equal(encoder.model.blocks[0].mlp.fc1.weight, weights["blocks.0.mlp.fc1.weight"])


def test_openai_s_clip_under_another_activation_is_told(folder: Any) -> None:
    """timm computes GELU under the plain name of weights that were trained with QuickGELU."""
    place = folder("clip")
    settings = json.loads((place / "config.json").read_text())
    TimmImageEncoder(model=str(place))
    renamed = place.parent / "clip_gelu"
    shutil.copytree(place, renamed)
    settings["architecture"] = settings["architecture"].replace("quickgelu_", "")
    (renamed / "config.json").write_text(json.dumps(settings))
    with pytest.warns(UserWarning, match=r"tokens come from vit_base_patch16_clip_quickgelu_224\."):
        TimmImageEncoder(model=str(renamed))
    TimmImageEncoder(model=str(renamed), pretrained=False)


def rewrite(**changes: Any) -> Any:
    def damage(place: Path) -> None:
        settings = json.loads((place / "config.json").read_text())
        (place / "config.json").write_text(json.dumps({**settings, **changes}))

    return damage


@pytest.mark.parametrize(
    ("damage", "options", "said"),
    [
        (lambda p: (p / "config.json").unlink(), {}, "holds no config.json"),
        (lambda p: (p / "config.json").write_text("{"), {}, "config.json: is not JSON"),
        (lambda p: (p / "config.json").write_text('{"model_type": "clip"}'), {}, "image encoder 'clip'"),
        (lambda p: (p / "model.safetensors").unlink(), {}, "holds no model.safetensors or pytorch_model.bin"),
        (
            rewrite(architecture="vit_bas_patch16_224"),
            {},
            "no architecture 'vit_bas_patch16_224'. Did you mean",
        ),
        (rewrite(architecture="resnet18"), {}, "cannot build .*unexpected keyword"),
        (rewrite(model_args={"depth": 3, "img_size": 64, "embed_dim": 32, "num_heads": 2}), {}, "12 missing"),
        (rewrite(model_args={**SMALL_VIT, "img_size": [64, 128]}), {}, "64 x 128 px; set `size`"),
        (None, {"size": 70}, "patches of 16 px: set `size` to 64 or 80, not 70"),
        (None, {"size": 7}, "7 px"),
    ],
)
def test_a_folder_that_cannot_be_is_refused(
    folder: Any, tmp_path: Path, damage: Any, options: dict, said: str
) -> None:
    place = tmp_path / "mae"
    shutil.copytree(folder("mae"), place)
    if damage is not None:
        damage(place)
    with pytest.raises(AvalignError, match=said) as error:
        TimmImageEncoder(model=str(place), **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["crossvit_tiny_240", "hiera_tiny_224"])
def test_a_network_without_a_grid_is_refused(name: str) -> None:
    with pytest.raises(AvalignError, match="gives no grid of patch tokens"), torch.device("meta"):
        TimmImageEncoder(model=name, pretrained=False)
