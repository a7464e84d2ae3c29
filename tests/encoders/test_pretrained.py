"""timm's Vision Transformers and CLAP: the file's weights are the weights used, and tokens know their place.

Tiny models with random weights are written in the libraries' own formats and read back by path: no download.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from avalign.encoders.clap import ClapAudioEncoder
from avalign.encoders.timm import TimmImageEncoder
from avalign.errors import AvalignError
from avalign.weights.pretrained import hub_file
from tests.helpers.pretrained import (
    _offline,  # noqa: F401 (fixtures)
    save_vit,
)

# -- timm ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["test_vit", "test_vit2", "test_vit3", "test_vit4"]
)  # token, average, map pooling
def test_the_weights_of_the_file_are_the_weights_used(tmp_path: Path, name: str) -> None:
    """Every parameter equals the file's, and so does what comes out (fault 3: loaded and thrown away)."""
    stock = save_vit(tmp_path / "vit.safetensors", name)
    encoder = TimmImageEncoder(model=name, checkpoint=str(tmp_path / "vit.safetensors")).eval()
    assert encoder.pretrained
    saved = load_file(tmp_path / "vit.safetensors")
    for key, value in encoder.model.state_dict().items():
        torch.testing.assert_close(value, saved[key], msg=key)
    x = torch.randn(2, 3, 160, 160)
    tokens = encoder(x)
    torch.testing.assert_close(tokens.values, stock.forward_features(x)[:, stock.num_prefix_tokens :])
    assert tokens.values.shape == (2, encoder.token_count, encoder.width) == (2, 100, stock.num_features)
    assert tokens.mask.all()


@pytest.mark.parametrize("name", ["test_vit", "test_vit2", "test_vit3", "test_vit4"])
def test_every_parameter_reaches_the_tokens(name: str) -> None:
    encoder = TimmImageEncoder(model=name, pretrained=False)
    assert not encoder.pretrained
    encoder(torch.randn(1, 3, 160, 160)).values.square().sum().backward()
    assert [n for n, p in encoder.named_parameters() if p.grad is None] == []


def test_patches_are_row_by_row_from_the_top_left() -> None:
    """Painting the patch that `boxes` names changes that token most."""
    torch.manual_seed(0)
    encoder = TimmImageEncoder(model="test_vit", pretrained=False).eval()
    before = torch.zeros(1, 3, 160, 160)
    for token in (0, 7, 42, 99):
        left, top, right, bottom = (encoder.boxes[token] * 160).round().int().tolist()
        after = before.clone()
        after[:, :, top:bottom, left:right] = torch.randn(3, bottom - top, right - left)
        change = (encoder(after).values - encoder(before).values).norm(dim=-1)
        assert change.argmax().item() == token


def test_an_image_is_squeezed_and_normalised_as_the_model_wants() -> None:
    encoder = TimmImageEncoder(model="test_vit", pretrained=False)  # mean and std 0.5
    image = np.zeros((40, 100, 3), np.uint8)
    image[:, 50:] = 255
    x = encoder.preprocessing(image)
    assert x.shape == (3, 160, 160)
    assert x.dtype == torch.float32
    torch.testing.assert_close(x[:, :, :70], torch.full((3, 160, 70), -1.0))
    torch.testing.assert_close(x[:, :, 90:], torch.full((3, 160, 70), 1.0))


def test_another_size_has_another_grid_and_the_same_weights(tmp_path: Path) -> None:
    save_vit(tmp_path / "vit.safetensors")
    encoder = TimmImageEncoder(model="test_vit", checkpoint=str(tmp_path / "vit.safetensors"), size=96)
    assert encoder.token_count == 36
    assert encoder(encoder.preprocessing(np.zeros((5, 5, 3), np.uint8))[None]).values.shape == (1, 36, 64)
    saved = load_file(tmp_path / "vit.safetensors")
    torch.testing.assert_close(encoder.model.blocks[0].mlp.fc1.weight, saved["blocks.0.mlp.fc1.weight"])


def test_clip_vit_b_16_has_196_tokens_of_768() -> None:
    with torch.device("meta"):  # shapes only
        model = TimmImageEncoder(pretrained=False)
    assert (model.token_count, model.width, model.size) == (196, 768, 224)
    assert model.boxes.shape == (196, 4)


def rename(weights: dict[str, torch.Tensor]) -> None:
    weights["blocks.0.attn.qqq.weight"] = weights.pop("blocks.0.attn.qkv.weight")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda w: w.pop("blocks.1.norm1.weight"), "1 missing: blocks.1.norm1.weight"),
        (rename, "1 missing: blocks.0.attn.qkv.weight; 1 unexpected: blocks.0.attn.qqq.weight"),
        (lambda w: w.update({"norm.weight": torch.zeros(3)}), r"norm.weight \(3,\) for \(64,\)"),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path: Path, damage, said: str) -> None:
    file = tmp_path / "vit.safetensors"
    save_vit(file)
    weights = load_file(file)
    damage(weights)
    save_file(weights, file)
    with pytest.raises(AvalignError, match=said):
        TimmImageEncoder(model="test_vit", checkpoint=str(file))


def write_pickle(file: Path) -> None:
    torch.save([1, 2], file)


@pytest.mark.parametrize(
    ("name", "write", "said"),
    [
        ("vit.pth", write_pickle, "holds no set of named tensors"),
        ("vit.npz", lambda file: file.write_bytes(b"PK"), r"from \.safetensors, .* files only"),
        ("none.safetensors", lambda file: None, "no such file"),
        ("text.safetensors", lambda file: file.write_text("hello there"), "is not a safetensors file"),
    ],
)
def test_what_holds_no_weights_is_refused(tmp_path: Path, name: str, write, said: str) -> None:
    write(tmp_path / name)
    with pytest.raises(AvalignError, match=said):
        TimmImageEncoder(model="test_vit", checkpoint=str(tmp_path / name))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": "vit_base_patch61_clip_224"}, "Did you mean vit_base_patch16_clip_224"),
        ({"model": "vit_base_patch16_clip_224.opnai"}, r"vit_base_patch16_clip_224\.openai"),
        ({"model": "test_resnet", "size": 70, "pretrained": False}, "set `size` to 64 or 96, not 70"),
    ],
)
def test_a_model_that_cannot_be_is_refused(options: dict, said: str) -> None:
    with pytest.raises(AvalignError, match=said):
        TimmImageEncoder(**options)


# -- the hub -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "build", [lambda: TimmImageEncoder(model="test_vit"), lambda: ClapAudioEncoder()], ids=["timm", "clap"]
)
def test_offline_says_how_to_get_the_weights(build) -> None:
    with pytest.raises(AvalignError, match=r"HF_HUB_OFFLINE is set.*hf download .*pretrained: false"):
        build()


def test_an_unreachable_hub_is_told_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(AvalignError, match=r"127\.0\.0\.1:9 does not answer.*hf download timm/vit"):
        hub_file("timm/vit", "model.safetensors")
    assert time.monotonic() - start < 10


def test_a_cached_file_is_used_without_asking(tmp_path: Path) -> None:
    repository = tmp_path / "empty_cache" / "models--owner--name"
    (repository / "snapshots" / "abc").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    (repository / "snapshots" / "abc" / "model.safetensors").write_bytes(b"x")
    assert hub_file("owner/name", "config.json", "model.safetensors").read_bytes() == b"x"
