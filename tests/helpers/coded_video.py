"""Videos whose every frame carries its number as a code of big blocks: it is told exactly which is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BLOCK, ROWS, COLUMNS = 16, 4, 6  # pixels of a block's side; blocks of a frame
BITS = 10
DARK, LIGHT = 40, 215
FRAMES = 50


@dataclass(frozen=True)
class Film:
    """How a video is made.

    times:   when each frame begins, in seconds of the container's own stamps
    tick:    seconds in which the codec counts them
    options: of the codec; pixels: its format
    muxer:   options of the container
    gop:     frames from one key frame to the next
    """

    name: str
    suffix: str
    codec: str
    times: Sequence[Fraction]
    tick: Fraction = Fraction(1, 25)
    options: dict[str, str] = field(default_factory=dict)
    pixels: str = "yuv420p"
    muxer: dict[str, str] = field(default_factory=dict)
    gop: int = 12

    def __str__(self) -> str:
        return f"{self.name} {self.suffix} {self.codec}"


def steady(fps: Fraction | int, frames: int = FRAMES, begin: Fraction | int = 0) -> tuple[Fraction, ...]:
    return tuple(Fraction(begin) + k / Fraction(fps) for k in range(frames))


def uneven(seed: int, frames: int = FRAMES, begin: Fraction | int = 0) -> tuple[Fraction, ...]:
    """Frames of 4 to 300 ms, as screen recorders and phones in the dark leave them; whole milliseconds."""
    lengths = np.random.default_rng(seed).choice([4, 16, 33, 41, 120, 300], frames)
    return tuple(Fraction(begin) + Fraction(int(ms), 1000) for ms in np.cumsum(lengths) - lengths[0])


def coded(number: int) -> np.ndarray:
    """(64, 96, 3) uint8: the number's bits, then their opposites, then what tells which side is up."""
    bits = [number >> k & 1 for k in range(BITS)]
    cells = np.array([*bits, *(1 - bit for bit in bits), 1, 1, 0, 1]).reshape(ROWS, COLUMNS)
    levels = np.where(cells, LIGHT, DARK).astype(np.uint8)
    return np.repeat(np.kron(levels, np.ones((BLOCK, BLOCK), np.uint8))[..., None], 3, axis=2)


def number_of(frame: np.ndarray) -> int:
    """The number that a frame carries; AssertionError if it is none, turned, or mixed of two."""
    assert frame.shape == (ROWS * BLOCK, COLUMNS * BLOCK, 3), frame.shape
    grid = frame.mean(-1).reshape(ROWS, BLOCK, COLUMNS, BLOCK)[:, 4:-4, :, 4:-4].mean((1, 3)).ravel()
    assert (np.abs(grid - (DARK + LIGHT) / 2) > 50).all(), "its blocks are neither dark nor light"
    cells = (grid > (DARK + LIGHT) / 2).astype(int).tolist()
    bits, opposites, mark = cells[:BITS], cells[BITS : 2 * BITS], cells[2 * BITS :]
    assert mark == [1, 1, 0, 1], "it is turned"
    assert all(a != b for a, b in zip(bits, opposites, strict=True)), "it is mixed of two"
    return sum(bit << k for k, bit in enumerate(bits))


def write(folder: Path, film: Film, stored: Callable[[np.ndarray], np.ndarray] = lambda seen: seen) -> Path:
    """stored: turns a frame, as it is to be seen, to how it lies in the file"""
    file = folder / f"{str(film).replace(' ', '-')}.{film.suffix}"
    with av.open(str(file), "w", options=film.muxer) as container:
        for packet in packets(container, film, stored):
            container.mux(packet)
    return file


def packets(
    container: av.container.OutputContainer, film: Film, stored: Callable[[np.ndarray], np.ndarray]
) -> Iterator[av.Packet]:
    """Of a new stream of the container."""
    stream = container.add_stream(film.codec, rate=1 / film.tick, options=film.options)
    stream.height, stream.width, _ = stored(coded(0)).shape
    stream.pix_fmt = film.pixels
    stream.codec_context.gop_size = film.gop
    stream.codec_context.thread_count = 1  # of more, the others of frames so small spin
    stream.codec_context.time_base = film.tick
    if "crf" not in film.options:
        stream.bit_rate = 4_000_000
    for number, time in enumerate(film.times):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(stored(coded(number))), format="rgb24")
        frame.pts, frame.time_base = round(time / film.tick), film.tick
        yield from stream.encode(frame)
    yield from stream.encode(None)
