"""Worlds, and what was noted of their scenes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from avalign.data.avworld import AvWorld
from avalign.types import Sample

SPLITS = ("train", "val", "test")
CENT = 0.005 + 1e-9  # what rounding to two decimals moves a number by, at most
BY_CHANCE = 1e-3  # a fair draw fails a test at this level for one seed in a thousand; the seeds are fixed


def prepared(root: Path, seed: int = 0, workers: int = 1, **counts: int) -> AvWorld:
    source = AvWorld(**{"train": 20, "val": 20, "test": 20, **counts})
    source.prepare(str(root), seed=seed, workers=workers)
    return source


def scene_of(root: Path, split: str, sample: Sample) -> dict[str, Any]:
    """The scene as it stands in the cache."""
    (folder,) = root.glob(f"avworld-{split}-*")
    return json.loads((folder / "scenes.jsonl").read_text().splitlines()[sample.provenance["scene"]])


def drawn(
    source: AvWorld, root: Path, task: str, count: int = 160
) -> Iterator[tuple[Sample, dict[str, Any]]]:
    for split in ("train", "test"):
        for index in range(count):
            sample = source.sample(split, task, index)
            yield sample, scene_of(root, split, sample)


def alike(a: Sample, b: Sample) -> bool:
    media = np.array_equal(a.image, b.image) and np.array_equal(a.audio, b.audio)
    return media and replace(a, image=None, audio=None) == replace(b, image=None, audio=None)


def near(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return len(a) == len(b) and all(abs(x - y) <= CENT for x, y in zip(a, b, strict=True))


def files(root: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(root)): file.read_bytes() for file in sorted(root.rglob("*.*")) if file.is_file()
    }
