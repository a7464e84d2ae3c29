"""A folder of five classes, each a colour to see and a tone to hear, so that truth can be checked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image

from avalign.data.paired_folder import PairedFolder
from avalign.types import Sample

RATE = 8_000
LOOKS = {  # colour of the object, pitch in Hz
    "ant": ((255, 0, 0), 400),
    "bee": ((0, 255, 0), 700),
    "cub": ((0, 0, 255), 1100),
    "doe": ((255, 255, 0), 1700),
    "elk": ((255, 0, 255), 2500),
}
STRANGE = 3300  # Hz, of a sound without a class
SPLITS = ("train", "val", "test")


def tone(hertz: float, seconds: float = 0.7) -> np.ndarray:
    return 0.4 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)


def write_photo(folder: Path, file: str, name: str, split: str, number: int) -> dict[str, Any]:
    """A black photograph with an object in the class's colour, left of the middle."""
    left, top, right, bottom = 6 + number, 10, 20 + number, 34
    pixels = np.zeros((40, 48, 3), np.uint8)
    pixels[top:bottom, left:right] = LOOKS[name][0]
    Image.fromarray(pixels).save(folder / file)
    box = {"class": name, "xyxy": [left, top, right, bottom], "difficult": 0}
    return {"file": file, "width": 48, "height": 40, "split": split, "group": file, "boxes": [box]}


def write_folder(folder: Path) -> Path:
    """2 photographs a class and split; 1 recording, but 6 of the first class in training."""
    (folder / "images").mkdir(parents=True)
    (folder / "audio").mkdir()
    images: list[dict[str, Any]] = []
    audio: list[dict[str, Any]] = []

    def add_sound(sound: str, of: str | None, split: str, number: int, hertz: float) -> None:
        file = f"audio/{sound}_{split}_{number}.wav"
        soundfile.write(folder / file, tone(hertz), RATE)
        audio.append({"file": file, "sound": sound, "class": of, "split": split, "group": file})

    for split in SPLITS:
        for name, (_, hertz) in LOOKS.items():
            images += [
                write_photo(folder, f"images/{name}_{split}_{k}.png", name, split, k) for k in range(2)
            ]
            for k in range(6 if (name, split) == ("ant", "train") else 1):
                add_sound(name, name, split, k, hertz)
        add_sound("siren", None, split, 0, STRANGE)
    (folder / "annotations.json").write_text(json.dumps({"images": images, "audio": audio}))
    return folder


def prepared(folder: Path, seed: int = 0, on_error: str = "raise", **options: Any) -> PairedFolder:
    defaults = {"classes": list(LOOKS), "seconds": 3.0, "sample_rate": RATE, "canvas": 96}
    source = PairedFolder(**{**defaults, **options})
    source.on_error = on_error  # type: ignore[assignment]
    source.prepare(str(folder), seed=seed, workers=1)
    return source


def coloured(image: np.ndarray, name: str) -> np.ndarray:
    """(h, w) bool: pixels in the class's colour, as far as resizing leaves it."""
    return np.abs(image.astype(int) - LOOKS[name][0]).max(axis=2) < 60


def heard_hertz(audio: np.ndarray, interval: tuple[float, float]) -> float:
    clip = audio[round(interval[0] * RATE) : round(interval[1] * RATE)]
    return float(np.argmax(np.abs(np.fft.rfft(clip))) * RATE / len(clip))


def classes_shown(sample: Sample) -> list[str]:
    return list(sample.provenance["photos"].values())


def edited(tmp_path: Path, change: Callable[[dict], None] | None = None) -> Path:
    """A fresh folder whose annotations `change` was let at."""
    folder = write_folder(tmp_path / "zoo")
    file = folder / "annotations.json"
    annotations = json.loads(file.read_text())
    if change is not None:
        change(annotations)
    file.write_text(json.dumps(annotations))
    return folder
