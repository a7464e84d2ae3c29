"""Small encoders as released ones are saved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

TINY_CLAP = {  # the grid of the stock model (2 bands x 32 steps) from a picture of 64 x 64
    "spec_size": 64,
    "num_mel_bins": 16,
    "depths": [1, 1],
    "num_attention_heads": [2, 2],
    "patch_embeds_hidden_size": 16,
    "hidden_size": 32,
    "aff_block_r": 1,
}


def spread(module: torch.nn.Module) -> None:
    """Random values everywhere: norms and biases too, so that nothing is right by being at its default."""
    torch.manual_seed(7)
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            tensor.data = 0.1 * torch.randn_like(tensor).abs() + 0.01


def save_vit(file: Path, name: str = "test_vit", **options: int) -> torch.nn.Module:
    model = timm.create_model(name, **options).eval()
    spread(model)
    save_file(model.state_dict(), file)
    return model


def noise(seconds: float, rate: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * rate))).astype(np.float32)


TINY_TOWER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 64,
    "patch_size": 16,
}


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty_cache"))
