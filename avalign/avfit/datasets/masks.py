"""Masks as classes of pixels, and the boxes of what they cover."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path

import numpy as np

from avalign.data.media import MediaError
from avalign.grammar import Box

BACKGROUND, OBJECT = 0, -1  # OBJECT: of a class that the mask does not tell
COLOURS = 256


def read_mask(path: Path) -> np.ndarray:
    """(height, width) int16: a class index for every pixel, 0 for the background.

    An 8-bit mask holds the indices. One of two levels, 0 and 255, or of one bit, tells object from background
    only: its objects are OBJECT. In a coloured mask the classes have the colours of PASCAL VOC's map, in
    which the index's bits are dealt out to red, green and blue. MediaError if it is none of these.
    """
    from PIL import Image, UnidentifiedImageError

    if not path.is_file():
        raise MediaError(path, "no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as stored:
                mode = stored.mode
                pixels = np.asarray(stored.convert("RGB") if mode in ("RGB", "RGBA") else stored)
    except UnidentifiedImageError:
        raise MediaError(path, "is not a picture that Pillow can read") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Warning) as error:
        raise MediaError(path, f"cannot be decoded as a picture: {error}") from error
    if mode in ("RGB", "RGBA"):
        return _by_colour(pixels, path)
    if mode not in ("1", "L", "P"):
        raise MediaError(path, f"is no mask of 8 bits, 1 bit or colours, but of Pillow's mode {mode!r}")
    if mode == "1" or set(np.unique(pixels)) <= {0, 255}:
        return np.where(pixels > 0, OBJECT, BACKGROUND).astype(np.int16)
    return pixels.astype(np.int16)


def boxes_of(mask: np.ndarray, least: float, join: float) -> tuple[list[tuple[int, Box]], int]:
    """Class and box (0..1) of every object of the mask, the largest first; and how many were too small.

    mask:  (height, width), a class index for every pixel, 0 for the background
    least: share of the picture's pixels that an object must have
    join:  how far apart pixels of one class may be and still be one object's, in heights and widths of the
           picture; 0: those that touch, corners included
    """
    from scipy import ndimage

    height, width = mask.shape
    reach = (1 + round(join * height), 1 + round(join * width))
    found: list[tuple[int, int, Box]] = []
    small = 0
    for index in np.unique(mask[mask != BACKGROUND]).tolist():
        covered = mask == index
        grown, _ = ndimage.label(
            ndimage.maximum_filter(covered, size=reach, mode="constant"), structure=np.ones((3, 3))
        )
        objects = np.where(covered, grown, 0)
        sizes = np.bincount(objects.ravel())
        for number, (rows, columns) in enumerate(ndimage.find_objects(objects), start=1):
            if sizes[number] < least * mask.size:
                small += 1
                continue
            box = (columns.start / width, rows.start / height, columns.stop / width, rows.stop / height)
            found.append((-int(sizes[number]), index, box))
    return [(index, box) for _, index, box in sorted(found)], small


def _by_colour(pixels: np.ndarray, path: Path) -> np.ndarray:
    """(height, width, 3) uint8 -> (height, width) int16"""
    coded = pixels.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.int32)
    colours = np.unique(coded)
    if set(colours.tolist()) <= {0, 0xFFFFFF}:
        return np.where(coded > 0, OBJECT, BACKGROUND).astype(np.int16)
    known = _classes_by_colour()
    strange = [colour for colour in colours.tolist() if colour not in known]
    if strange:
        raise MediaError(path, f"{len(strange)} of its colours stand for no class, such as #{strange[0]:06x}")
    classes = np.array([known[colour] for colour in colours.tolist()], dtype=np.int16)
    return classes[np.searchsorted(colours, coded)]


@cache
def _classes_by_colour() -> dict[int, int]:
    """Colour (0xRRGGBB) -> class. Bit 3k + c of the index is bit 7 - k of channel c: red, green, blue."""
    found = {}
    for index in range(COLOURS):
        channels = [0, 0, 0]
        for bit in range(8):
            channels[bit % 3] |= (index >> bit & 1) << (7 - bit // 3)
        found[channels[0] << 16 | channels[1] << 8 | channels[2]] = index
    return found
