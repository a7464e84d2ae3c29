"""Images as they are seen, whatever pixels their files store; and boxes drawn on stored pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from avalign.answers import Box

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

FORMATS = (  # none that runs programs, as EPS does
    *("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000"),
    "AVIF",
)
ORIENTATION = 0x0112  # the tag of EXIF and TIFF
PHOTOMETRIC = 262  # the tag of TIFF: 0 where 0 is white
DEEP = ("PPM", "PNG", "JPEG2000")  # formats whose integers Pillow gives in the range of 16 bits
UNREAD = {  # first bytes at their offset -> the format, and what it takes
    (4, b"ftyphei"): "HEIC, which avalign does not read: save it as JPEG or PNG",
    (4, b"ftyphev"): "HEIC, which avalign does not read: save it as JPEG or PNG",
    (4, b"ftypmif1"): "HEIF, which avalign does not read: save it as JPEG or PNG",
    (4, b"ftypavi"): "AVIF, for which Pillow 11.3 or later is needed, with its AVIF support",
    (0, b"\xff\x0a"): "JPEG XL, which Pillow does not read: save it as JPEG or PNG",
    (4, b"JXL \r\n\x87\n"): "JPEG XL, which Pillow does not read: save it as JPEG or PNG",
}


def oriented(stored: Image) -> np.ndarray:
    """(height, width, 3) uint8, upright; a ValueError where what is white cannot be told.

    Of an animation or of several pages the first is the image. 16 bits a channel keep their upper 8: white
    is 65535, also where a camera used 12 of them. Colour profiles are left alone, as by those who trained the
    public encoders.
    """
    from PIL import Image, ImageOps

    upright = ImageOps.exif_transpose(stored)
    mode = upright.mode
    if mode.startswith("I;16") or (mode == "I" and stored.format in DEEP):
        levels = (np.asarray(upright).astype(np.int32) >> 8).clip(0, 255)  # Pillow clips: all white
        return grey(255 - levels if _white_is_0(stored) else levels)
    if mode in ("I", "F"):
        kind = "floats" if mode == "F" else "32-bit integers"
        raise ValueError(
            f"its pixels are {kind}, of which none is known to be white: save it with 8 or 16 bits"
        )
    if upright.has_transparency_data:
        clear = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", clear.size, (0, 0, 0, 255)), clear)
    return np.asarray(upright.convert("RGB"))


def _white_is_0(stored: Image) -> bool:
    """Whether a TIFF counts from white to black: Pillow turns that round for 8 bits and less only."""
    return stored.format == "TIFF" and getattr(stored, "tag_v2", {}).get(PHOTOMETRIC) == 0


def grey(levels: np.ndarray) -> np.ndarray:
    """(h, w) in 0..255 -> (h, w, 3) uint8"""
    return np.repeat(levels.astype(np.uint8)[..., None], 3, axis=2)


def known_formats() -> tuple[str, ...]:
    """Those of FORMATS that this Pillow can open: an unknown one would make it refuse all."""
    from PIL import Image

    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def head_of(file: str) -> bytes:
    with open(file, "rb") as opened:
        return opened.read(16)


def unread_format(head: bytes) -> str | None:
    """What the first bytes of an image that Pillow does not know tell of its format."""
    return next((said for (at, mark), said in UNREAD.items() if head[at:].startswith(mark)), None)


def stored_frame(file: str | Path) -> tuple[int, tuple[int, int]]:
    """EXIF's orientation, and width and height of the pixels as stored; nothing is decoded.

    1 is upright, 6 is to be turned clockwise, 5 to 8 have width and height changed; 2, 4, 5, 7 are mirrored.
    """
    from PIL import Image

    with Image.open(file, formats=known_formats()) as image:
        found = image.getexif().get(ORIENTATION, 1)
        orientation = found if type(found) is int and 1 <= found <= 8 else 1
        width, height = image.size
        if image.format == "TIFF" and orientation >= 5:  # whose size Pillow tells as turned
            width, height = height, width
    return orientation, (width, height)


def turned(box: Box, orientation: int) -> Box:
    """A box in 0..1 of the stored pixels -> in 0..1 of the image as it is seen."""
    x0, y0, x1, y1 = box
    return {
        1: (x0, y0, x1, y1),
        2: (1 - x1, y0, 1 - x0, y1),
        3: (1 - x1, 1 - y1, 1 - x0, 1 - y0),
        4: (x0, 1 - y1, x1, 1 - y0),
        5: (y0, x0, y1, x1),
        6: (1 - y1, x0, 1 - y0, x1),
        7: (1 - y1, 1 - x1, 1 - y0, 1 - x0),
        8: (y0, 1 - x1, y1, 1 - x0),
    }[orientation]
