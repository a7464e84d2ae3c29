"""Audio encoders small enough for tests, and what they are given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

RATE = 16_000  # Hz


TINY_AST: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_length": 128,  # 1.28 s, 12 steps
    "num_mel_bins": 32,  # 2 bands
}


TINY_WHISPER: dict[str, Any] = {
    "d_model": 16,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "num_mel_bins": 16,
    "max_source_positions": 50,  # 1 s
}


TINY_WAVEFORM: dict[str, Any] = {
    "seconds": 1.0,
    "config": {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "conv_dim": [8] * 7,
        "num_conv_pos_embeddings": 8,
        "num_conv_pos_embedding_groups": 2,
    },
}


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE)) + 0.02).astype(
        np.float32
    )


def stirred(model: Any) -> Any:
    """Norms and biases too, so that nothing is right by being at its default."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=generator)
    return model.eval()


def tokens(encoder: Any, *heard: np.ndarray) -> Any:
    waves = torch.stack([encoder.preprocessing(audio, RATE) for audio in heard])
    with torch.no_grad():
        return encoder.eval()(waves, torch.tensor([len(audio) / RATE for audio in heard]))


def configure(folder: Path, file: str, **changes: Any) -> None:
    fields = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**fields, **changes}))
