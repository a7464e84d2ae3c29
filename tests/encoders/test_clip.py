"""CLIP's vision tower in transformers' format: the file's weights, and the same tokens as timm's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPVisionConfig, CLIPVisionModel

from avalign.encoders.clip import STOCK, ClipImageEncoder
from avalign.encoders.timm import TimmImageEncoder
from avalign.errors import AvalignError
from tests.helpers.pretrained import TINY_TOWER
from tests.helpers.strategies import quick, seeds
from tests.helpers.tolerances import assert_close

TINY_TEXT = {
    "vocab_size": 20,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
WHOLE = {"vision_config": TINY_TOWER, "text_config": TINY_TEXT, "projection_dim": 8}
TO_TIMM = {  # transformers' name of a weight, as timm has it
    "embeddings.patch_embedding": "patch_embed.proj",
    "pre_layrnorm": "norm_pre",
    "post_layernorm": "norm",
    "encoder.layers": "blocks",
    "self_attn.out_proj": "attn.proj",
    "layer_norm": "norm",
}


def save(folder: Path, seed: int = 0, **changes: Any) -> CLIPModel:
    torch.manual_seed(seed)
    model = CLIPModel(CLIPConfig(**{**WHOLE, **changes})).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.1 * torch.randn_like(weight)
    model.save_pretrained(folder)
    CLIPImageProcessor(image_mean=[0.1, 0.2, 0.3], image_std=[0.5, 0.6, 0.7]).save_pretrained(folder)
    return model


def as_timm(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A vision tower's weights under timm's names."""
    found: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        for old, new in TO_TIMM.items():
            name = name.replace(old, new)
        found[name] = weight
    found["cls_token"] = found.pop("embeddings.class_embedding")[None, None]
    found["pos_embed"] = found.pop("embeddings.position_embedding.weight")[None]
    for k in range(TINY_TOWER["num_hidden_layers"]):
        for part in ("weight", "bias"):
            three = [found.pop(f"blocks.{k}.self_attn.{p}_proj.{part}") for p in "qkv"]
            found[f"blocks.{k}.attn.qkv.{part}"] = torch.cat(three)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("clip")
    save(place)
    return place


@pytest.mark.parametrize("size", [64, 80, 160])
def test_its_tokens_are_those_of_timm_at_every_size(folder: Path, tmp_path: Path, size: int) -> None:
    """The same weights in both formats: the same tokens to 1e-5, resampled embeddings included."""
    timm_folder = tmp_path / "timm"
    architecture = "vit_base_patch16_clip_quickgelu_224"
    args = {"img_size": 64, "embed_dim": 32, "depth": 2, "num_heads": 2, "mlp_ratio": 2.0}
    settings = {"architecture": architecture, "model_args": args}
    stock = timm.get_pretrained_cfg(f"{architecture}.openai").to_dict(remove_null=True)
    settings["pretrained_cfg"] = {**stock, "input_size": (3, 64, 64)}
    timm_folder.mkdir()
    (timm_folder / "config.json").write_text(json.dumps(settings))
    inside = "vision_model."
    weights = load_file(folder / "model.safetensors")
    tower = {n.removeprefix(inside): w for n, w in weights.items() if n.startswith(inside)}
    save_file(as_timm(tower), timm_folder / "model.safetensors")

    ours = ClipImageEncoder(model=str(folder), size=size).eval()
    theirs = TimmImageEncoder(model=str(timm_folder), size=size).eval()
    assert (ours.token_count, ours.width, ours.size) == (theirs.token_count, theirs.width, theirs.size)
    assert torch.equal(ours.boxes, theirs.boxes)
    x = torch.randn(3, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(ours(x).values, theirs(x).values, rtol=0, atol=1e-5)


@quick
@given(seed=seeds)
def test_the_weights_of_the_file_are_the_weights_used(tmp_path_factory: Any, seed: int) -> None:
    """Tokens are transformers' own last hidden states, normed as its class token is."""
    place = tmp_path_factory.mktemp("clip")
    stock = save(place, seed)
    encoder = ClipImageEncoder(model=str(place)).eval()
    x = torch.randn(2, 3, 64, 64)
    tower = stock.vision_model
    with torch.no_grad():
        last = tower(pixel_values=x).last_hidden_state
        assert_close(encoder(x).values, tower.post_layernorm(last[:, 1:]), torch.float32)
    assert encoder.pretrained
    assert encoder.loaded is not None
    assert encoder.loaded.keys == encoder.loaded.keys_wanted == len(tower.state_dict())


def test_the_tower_alone_is_read_as_well_and_older_names(folder: Path, tmp_path: Path) -> None:
    whole = ClipImageEncoder(model=str(folder)).eval()
    tower = CLIPVisionModel(CLIPVisionConfig(**TINY_TOWER))
    tower.load_state_dict(whole.model.state_dict())
    tower.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    # as transformers 4 wrote them
    older = {f"vision_model.{name.removeprefix('vision_model.')}": w for name, w in weights.items()}
    older["vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    (tmp_path / "model.safetensors").unlink()
    torch.save(older, tmp_path / "pytorch_model.bin")
    alone = ClipImageEncoder(model=str(tmp_path)).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(whole(x).values, alone(x).values)
    assert whole.loaded is not None
    assert alone.loaded is not None
    assert [name for names in alone.loaded.dropped.values() for name in names] == [
        "vision_model.embeddings.position_ids"
    ]
    left = whole.loaded.dropped
    assert "visual_projection.weight" in left["serves the pooled vector only"]
    assert all("text" in name for name in left["is the text tower"])


def test_images_are_normalised_as_the_folder_says(folder: Path) -> None:
    encoder = ClipImageEncoder(model=str(folder), size=32)
    image = np.zeros((10, 20, 3), np.uint8)
    image[:, 10:] = 255
    pixels = encoder.preprocessing(image)
    assert pixels.shape == (3, 32, 32)
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.6, 0.7])
    assert_close(pixels[:, 0, 0], -mean / std, torch.float32)
    assert_close(pixels[:, 0, -1], (1 - mean) / std, torch.float32)
    stock = timm.get_pretrained_cfg("vit_base_patch16_clip_224.openai")
    black = ClipImageEncoder(pretrained=False, config=TINY_TOWER).preprocessing(np.zeros((9, 9, 3), np.uint8))
    assert_close(black[:, 0, 0], -torch.tensor(stock.mean) / torch.tensor(stock.std), torch.float32)


