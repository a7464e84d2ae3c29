"""The smallest model that is whole, samples for it, and a collator that needs no model at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from avalign.data.collate import Collator
from avalign.encoders.small import SmallAudioEncoder, SmallImageEncoder
from avalign.fusion.avace import AvaceAdapters
from avalign.llm import LanguageModel, SmallLlama
from avalign.model.model import AudioVisualLM
from avalign.projectors.linear import Linear
from avalign.types import Sample

RATE = 8_000  # Hz
SECONDS = 0.8  # four tokens of sound
SIZE = 24  # px, nine patches
WIDTH = 8
TEXTS = [
    "Where is the dog?",
    "[dog, 0.12, 0.34, 0.56, 0.78]",
    "When is it heard? [1.20, 2.64]",
    "True",
    "False",
]


def sample(seed: int = 0, **changes: Any) -> Sample:
    """One with everything, different for every seed."""
    rng = np.random.default_rng(seed)
    whole = Sample(
        f"zoo/{seed}",
        "arig",
        "<image><audio>Where is the dog?",
        "[dog, 0.12, 0.34, 0.56, 0.78]",
        image=rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8),
        audio=rng.normal(0, 0.1, round(SECONDS * RATE)).astype(np.float32),
        sample_rate=RATE,
        boxes=((0.12, 0.34, 0.56, 0.78),),
        intervals=((0.1, 0.6),),
        label="dog",
    )
    return replace(whole, **changes)


def spread(module: nn.Module, seed: int = 0) -> None:
    """Random values everywhere: a fresh model gives nearly the same logits whatever it is asked."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            weight += 0.2 * torch.randn(weight.shape, generator=random)


def small_llama(seed: int = 0) -> SmallLlama:
    torch.manual_seed(seed)
    llm = SmallLlama(TEXTS, hidden=16, layers=2, heads=2, feed=16)
    spread(llm, seed)
    return llm


def model(
    seed: int = 0, llm: LanguageModel | None = None, frames: int = 1, **parts: nn.Module
) -> AudioVisualLM:
    llm = small_llama(seed) if llm is None else llm
    torch.manual_seed(seed)
    given: dict[str, nn.Module] = {
        "image_encoder": SmallImageEncoder(size=SIZE, width=WIDTH),
        "audio_encoder": SmallAudioEncoder(sample_rate=RATE, seconds=SECONDS, mels=8, width=WIDTH),
        "image_projector": Linear(WIDTH, WIDTH),
        "audio_projector": Linear(WIDTH, WIDTH),
        "fusion": AvaceAdapters(WIDTH, seconds=SECONDS),
        "image_connector": Linear(WIDTH, llm.width),
        "audio_connector": Linear(WIDTH, llm.width),
        **parts,
    }
    return AudioVisualLM(**given, llm=llm, max_new_tokens=6, frames=frames).eval()  # type: ignore[arg-type]


IMAGE_ID, AUDIO_ID, END_ID, PAD_ID = -1, -2, 1, 0
IMAGE_TOKENS, AUDIO_TOKENS = 3, 2


class _Letters:
    def prompt_ids(self, text: str, image_tokens: int, audio_tokens: int) -> list[int]:
        ids = []
        for piece in text.replace("<image>", "\1").replace("<audio>", "\2"):
            ids += {"\1": [IMAGE_ID] * image_tokens, "\2": [AUDIO_ID] * audio_tokens}.get(piece, [ord(piece)])
        return ids

    def response_ids(self, text: str) -> list[int]:
        return [*map(ord, text), END_ID]


def _colour(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image.mean((0, 1)))


def _loudness(audio: np.ndarray, rate: int) -> Tensor:
    return torch.tensor([float(audio.std()), float(rate)])


def letters() -> Collator:
    """An id a letter; a picture is its mean colour, a sound its loudness and rate."""
    return Collator(
        image_preprocessing=_colour,
        audio_preprocessing=_loudness,
        seconds=SECONDS,
        chat=_Letters(),
        pad_id=PAD_ID,
        image_tokens=IMAGE_TOKENS,
        audio_tokens=AUDIO_TOKENS,
    )
