"""A few files with a manifest, a model that keeps features of them, and what its loaders open."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from avalign.data.manifest import Manifest
from avalign.data.manifest.record import Record, write
from avalign.data.sampling import TrainingDataset
from avalign.interfaces import Source
from avalign.media import read
from avalign.media.key import SETTLED
from avalign.model.feature_cache import FeatureCache
from avalign.model.model import AudioVisualLM
from avalign.types import Batch
from tests.helpers import tiny

COUNT, BATCH = 6, 3
PARTS = {"image_encoder", "audio_encoder"}


def settle() -> None:
    """Until another change of a file would have another time stamp."""
    time.sleep(1.5 * SETTLED)


def write_image(file: Path, seed: int) -> None:
    """Uncompressed: of the same size in bytes whatever it shows."""
    pixels = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file)


def write_audio(file: Path, seed: int) -> None:
    soundfile.write(file, np.random.default_rng(seed).uniform(-0.5, 0.5, tiny.RATE // 2), tiny.RATE)


def record(number: int, **changes: Any) -> Record:
    whole: dict[str, Any] = {
        "id": f"r{number}",
        "task": "avqa",
        "split": "train",
        "source": "made",
        "instruction": "<image><audio>What is it?",
        "response": "True",
        "image": f"{number}.bmp",
        "audio": f"{number}.wav",
        "audio_start": 0.1,
        "audio_end": 0.4 + 0.01 * number,
    }
    return Record(**whole | changes)


def write_corpus(folder: Path, records: list[Record] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    for number in range(COUNT):
        write_image(folder / f"{number}.bmp", number)
        write_audio(folder / f"{number}.wav", number)
    write([record(number) for number in range(COUNT)] if records is None else records, folder / "made.jsonl")
    settle()
    return folder


def opened(folder: Path) -> Manifest:
    source = Manifest()
    source.prepare(str(folder), seed=0)
    return source


def model_with(folder: Path | None, frames: int = 1, most: float = 1e9, **parts: Any) -> AudioVisualLM:
    """Of the same weights each time; its encoders are frozen."""
    model = tiny.model(frames=frames, **parts)
    model.learn({"llm"})
    if folder is not None:
        model.features = FeatureCache(folder, dtype="float32", most=most, options={})
    return model


@dataclass
class Step:
    """A batch, as plain values, and the tokens that the model made of it."""

    batch: Batch
    tokens: dict[str, Tensor]
    skipped: list[str]

    def same_truth(self, other: Step) -> bool:
        """All but image and audio."""
        return self.skipped == other.skipped and all(
            same_bytes(getattr(self.batch, name), getattr(other.batch, name))
            for name in (each.name for each in fields(Batch))
            if name not in ("image", "audio")
        )

    def same_media(self, other: Step) -> bool:
        return same_bytes(self.batch.image, other.batch.image) and same_bytes(
            self.batch.audio, other.batch.audio
        )

    def same_tokens(self, other: Step) -> bool:
        return all(same_bytes(self.tokens[name], other.tokens[name]) for name in self.tokens)


def same_bytes(one: Tensor, other: Tensor) -> bool:
    alike = (one.dtype, one.shape) == (other.dtype, other.shape)
    return alike and one.numpy().tobytes() == other.numpy().tobytes()


def draws_of(
    source: Source, model: AudioVisualLM, count: int = COUNT, task: str = "avqa", on_error: str = "raise"
) -> TrainingDataset:
    collator = model.collator()
    data = TrainingDataset(source, {task: 1.0}, seed=(0,), count=count, collator=collator, on_error=on_error)
    data.features = model.feature_reader()
    return data


def epoch(
    source: Source, model: AudioVisualLM, *, draws: dict[str, Any] | None = None, **loader: Any
) -> list[Step]:
    """What a stage does with its draws, as far as media go."""
    data = draws_of(source, model, **draws or {})
    made = []
    for found in DataLoader(data, batch_size=BATCH, collate_fn=data.collate, **loader):
        if "problem" in found:
            raise AssertionError(found["problem"])
        with torch.no_grad():
            image, audio, _ = model.encode(found["batch"])
        tokens = {"image": image.values, "image_mask": image.mask, "audio": audio.values}
        made.append(Step(found["batch"], tokens | {"audio_mask": audio.mask}, found["skipped"]))
    return made


def entries(folder: Path, ending: str = "safetensors") -> list[Path]:
    return sorted(folder.glob(f"*/*.{ending}"))


def _spy(note: Callable[[str], None]) -> Callable[..., None]:
    """In the place of what every reading of a media file begins with, whatever source calls it."""
    real = read.must_be_a_file

    def spy(path: Any) -> None:
        note(str(path))
        real(path)

    return spy


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were decoded in this process."""
    files: list[str] = []
    monkeypatch.setattr(read, "must_be_a_file", _spy(files.append))
    return files


def watch(log: str, worker: int) -> None:
    """A loader's worker_init_fn: a line in `log`, with the process, for each file that it decodes."""

    def note(path: str) -> None:
        with open(log, "a") as lines:
            lines.write(f"{os.getpid()} {path}\n")

    read.must_be_a_file = _spy(note)  # type: ignore[assignment]  (the process ends with the epoch)


def readings(log: Path) -> list[tuple[int, str]]:
    lines = log.read_text().splitlines() if log.exists() else []
    return [(int(line.split(" ", 1)[0]), line.split(" ", 1)[1]) for line in lines]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus")


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "features"


def assert_alike(steps: list[Step], others: list[Step], *, media: bool = False) -> None:
    for one, other in zip(steps, others, strict=True):
        assert one.same_truth(other)
        assert one.same_tokens(other)
        assert one.same_media(other) or not media
