"""Colours, depth and pixels of a video's frames: as its file names them, 8 bits, pixels as stored."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace

from avalign.media.read import read_frames

COLOURS = np.array(
    [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0], [90, 140, 200]], np.uint8
)
NAMED = {Colorspace.ITU709: 1, Colorspace.ITU601: 6}  # as H.273 numbers matrices


def bars() -> np.ndarray:
    """(64, 96, 3): a bar of each colour."""
    return np.tile(np.repeat(COLOURS, 16, axis=0), (64, 1, 1))


def write(file: Path, frames: list[av.VideoFrame], codec: str, pixels: str, **context: object) -> None:
    with av.open(str(file), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = frames[0].width, frames[0].height, pixels
        if codec == "libx264":
            stream.options = {"qp": "1", "preset": "veryfast"}
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        for number, frame in enumerate(frames):
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("matrix", NAMED, ids=lambda matrix: matrix.name)
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("pixels", ["yuv444p", "yuv444p10le"])
def test_colours_are_those_of_the_matrix_that_a_file_names(
    pixels: str, full: bool, matrix: Colorspace, tmp_path: Path
) -> None:
    stored_range = ColorRange.JPEG if full else ColorRange.MPEG
    picture = av.VideoFrame.from_ndarray(bars(), format="rgb24")
    frame = picture.reformat(format=pixels, dst_colorspace=matrix, dst_color_range=stored_range)
    named = {"colorspace": NAMED[matrix], "color_range": stored_range}
    write(tmp_path / "a.mp4", [frame], "libx264", pixels, **named)
    (seen,) = read_frames(tmp_path / "a.mp4", [0.0])
    assert np.abs(seen.astype(int) - bars())[:, np.arange(96) % 16 // 4 == 2].max() <= 4


def test_ten_bits_keep_their_upper_eight(tmp_path: Path) -> None:
    """A ramp of grey, in the 877 levels from black to white, is read to two of 8 bits."""
    frame = av.VideoFrame(256, 64, "yuv420p10le")
    ramp = np.round(64 + 876 * np.arange(256) / 255).astype("<u2")
    for plane, levels in zip(
        frame.planes, (ramp, np.full(128, 512, "<u2"), np.full(128, 512, "<u2")), strict=True
    ):
        plane.update(np.resize(levels, (plane.height, plane.line_size // 2)).tobytes())
    write(tmp_path / "a.mkv", [frame], "ffv1", "yuv420p10le")
    (seen,) = read_frames(tmp_path / "a.mkv", [0.0])
    off = seen.astype(int) - np.arange(256)[:, None]
    assert np.abs(off).max() <= 2  # FFmpeg's conversion rounds down


def test_pixels_that_are_not_square_stay_as_they_are_stored(tmp_path: Path) -> None:
    frame = av.VideoFrame.from_ndarray(bars(), format="rgb24").reformat(format="yuv420p")
    write(tmp_path / "a.mp4", [frame], "libx264", "yuv420p", sample_aspect_ratio=Fraction(2, 1))
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].sample_aspect_ratio == 2
    assert read_frames(tmp_path / "a.mp4", [0.0]).shape == (1, 64, 96, 3)
