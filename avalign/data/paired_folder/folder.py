"""A folder of annotated photographs and recordings: checked, decoded once, pooled by split and class.

annotations.json holds two lists (boxes are in pixels of the file as stored, or
as EXIF turns it where width and height say so):
    images: {"file", "width", "height", "split", "boxes": [{"class", "xyxy", "difficult"?}], "group"?}
    audio:  {"file", "split", "sound", "class" (of the images, or null), "group"?}
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from avalign.answers import Box
from avalign.errors import AvalignError
from avalign.media.file import MediaError
from avalign.media.image import stored_frame, turned
from avalign.media.links import below
from avalign.media.read import read_audio, read_image
from avalign.media.resample import resample
from avalign.types import SPLITS

FRAME = 0.02  # s, of the loudness profile
SILENT = 1e-4  # RMS of a frame, full scale 1: -80 dB
QUIET = 10 ** (-25 / 20)  # a frame 25 dB below the loudest one is a pause
SMALLEST = 0.02  # of the photograph's area: a class must have a box at least this large
T = TypeVar("T")
R = TypeVar("R")
Find = Callable[[str], Path]


@dataclass(frozen=True)
class Photo:
    """pixels (h, w, 3) uint8; boxes of its one class, in 0..1 of it."""

    file: str
    pixels: np.ndarray
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class Recording:
    """samples (n,) int16 with the silence at both ends cut off; loudness (frames,) RMS of each 20 ms."""

    file: str
    audio_name: str
    samples: np.ndarray
    loudness: np.ndarray


@dataclass
class Pool:
    """A split's photographs and recordings of each class, and its recordings of sounds without a class."""

    photos: dict[str, list[Photo]] = field(default_factory=lambda: defaultdict(list))
    recordings: dict[str, list[Recording]] = field(default_factory=lambda: defaultdict(list))
    strangers: dict[str, list[Recording]] = field(default_factory=lambda: defaultdict(list))

    @property
    def classes(self) -> list[str]:
        """Those that can be both seen and heard in this split."""
        return sorted(c for c in self.photos if self.photos[c] and self.recordings.get(c))


def find_folder(root: str | None) -> Path:
    """The folder with annotations.json: `root` or its avmini/, else the same of AVALIGN_DATA."""
    named = root if root is not None else os.environ.get("AVALIGN_DATA")
    if not named:
        raise AvalignError(
            "paired_folder: no data folder. Give data.root=FOLDER, or set AVALIGN_DATA to one that holds "
            "annotations.json or avmini/annotations.json."
        )
    for folder in (Path(named), Path(named) / "avmini"):
        if (folder / "annotations.json").is_file():
            return folder
    option = "data.root" if root is not None else "AVALIGN_DATA"
    raise AvalignError(f"{option} {named}: no annotations.json in it or in its avmini/.")


def read_folder(
    folder: Path,
    *,
    classes: list[str] | None,
    leave_out: Iterable[str],
    least_photos: int,
    side: int,
    sample_rate: int,
    workers: int,
    follow_links: bool,
    report: Callable[[MediaError], None],
) -> dict[str, Pool]:
    """Decode all that is of use. `report` gets each problem: it raises, or the file is left out.

    classes: None for those with sounds and `least_photos` usable training photographs
    side:    px; larger photographs are shrunk to it
    """
    images, audio = _annotations(folder / "annotations.json")
    _refuse_leaks(folder, images, audio)
    audible = {a["class"] for a in audio if a["class"] is not None}
    if classes is None:
        candidates = {b["class"] for i in images for b in i["boxes"]} & audible
        training = [_class_of(i, candidates) for i in images if i["split"] == "train"]
        classes = sorted(c for c in candidates if training.count(c) >= least_photos)
        if not classes:
            raise AvalignError(
                f"{folder}: no class has a sound and {least_photos} training photographs; give `classes`."
            )
    visible = {b["class"] for i in images for b in i["boxes"]}
    for name in classes:
        if name not in visible & audible:
            lacks = "photographs" if name not in visible else "sounds"
            raise AvalignError(
                f"{folder}: class '{name}' has no {lacks}. With both: {', '.join(sorted(visible & audible))}."
            )
    chosen = set(classes)
    images = [i for i in images if _class_of(i, chosen) is not None]
    leave = set(leave_out)
    audio = [a for a in audio if a["sound"] not in leave and (a["class"] in chosen or a["class"] is None)]

    pools = {split: Pool() for split in SPLITS}
    find = partial(below, folder, follow_links=follow_links)
    photos = _each(images, lambda i: _photo(find, i, chosen, side), workers, report)
    for entry, photo in photos:
        pools[entry["split"]].photos[_class_of(entry, chosen) or ""].append(photo)
    for entry, recording in _each(audio, lambda a: _recording(find, a, sample_rate), workers, report):
        pool = pools[entry["split"]]
        by = pool.strangers if entry["class"] is None else pool.recordings
        by[entry["sound"] if entry["class"] is None else entry["class"]].append(recording)
    return pools


def _each(
    entries: list[T], read: Callable[[T], R], workers: int, report: Callable[[MediaError], None]
) -> list[tuple[T, R]]:
    """`read` of every entry in their order, on `workers` threads (decoders release Python's lock)."""

    def attempt(entry: T) -> R | MediaError:
        try:
            return read(entry)
        except MediaError as error:
            return error

    done = []
    with ThreadPoolExecutor(max(1, workers)) as threads:
        for entry, result in zip(entries, threads.map(attempt, entries), strict=True):
            if isinstance(result, MediaError):
                report(result)
            else:
                done.append((entry, result))
    return done


