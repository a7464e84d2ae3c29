"""Records and media of manifests to be checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from avalign.answers import write_box, write_interval
from avalign.data.manifest.record import Record

soundfile = pytest.importorskip("soundfile")


RATE = 16_000


BOX = (0.1, 0.2, 0.5, 0.9)


SPAN = (0.25, 0.75)


def noise(seconds: float = 2.0, loud: float = 0.1, seed: int = 0) -> np.ndarray:
    """White to the highest frequency, as recorded sound is."""
    return (loud * np.random.default_rng(seed).uniform(-1, 1, round(seconds * RATE))).astype(np.float32)


def sound(file: Path, samples: np.ndarray, rate: int = RATE) -> None:
    soundfile.write(file, samples, rate, subtype="PCM_16" if file.suffix != ".ogg" else None)


def picture(file: Path, width: int = 64, height: int = 48, seed: int = 0) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(file)


def sample(task: str, **fields: Any) -> Record:
    made: dict[str, Any] = {
        "arig": {"response": write_box(BOX, "dog"), "boxes": (BOX,), "label": "dog"},
        "igatl": {"response": write_interval(SPAN), "intervals": (SPAN,), "label": "dog"},
        "avfc": {
            "response": "True",
            "kind": "type3",
            "instruction": "<image><audio>Is the <class> in <box> heard in <time>?",
            "slots": {"class": "dog", "box": list(BOX), "time": list(SPAN)},
        },
        "avqa": {"kind": "what", "response": "dog", "instruction": "<image><audio>What is it?"},
        "avcap": {"response": "a dog barks", "references": ("barking",)},
    }[task]
    common = {"id": task, "split": "test", "source": "made", "image": "a.png", "audio": "a.wav"}
    common |= {"provenance": {"origins": ["video-1"]}}
    return Record(task=task, **(common | made | fields))


def counts(report: dict[str, Any]) -> dict[str, int]:
    return {finding["code"]: finding["count"] for finding in report["findings"]}
