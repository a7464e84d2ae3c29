"""Masks as classes of pixels, and the boxes of what they cover."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avalign.answers import Box
from avalign.media.file import MediaError

if TYPE_CHECKING:
    from PIL.Image import Image

BACKGROUND, OBJECT = 0, -1  # OBJECT: of a class that the mask does not tell
COLOURS = 256
HALF = 128  # of white; no class has a number as high


def read_mask(path: Path) -> np.ndarray:
    """(height, width) int16: a class index for every pixel, 0 for the background.

    A mask of 8 or 16 bits holds the indices, none above 127. One that reaches half of white is smooth, from
    black to white: it tells object from background only, as one of one bit does, and its objects are OBJECT
    from half of white on (resizing and JPEG leave grey levels around every edge, which are no classes). So
    are greys written as colours or by a palette. In a coloured mask the classes have the colours of PASCAL
    VOC's map, in which the index's bits are dealt out to red, green and blue; a palette of colours is left
    aside for its indices. What is transparent is background. MediaError if it is none of these.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not path.is_file():
        raise MediaError(path, "no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as stored:
                upright = ImageOps.exif_transpose(stored)  # as the image that it lies over
                if _grey_palette(upright):
                    upright = upright.convert("LA" if upright.has_transparency_data else "L")
                mode = upright.mode
                pixels = np.array(upright.convert("RGB") if mode == "RGBA" else upright)
                if mode in ("RGBA", "LA"):
                    pixels = pixels if mode == "RGBA" else pixels[..., 0]
                    pixels[np.asarray(upright.getchannel("A")) < HALF] = BACKGROUND
    except UnidentifiedImageError:
        raise MediaError(path, "is not an image that Pillow can read") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Warning) as error:
        raise MediaError(path, f"cannot be decoded as an image: {error}") from error
    if mode in ("RGB", "RGBA"):
        return _by_colour(pixels, path)
    if mode == "P":
        return pixels.astype(np.int16)
    if mode == "1":
        return np.where(pixels, OBJECT, BACKGROUND).astype(np.int16)
    if mode not in ("L", "LA", "I;16", "I;16B"):
        raise MediaError(path, f"is no mask of 1, 8 or 16 bits or colours, but of Pillow's mode {mode!r}")
    if pixels.max() < HALF:
        return pixels.astype(np.int16)
    levels = pixels >> 8 if mode.startswith("I;16") else pixels
    if levels.max() < HALF:
        raise MediaError(path, f"its highest level, {pixels.max()} of 65535, is neither a class nor white")
    return _by_level(levels)


def _grey_palette(image: Image) -> bool:
    """Whether its palette holds greys only: then it stands for levels."""
    if image.mode != "P":
        return False
    colours = np.array(image.getpalette("RGB") or []).reshape(-1, 3)
    return bool((colours == colours[:, :1]).all())


def _by_level(levels: np.ndarray) -> np.ndarray:
    """(height, width) in 0..255 -> (height, width) int16"""
    return np.where(levels >= HALF, OBJECT, BACKGROUND).astype(np.int16)


def boxes_of(mask: np.ndarray, least: float, join: float) -> tuple[list[tuple[int, Box]], int]:
    """Class and box (0..1) of every object of the mask, the largest first; and how many were too small.

    mask:  (height, width), a class index for every pixel, 0 for the background
    least: share of the image's pixels that an object must have
    join:  how far apart pixels of one class may be and still be one object's, in heights and widths of the
           image; 0: those that touch, corners included
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
        return _by_level(pixels[..., 0])
    known = _classes_by_colour()
    strange = [colour for colour in colours.tolist() if colour not in known]
    if strange and pixels.max() >= HALF and (pixels == pixels[..., :1]).all():  # greys
        return _by_level(pixels[..., 0])
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