# -- annotations -----------------------------------------------------------------------------------------


def _annotations(file: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise AvalignError(f"{file}: cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise AvalignError(f"{file}: is not a mapping with 'images' and 'audio'.")
    needed = {
        "images": ("file", "width", "height", "split", "boxes"),
        "audio": ("file", "split", "sound", "class"),
    }
    for part, keys in needed.items():
        if not isinstance(content.get(part), list):
            raise AvalignError(f"{file}: has no list '{part}'.")
        for number, entry in enumerate(content[part]):
            location = f"{file}: {part}[{number}]"
            if not isinstance(entry, dict):
                raise AvalignError(f"{location} is not a mapping.")
            for key in keys:
                if key not in entry:
                    raise AvalignError(f"{location} ({entry.get('file', '?')}) has no '{key}'.")
            if not isinstance(entry["file"], str):
                raise AvalignError(f"{location}: file is {entry['file']!r}, not the path of one.")
            if entry["split"] not in SPLITS:
                said = f"{location} ({entry['file']}) is of split '{entry['split']}'"
                raise AvalignError(f"{said}. Known: {', '.join(SPLITS)}.")
            for box in entry.get("boxes", ()):
                if not isinstance(box, dict) or "class" not in box or len(box.get("xyxy", ())) != 4:
                    raise AvalignError(
                        f"{location} ({entry['file']}) has a box without 'class' or four 'xyxy'."
                    )
    return content["images"], content["audio"]


def _refuse_leaks(folder: Path, *parts: list[dict[str, Any]]) -> None:
    """No file, and no group of near duplicates, may stand in two splits."""
    for entries in parts:
        for key in ("file", "group"):
            split_of: dict[str, str] = {}
            for entry in entries:
                if key in entry and split_of.setdefault(entry[key], entry["split"]) != entry["split"]:
                    raise AvalignError(
                        f"{folder / 'annotations.json'}: {key} '{entry[key]}' is in both "
                        f"{split_of[entry[key]]} and {entry['split']}."
                    )


def _class_of(image: dict[str, Any], classes: set[str]) -> str | None:
    """The one class of `classes` on the photograph, or None: none, several, or too small to point at."""
    boxes = [b for b in image["boxes"] if b["class"] in classes and not b.get("difficult")]
    if len({b["class"] for b in boxes}) != 1:
        return None
    return str(boxes[0]["class"]) if any(_share(b, image) >= SMALLEST for b in boxes) else None


def _share(box: dict[str, Any], image: dict[str, Any]) -> float:
    """Of the photograph's area."""
    left, top, right, bottom = box["xyxy"]
    return abs((right - left) * (bottom - top)) / (image["width"] * image["height"])


# -- decoding --------------------------------------------------------------------------------------------


def _photo(find: Find, entry: dict[str, Any], classes: set[str], side: int) -> Photo:
    file = find(entry["file"])
    pixels = read_image(file)
    orientation, (width, height) = stored_frame(file)  # what boxes are counted in; the image is upright
    stated = (entry["width"], entry["height"])
    if stated == (height, width) == pixels.shape[1::-1]:  # annotated as seen, and the size proves it
        orientation, (width, height) = 1, stated
    if stated != (width, height):
        raise MediaError(file, f"is {width} x {height} px, annotations.json says {stated[0]} x {stated[1]}")
    boxes = []
    for box in entry["boxes"]:
        if box["class"] in classes and not box.get("difficult"):
            left, top, right, bottom = (float(x) for x in box["xyxy"])
            inside = -0.5 <= left < right <= width + 0.5 and -0.5 <= top < bottom <= height + 0.5
            if not inside:  # half a pixel of rounding is let through; NaN is not
                numbers = ", ".join(f"{x:g}" for x in (left, top, right, bottom))
                raise MediaError(file, f"box [{numbers}] is empty or outside the {width} x {height} px")
            if _share(box, entry) >= SMALLEST:
                corners = (left / width, top / height, right / width, bottom / height)
                boxes.append(turned(clip_box(corners, (0.0, 0.0, 1.0, 1.0)), orientation))
    height, width = pixels.shape[:2]
    if max(height, width) > side:
        from PIL import Image

        scale = side / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
    return Photo(entry["file"], pixels, tuple(boxes))


def _recording(find: Find, entry: dict[str, Any], sample_rate: int) -> Recording:
    file = find(entry["file"])
    audio, rate = read_audio(file)
    audio = resample(audio, rate, sample_rate)
    frame = round(FRAME * sample_rate)
    audio = np.pad(audio, (0, -len(audio) % frame))
    loudness = np.sqrt(np.square(audio).reshape(-1, frame).mean(axis=1))
    if loudness.max() < SILENT:
        raise MediaError(file, "is silent from end to end")
    first, last = loud_segment(loudness)
    audio, loudness = audio[first * frame : last * frame], loudness[first:last]
    audio = audio / max(1.0, float(np.abs(audio).max()))
    return Recording(entry["file"], entry["sound"], np.round(audio * 32767).astype(np.int16), loudness)


def clip_box(box: Box, frame: Box) -> Box:
    """The part of `box` inside `frame`."""
    return (max(box[0], frame[0]), max(box[1], frame[1]), min(box[2], frame[2]), min(box[3], frame[3]))


def loud_segment(loudness: np.ndarray) -> tuple[int, int]:
    """From the first to behind the last frame that is no pause."""
    loud = np.flatnonzero(loudness >= float(loudness.max()) * QUIET)
    return int(loud[0]), int(loud[-1]) + 1
