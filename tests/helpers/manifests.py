"""Manifests of a few records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from avalign.answers import write_box, write_interval
from avalign.data.manifest import Manifest
from avalign.data.manifest.record import Record, write
from avalign.types import TASKS
from tests.helpers.videos import RATE, beeps, write_video

RESPONSES = {
    "arig": write_box((0.1, 0.2, 0.5, 0.9), "dog"),
    "igatl": write_interval((0.25, 0.75)),
    "avfc": "True",
    "avqa": "dog",
    "avcap": "a dog barks on a lawn",
}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVALIGN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def opened(root: Path, seed: int = 0, **options: Any) -> Manifest:
    source = Manifest(**options)
    source.prepare(str(root), seed=seed)
    return source


def records(count: int = 8) -> list[Record]:
    """`count` of each task and split, on one picture, one video and one recording."""
    return [
        Record(
            id=f"{split}-{task}-{k}",
            task=task,
            split=split,
            source="made",
            instruction=f"<image><audio>Question {k}?",
            response=RESPONSES[task],
            image="clip.mp4" if k % 2 else "pictures/a.png",
            frame_times=(0.2 * (1 + k),) if k % 2 else (),
            audio="a.wav" if k % 3 else "clip.mp4",
            audio_start=0.02 * (row := count * (5 * s + t) + k),
            audio_end=0.02 * row + 1.5,
            references=("a dog barks",) if task == "avcap" else (),
            boxes=((0.1, 0.2, 0.5, 0.9),) if task == "arig" else (),
            intervals=((0.25, 0.75),) if task == "igatl" else (),
            label="dog",
            kind={"avfc": "type1", "avqa": "sounding"}.get(task),
            provenance={"video": f"-{k}", "frames": [k, k + 1]},
        )
        for s, split in enumerate(("train", "val", "test"))
        for t, task in enumerate(TASKS)
        for k in range(count)
    ]


def write_manifest(folder: Path, made: list[Record] | None = None) -> Path:
    """A manifest and its media."""
    import soundfile

    (folder / "pictures").mkdir(parents=True)
    Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(folder / "pictures" / "a.png")
    soundfile.write(folder / "a.wav", beeps(), RATE)
    write_video(folder / "clip.mp4", beeps())
    write(records() if made is None else made, folder / "made.jsonl")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("manifest"))