@pytest.mark.parametrize("model", STOCK)
def test_openai_s_models_have_the_shapes_that_timm_knows(model: str) -> None:
    """Every one by its hub id, on the meta device, without asking the hub."""
    size, patch, base = ("336" if "336" in model else "224"), model.split("patch")[1][:2], "base" in model
    name = f"vit_{'base' if base else 'large'}_patch{patch}_clip_quickgelu_{size}"
    with torch.device("meta"):
        ours = ClipImageEncoder(model=model, pretrained=False)
        theirs = TimmImageEncoder(model=name, pretrained=False)
    assert (ours.token_count, ours.width, ours.size) == (theirs.token_count, theirs.width, theirs.size)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


def write(name: str, text: str) -> Any:
    return lambda place: (place / name).write_text(text)


def reweigh(change: Any) -> Any:
    def damage(place: Path) -> None:
        weights = load_file(place / "model.safetensors")
        change(weights)
        save_file(weights, place / "model.safetensors")

    return damage


FIRST = "vision_model.encoder.layers.0.mlp.fc1.bias"


@pytest.mark.parametrize(
    ("damage", "options", "said"),
    [
        (write("config.json", "{"), {}, "config.json: is not JSON"),
        (write("config.json", '{"model_type": "bert"}'), {}, "is not the configuration of a CLIP model"),
        (write("config.json", '{"architecture": "vit_base_patch16_224"}'), {}, "image encoder 'timm'"),
        (write("config.json", json.dumps({"model_type": "clip_vision_model", "patch_size": "x"})),
         {}, "config.json: is no configuration of a CLIP tower"),
        (lambda p: (p / "model.safetensors").unlink(), {}, "holds no model.safetensors or pytorch_model.bin"),
        (reweigh(lambda w: w.pop(FIRST)), {}, "1 missing: encoder.layers.0.mlp.fc1.bias"),
        (reweigh(lambda w: w.update({"vision_model.x": torch.zeros(2)})), {}, "1 unexpected: x"),
        (reweigh(lambda w: w[FIRST].fill_(torch.nan)), {}, "1 tensor holds nan or infinity: encoder"),
        (reweigh(lambda w: w.update({FIRST: torch.zeros(3)})), {}, r"fc1.bias \(3,\) for \(64,\)"),
        (lambda p: None, {"size": 70}, "patches of 16 px: set `size` to 64 or 80, not 70"),
        (lambda p: None, {"size": 7}, "patches of 16 px: set `size` to 16, not 7"),
        (lambda p: None, {"config": TINY_TOWER}, "needs `pretrained: false`"),
        (lambda p: None, {"config": {"patchsize": 3}, "pretrained": False}, "Did you mean 'patch_size'"),
    ],
)  # fmt: skip
def test_a_folder_that_does_not_fit_is_refused(tmp_path: Path, damage: Any, options: dict, said: str) -> None:
    save(tmp_path)
    damage(tmp_path)
    with pytest.raises(AvalignError, match=said) as error:
        ClipImageEncoder(model=str(tmp_path), **options)
    assert "\n" not in str(error.value)


def test_offline_says_how_to_get_the_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        AvalignError, match=r"HF_HUB_OFFLINE is set.*hf download openai/clip-vit-base-patch16"
    ):
        ClipImageEncoder()
    with pytest.raises(AvalignError, match="no such folder, and no hub id"):
        ClipImageEncoder(model="./nowhere")
