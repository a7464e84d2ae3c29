"""Every registered component, and how it is built in a test.

It is built with its own defaults. One whose defaults ask for a download, a folder or much memory has its
smallest options in TINY.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from avalign import registry
from avalign.llm import SmallLlama
from tests.helpers.audio_encoders import TINY_AST, TINY_WAVEFORM, TINY_WHISPER
from tests.helpers.contract.tokens import DIM, DIM_OUT
from tests.helpers.manifests import write_manifest
from tests.helpers.paired_folder import LOOKS, write_folder
from tests.helpers.pretrained import TINY_CLAP, TINY_TOWER
from tests.helpers.shards import write_shards

TEXTS = [f"Which object makes the sound? [dog, 0.1{k}, 0.2{k}, 0.5{k}, 0.9{k}] True False" for k in range(10)]


def tiny_llama(folder: Path) -> str:
    """A model and its tokenizer in Hugging Face's format."""
    stock = SmallLlama(TEXTS, hidden=16, layers=1, heads=2)
    stock.lm.save_pretrained(folder / "llama")
    stock.tokenizer.save_pretrained(folder / "llama")
    return str(folder / "llama")


# What cannot be had with defaults in a test. Given a folder, the options; for a source, "root" besides.
TINY: dict[tuple[str, str], Callable[[Path], dict[str, Any]]] = {
    ("image_encoder", "timm"): lambda folder: {"model": "test_vit", "pretrained": False},
    ("image_encoder", "clip"): lambda folder: {"pretrained": False, "config": TINY_TOWER},
    ("audio_encoder", "clap"): lambda folder: {"pretrained": False, "config": TINY_CLAP},
    ("projector", "qformer"): lambda folder: {
        **{"queries": 4, "hidden": 16, "layers": 2, "heads": 2, "instruction": True, "time_aware": True},
    },
    ("audio_encoder", "laion_clap"): lambda folder: {"pretrained": False, "config": TINY_CLAP},
    ("audio_encoder", "ast"): lambda folder: {"pretrained": False, "config": TINY_AST},
    ("audio_encoder", "whisper"): lambda folder: {"pretrained": False, "config": TINY_WHISPER, "pool": 3},
    ("audio_encoder", "wav2vec2"): lambda folder: {"pretrained": False, **TINY_WAVEFORM, "pool": 3},
    ("llm", "huggingface"): lambda folder: {"model": tiny_llama(folder), "rank": 2, "dropout": 0.0},
    ("source", "avworld"): lambda folder: {"root": str(folder), "train": 40, "val": 20, "test": 20},
    ("source", "paired_folder"): lambda folder: {
        **{"root": str(write_folder(folder / "zoo")), "classes": list(LOOKS)},
        **{"seconds": 2.0, "canvas": 64, "sample_rate": 8000},
    },
    ("source", "manifest"): lambda folder: {"root": str(write_manifest(folder / "manifest"))},
    ("source", "shards"): lambda folder: {"root": str(write_shards(folder))},
}

# What build.py wires into each kind, beside its options.
WIRED: dict[str, tuple[Any, ...]] = {
    "image_encoder": (),
    "audio_encoder": (),
    "projector": (DIM, DIM_OUT),
    "fusion": (DIM,),
    "loss": (),
    "llm": (TEXTS,),
    "source": (),
    "dataset": (),
    "pairing": (),  # two pools, made in tests/test_avfit_pairing.py
}


def every(kind: str) -> Any:
    """Parametrises a test with all components of a kind."""
    return pytest.mark.parametrize("name", registry.names(kind))


EVERYTHING = [(kind, name) for kind in registry.SHIPPED for name in registry.names(kind)]
