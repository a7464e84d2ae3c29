"""The looks of avworld: every class is a shape with a texture and a rough hue, drawn over clutter."""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from avalign.data.avworld.audio import CLASSES

Grid = NDArray[np.float64]
Box = tuple[float, float, float, float]

# each fills the square -1..1 to its four edges, so that its box is the square's
SHAPES: dict[str, Callable[[Grid, Grid], NDArray[np.bool_]]] = {
    "disc": lambda x, y: x**2 + y**2 <= 1,
    "square": lambda x, y: (abs(x) <= 1) & (abs(y) <= 1),
    "diamond": lambda x, y: abs(x) + abs(y) <= 1,
    "triangle": lambda x, y: (abs(x) <= (y + 1) / 2) & (abs(y) <= 1),
    "cross": lambda x, y: ((abs(x) <= 0.4) | (abs(y) <= 0.4)) & (abs(x) <= 1) & (abs(y) <= 1),
    "ring": lambda x, y: (x**2 + y**2 <= 1) & (x**2 + y**2 >= 0.25),
    "hourglass": lambda x, y: (abs(x) <= abs(y)) & (abs(y) <= 1),
}
TEXTURES: dict[str, Callable[[Grid, Grid], Grid]] = {
    "plain": lambda x, y: np.zeros_like(x),
    "rows": lambda x, y: np.sign(np.sin(y * 0.9)),
    "columns": lambda x, y: np.sign(np.sin(x * 0.9)),
    "diagonals": lambda x, y: np.sign(np.sin((x + y) * 0.75)),
    "checks": lambda x, y: np.sign(np.sin(x * 0.8) * np.sin(y * 0.8)),
}


@dataclass(frozen=True)
class Look:
    shape: str
    texture: str
    hue: float


# neighbours in hue differ in shape and texture: colour alone does not tell a class
LOOKS = {
    name: Look(list(SHAPES)[k % 7], list(TEXTURES)[(2 * k) % 5], (k * 5 % 14) / 14)
    for k, name in enumerate(CLASSES)
}


def sample_boxes(count: int, size: int, rng: np.random.Generator) -> list[Box]:
    """`count` boxes in pixels, whole numbers, none hidden for more than a quarter by another.

    In random order: the later a box finds room, the smaller and nearer the edges it tends to be.
    """
    while True:
        boxes: list[Box] = []
        for _ in range(40):
            width, height = (round(float(v) * size) for v in rng.uniform(0.24, 0.5, 2))
            left, top = int(rng.integers(0, size - width + 1)), int(rng.integers(0, size - height + 1))
            box = (left, top, left + width, top + height)
            if all(_shared(box, other) < 0.25 for other in boxes):
                boxes.append(box)
            if len(boxes) == count:
                return [boxes[k] for k in rng.permutation(count)]


def _shared(a: Box, b: Box) -> float:
    """Area common to both, as a share of the smaller."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return max(0.0, width) * max(0.0, height) / smaller


def render(
    objects: list[tuple[str, Box]], size: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], list[Box]]:
    """(class, box in pixels) objects, later ones in front. -> (size, size, 3), the boxes drawn (0..1)"""
    drawn: list[Box] = []
    y, x = np.mgrid[0:size, 0:size].astype(np.float64)
    slope = rng.uniform(-0.25, 0.25, (3, 2))
    ground = rng.uniform(0.25, 0.75, 3) + (np.stack([x, y], -1) / size - 0.5) @ slope.T
    for _ in range(int(rng.integers(2, 6))):  # clutter: grey strokes that belong to no class
        angle, offset, width = rng.uniform(0, np.pi), rng.uniform(0.1, 0.9), rng.uniform(0.5, 1.5)
        distance = np.cos(angle) * (x - offset * size) + np.sin(angle) * (y - offset * size)
        ground[np.abs(distance) < width] = rng.uniform(0.2, 0.8)
    for name, (left, top, right, bottom) in objects:
        look = LOOKS[name]
        inside = (slice(int(top), int(bottom)), slice(int(left), int(right)))
        u = (x[inside] + 0.5 - (left + right) / 2) / ((right - left) / 2)
        v = (y[inside] + 0.5 - (top + bottom) / 2) / ((bottom - top) / 2)
        shape = SHAPES[look.shape](u, v)
        rows, columns = np.flatnonzero(shape.any(1)), np.flatnonzero(shape.any(0))
        drawn.append(
            (
                float(left + columns[0]) / size,
                float(top + rows[0]) / size,
                float(left + columns[-1] + 1) / size,
                float(top + rows[-1] + 1) / size,
            )
        )
        hue = (look.hue + rng.uniform(-0.05, 0.05)) % 1
        colour = np.array(colorsys.hsv_to_rgb(hue, rng.uniform(0.6, 1), rng.uniform(0.6, 1)))
        texture = TEXTURES[look.texture](x[inside] + rng.uniform(0, 9), y[inside] + rng.uniform(0, 9))
        ground[inside][shape] = (colour * (0.75 + 0.25 * texture[..., None]))[shape]
    ground = ground + rng.normal(0, 0.03, ground.shape)
    return np.asarray(np.clip(ground, 0, 1) * 255, dtype=np.uint8), drawn
