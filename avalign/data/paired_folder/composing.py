"""Scenes from photographs and recordings: where each lies is sampled first, pixels and samples follow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avalign.answers import Box, Interval
from avalign.data.paired_folder.folder import FRAME, Photo, Recording, clip_box, loud_segment

LOUDNESS = 0.1  # RMS of a recording in a scene, full scale 1
EDGE = 0.005  # s, fade at both ends of a recording
MIN_BOX_SHARE = 0.85  # of a box's area, at least, after its photograph is cropped
POSITIONS = {  # (rows, columns) -> name of each cell
    (1, 2): ("on the left", "on the right"),
    (2, 1): ("at the top", "at the bottom"),
    (2, 2): ("at the top left", "at the top right", "at the bottom left", "at the bottom right"),
}


@dataclass(frozen=True)
class Tile:
    """A photograph on the canvas: `crop` of it (0..1) is drawn over `area` (px), perhaps mirrored."""

    name: str  # its class
    photo: Photo
    crop: Box
    area: tuple[int, int, int, int]
    mirrored: bool
    boxes: tuple[Box, ...]  # of its class, in 0..1 of the canvas
    position: str  # "on the left", ...


@dataclass(frozen=True)
class Part:
    """A segment of a recording (samples `start` to `stop` of it) heard from sample `at` on."""

    name: str  # its class, or its sound when that has no class
    recording: Recording
    start: int
    stop: int
    at: int

    def interval(self, sample_rate: int) -> Interval:
        return self.at / sample_rate, (self.at + self.stop - self.start) / sample_rate


# -- the image -----------------------------------------------------------------------------------------


def lay_out(
    photos: list[tuple[str, Photo]], canvas: int, mirror: bool, rng: np.random.Generator
) -> list[Tile]:
    """Each photograph into a cell of its own of a 1 x 2, 2 x 1 or 2 x 2 grid, in order of the cells."""
    grid = ((1, 2), (2, 1))[int(rng.integers(2))] if len(photos) == 2 else (2, 2)
    cells = sorted(rng.permutation(grid[0] * grid[1])[: len(photos)].tolist())
    order = rng.permutation(len(photos))
    return [
        _tile(photos[k][0], photos[k][1], cell, grid, canvas, mirror, rng)
        for k, cell in zip(order, cells, strict=True)
    ]


def _tile(
    name: str,
    photo: Photo,
    cell: int,
    grid: tuple[int, int],
    canvas: int,
    mirror: bool,
    rng: np.random.Generator,
) -> Tile:
    crop = _crop(photo.boxes, rng)
    mirrored = mirror and bool(rng.random() < 0.5)
    rows, columns = grid
    cell_width, cell_height = canvas / columns, canvas / rows
    height, width = photo.pixels.shape[:2]
    aspect = (crop[2] - crop[0]) * width / ((crop[3] - crop[1]) * height) * np.exp(rng.uniform(-0.15, 0.15))
    tile_width = min(cell_width, cell_height * aspect) * rng.uniform(0.75, 1)
    tile_height = min(cell_height, tile_width / aspect)
    wide, high = max(1, int(tile_width)), max(1, int(tile_height))
    left = int(cell % columns * cell_width + rng.uniform(0, cell_width - wide))
    top = int(cell // columns * cell_height + rng.uniform(0, cell_height - high))

    boxes = []
    for box in photo.boxes:
        x0, y0, x1, y1 = clip_box(box, crop)
        if x0 >= x1 or y0 >= y1:  # one of several, cropped away
            continue
        x0, x1 = ((x - crop[0]) / (crop[2] - crop[0]) for x in (x0, x1))
        y0, y1 = ((y - crop[1]) / (crop[3] - crop[1]) for y in (y0, y1))
        if mirrored:
            x0, x1 = 1 - x1, 1 - x0
        x0, x1 = ((left + x * wide) / canvas for x in (x0, x1))
        y0, y1 = ((top + y * high) / canvas for y in (y0, y1))
        boxes.append(clip_box((x0, y0, x1, y1), (0.0, 0.0, 1.0, 1.0)))
    area = (left, top, left + wide, top + high)
    return Tile(name, photo, crop, area, mirrored, tuple(boxes), POSITIONS[grid][cell])


def _crop(boxes: tuple[Box, ...], rng: np.random.Generator) -> Box:
    """A part of a photograph, 0.75 to 1 of both sides, that keeps most of its largest box."""
    main = max(boxes, key=_area)
    for _ in range(8):
        width, height = rng.uniform(0.75, 1, 2)
        left, top = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
        crop = (float(left), float(top), float(left + width), float(top + height))
        x0, y0, x1, y1 = clip_box(main, crop)
        if x0 < x1 and y0 < y1 and _area((x0, y0, x1, y1)) >= MIN_BOX_SHARE * _area(main):
            return crop
    return 0.0, 0.0, 1.0, 1.0


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def paint(tiles: list[Tile], canvas: int, rng: np.random.Generator) -> np.ndarray:
    """-> (canvas, canvas, 3) uint8: the tiles over a cloudy ground of random greys."""
    from PIL import Image

    clouds = rng.integers(60, 190) + rng.integers(-15, 16, 3) + rng.integers(-20, 21, (6, 6, 1))
    ground = Image.fromarray(clouds.clip(0, 255).astype(np.uint8))
    image = ground.resize((canvas, canvas), Image.Resampling.BICUBIC)
    for tile in tiles:
        left, top, right, bottom = tile.area
        height, width = tile.photo.pixels.shape[:2]
        x0, y0, x1, y1 = tile.crop
        part = Image.fromarray(tile.photo.pixels).resize(
            (right - left, bottom - top),
            Image.Resampling.BICUBIC,
            box=(x0 * width, y0 * height, min(x1 * width, width), min(y1 * height, height)),
        )
        if tile.mirrored:
            part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        image.paste(part, (left, top))
    return np.array(image)


# -- the sound -------------------------------------------------------------------------------------------


def fit_parts(
    named: list[tuple[str, Recording]], samples: int, sample_rate: int, rng: np.random.Generator
) -> list[Part]:
    """One segment of each recording, in random order, with pauses of random lengths around them.

    A segment is at most 0.2 to 0.6 of the clip, whatever the class, so that long recordings do not stand out
    (half of that for two); it begins and ends with sound, and lies where the recording is loud.
    """
    frame = round(FRAME * sample_rate)
    cut = []
    for k in rng.permutation(len(named)):
        name, recording = named[k]
        longest = rng.uniform(0.2, 0.6) * samples / len(named)
        first, last = _window(recording.loudness, max(1, int(longest / frame)), rng)
        cut.append((name, recording, first * frame, last * frame))
    spare = samples - sum(stop - start for _, _, start, stop in cut)
    gaps = np.diff(np.sort(rng.uniform(0, spare, len(cut))), prepend=0.0).astype(int)
    parts, at = [], 0
    for (name, recording, start, stop), gap in zip(cut, gaps.tolist(), strict=True):
        at += gap
        parts.append(Part(name, recording, start, stop, at))
        at += stop - start
    return parts


def _window(loudness: np.ndarray, frames: int, rng: np.random.Generator) -> tuple[int, int]:
    """A segment of `frames` frames with at least half the energy of the best one, without quiet ends."""
    if len(loudness) > frames:
        energy = np.concatenate([[0.0], np.cumsum(np.square(loudness, dtype=np.float64))])
        energy = energy[frames:] - energy[:-frames]
        good = np.flatnonzero(energy >= energy.max() / 2)
        start = int(good[int(rng.integers(len(good)))])
        loudness = loudness[start : start + frames]
    else:
        start = 0
    first, last = loud_segment(loudness)
    return start + first, start + last


def mix(
    parts: list[Part],
    samples: int,
    sample_rate: int,
    noise: np.ndarray,
    signal_to_noise: float,
    gain: float,
    cutoff: float | None,
    rng: np.random.Generator,
) -> np.ndarray:
    """-> (samples,) float32: every part equally loud, over a segment of `noise` (RMS 1).

    signal_to_noise, gain: dB; cutoff: Hz, of the low-pass for the recordings (not the noise), or None
    """
    begin = int(rng.integers(len(noise) - samples + 1))
    audio = noise[begin : begin + samples] * np.float32(LOUDNESS * 10 ** (-signal_to_noise / 20))
    for part in parts:
        clip = part.recording.samples[part.start : part.stop].astype(np.float32) / 32767
        if cutoff is not None and cutoff < sample_rate / 2:
            clip = low_pass(clip, cutoff, sample_rate)
        clip *= LOUDNESS / max(float(np.sqrt(np.square(clip).mean())), 1e-6)
        edge = min(round(EDGE * sample_rate), len(clip) // 2)
        ramp = np.linspace(0, 1, edge, dtype=np.float32)
        clip[:edge] *= ramp
        clip[len(clip) - edge :] *= ramp[::-1]
        audio[part.at : part.at + len(clip)] += clip
    audio *= np.float32(10 ** (gain / 20))
    peak = float(np.abs(audio).max())
    return audio / np.float32(peak) if peak > 1 else audio


def low_pass(clip: np.ndarray, cutoff: float, sample_rate: int) -> np.ndarray:
    """(n,) -> (n,) float32 without what lies above `cutoff` Hz; a raised cosine down from 0.85 of it."""
    from scipy import fft

    size = fft.next_fast_len(len(clip), real=True)
    spectrum = fft.rfft(clip, size)
    hertz = np.linspace(0, sample_rate / 2, len(spectrum), dtype=np.float32)
    fall = np.clip((hertz - 0.85 * cutoff) / (0.15 * cutoff), 0, 1)
    spectrum *= (1 + np.cos(np.pi * fall)) / 2
    return fft.irfft(spectrum, size)[: len(clip)].astype(np.float32, copy=False)


def long_noise(samples: int, seed: int) -> np.ndarray:
    """(samples,) float32 of RMS 1, half white and half pink by power: what lies under every scene."""
    from scipy import fft

    rng = np.random.default_rng(seed)
    white = rng.standard_normal(samples)
    spectrum = fft.rfft(rng.standard_normal(samples))
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    spectrum[0] = 0
    pink = fft.irfft(spectrum, samples)
    both = white / white.std() + pink / pink.std()
    return (both / both.std()).astype(np.float32)
