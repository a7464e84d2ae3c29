"""Pictures as seen: no mode of Pillow loses its signal silently, and boxes go where their pixels went."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image

from avalign.media import image as picture
from avalign.media.file import MediaError
from avalign.media.image import stored_frame, turned
from avalign.media.read import read_image

RAMP = np.arange(0, 256, 8, dtype=np.uint8).reshape(4, 8)  # of 32 levels


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def write_pgm(file: Path, levels: np.ndarray, white: int) -> None:
    height, width = levels.shape
    file.write_bytes(f"P5 {width} {height} {white}\n".encode() + levels.astype(">u2").tobytes())


@pytest.mark.parametrize("file", ["a.png", "a.tif", "a.jp2", "a.pgm", "big.tif", "12.pgm"])
def test_16_bits_keep_their_upper_8(tmp_path: Path, file: str) -> None:
    """Image.convert("RGB") would clip every level above 255, and the picture be white."""
    deep = RAMP.astype(np.uint16) * 257
    if file.endswith("pgm"):
        white = 4095 if file == "12.pgm" else 65535
        write_pgm(tmp_path / file, np.round(RAMP / 255 * white), white)
    else:
        stored = Image.fromarray(deep)
        if file == "big.tif":
            stored = Image.frombytes("I;16B", (8, 4), deep.astype(">u2").tobytes())
        stored.save(tmp_path / file)
    image = read_image(tmp_path / file)
    assert np.abs(image.astype(int) - RAMP[..., None]).max() <= 1


@pytest.mark.parametrize("bits", [8, 16])
def test_a_tiff_that_counts_from_white_to_black_is_turned_round(tmp_path: Path, bits: int) -> None:
    stored = 255 - RAMP if bits == 8 else (255 - RAMP).astype(np.uint16) * 257
    Image.fromarray(stored).save(tmp_path / "a.tif")
    content = (tmp_path / "a.tif").read_bytes()
    black_is_0, white_is_0 = (struct.pack("<HHII", 262, 3, 1, meant) for meant in (1, 0))
    assert content.count(black_is_0) == 1
    (tmp_path / "a.tif").write_bytes(content.replace(black_is_0, white_is_0))
    assert np.abs(read_image(tmp_path / "a.tif").astype(int) - RAMP[..., None]).max() <= 1


@pytest.mark.parametrize("mode", ["F", "I"])
def test_numbers_without_a_white_are_refused(tmp_path: Path, mode: str) -> None:
    kind = np.float32 if mode == "F" else np.int32
    Image.fromarray(RAMP.astype(kind) * 300).save(tmp_path / "a.tif")
    with pytest.raises(MediaError, match=r"a\.tif: cannot be decoded as an image: .* known to be white"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("mode", ["L", "P", "LA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "1"])
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "webp", "gif", "bmp", "jp2", "avif"])
def test_a_red_and_a_white_half_stay_so_in_every_mode_and_format(
    tmp_path: Path, mode: str, suffix: str
) -> None:
    if (suffix, mode) == ("tif", "YCbCr") and int(PIL.__version__.partition(".")[0]) < 13:
        pytest.skip("releases of Pillow before 13 write such a file that they call cut off")
    pixels = np.full((32, 64, 3), 255, np.uint8)
    pixels[:, :32] = (204, 0, 0) if mode not in ("L", "LA", "1") else (0, 0, 0)
    stored = Image.fromarray(pixels)
    if mode == "LAB":
        from PIL import ImageCms

        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        stored = ImageCms.profileToProfile(stored, srgb, lab, outputMode="LAB")
    else:
        stored = stored.convert(mode)
    try:
        stored.save(tmp_path / f"a.{suffix}")
    except (OSError, KeyError, ValueError):
        return  # the format holds no such pixels
    image = read_image(tmp_path / f"a.{suffix}").astype(int)
    assert np.abs(image[8:24, 8:24] - pixels[8:24, 8:24]).max() <= 12
    assert np.abs(image[8:24, 40:56] - pixels[8:24, 40:56]).max() <= 12


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_of_several_images_the_first_is_meant(tmp_path: Path, suffix: str) -> None:
    first, second = (Image.new("RGB", (64, 48), colour) for colour in ("red", "blue"))
    first.save(tmp_path / f"a.{suffix}", save_all=True, append_images=[second])
    assert read_image(tmp_path / f"a.{suffix}")[24, 32].tolist()[::2] in ([255, 0], [254, 0])


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (b"\0\0\0\x18ftypheic", "HEIC"),
        (b"\0\0\0\x18ftypmif1", "HEIF"),
        (b"\xff\x0a\x10\x20", "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    ],
)
def test_a_format_that_pillow_lacks_is_named(tmp_path: Path, head: bytes, said: str) -> None:
    (tmp_path / "a.jpg").write_bytes(head + bytes(64))
    with pytest.raises(MediaError, match=rf"a\.jpg: is an image in {said}, .* save it as JPEG or PNG"):
        read_image(tmp_path / "a.jpg")


def test_a_pillow_without_avif_still_reads_the_others(tmp_path: Path, monkeypatch) -> None:
    Image.new("RGB", (8, 8), "white").save(tmp_path / "a.bmp")
    Image.init()
    monkeypatch.delitem(Image.OPEN, "AVIF", raising=False)
    monkeypatch.setattr(picture, "FORMATS", ("AVIF", "BMP"))
    assert read_image(tmp_path / "a.bmp").min() == 255
    (tmp_path / "a.avif").write_bytes(b"\0\0\0\x18ftypavif" + bytes(64))
    with pytest.raises(MediaError, match=r"AVIF, for which Pillow 11\.3"):
        read_image(tmp_path / "a.avif")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif"])
def test_a_box_on_stored_pixels_goes_where_they_go(tmp_path: Path, suffix: str, orientation: int) -> None:
    stored = np.zeros((64, 96, 3), np.uint8)
    stored[16:48, 8:32] = 255
    file, exif = tmp_path / f"a.{suffix}", exif_of(orientation)
    options = {"tiffinfo": {0x0112: orientation}} if suffix == "tif" else {"exif": exif}
    Image.fromarray(stored).save(file, **options)
    assert stored_frame(file) == (orientation, (96, 64))
    seen = read_image(file)
    assert seen.shape[:2] == ((64, 96) if orientation < 5 else (96, 64))
    x0, y0, x1, y1 = turned((8 / 96, 16 / 64, 32 / 96, 48 / 64), orientation)
    height, width, _ = seen.shape
    inside = np.zeros((height, width), bool)
    inside[round(y0 * height) : round(y1 * height), round(x0 * width) : round(x1 * width)] = True
    assert np.mean(inside != (seen[..., 0] > 128)) < 0.01
