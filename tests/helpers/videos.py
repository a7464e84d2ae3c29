"""Videos with sound, made for a test."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

av = pytest.importorskip("av")


FPS, SECONDS, RATE = 5, 4, 16_000


def write_video(file: Path, sound: np.ndarray | None = None, audio_codec: str = "aac") -> Path:
    """Frame k of FPS * SECONDS is of grey 10 k + 20, its top left quarter white; beside it, `sound`."""
    with av.open(str(file), "w") as container:
        video = container.add_stream("mpeg4", rate=FPS)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.time_base = Fraction(1, FPS)
        audio = None if sound is None else container.add_stream(audio_codec, rate=RATE, layout="mono")
        for k in range(FPS * SECONDS):
            picture = np.full((48, 64, 3), 10 * k + 20, np.uint8)
            picture[:24, :32] = 255
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = k
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            for begin in range(0, len(sound), 1024):
                piece = av.AudioFrame.from_ndarray(
                    sound[None, begin : begin + 1024], format="fltp", layout="mono"
                )
                piece.rate, piece.pts = RATE, begin
                container.mux(audio.encode(piece))
            container.mux(audio.encode(None))
    return file


def beeps() -> np.ndarray:
    """A tone of another pitch in each second: 300, 600, 900, 1200 Hz."""
    t = np.arange(RATE * SECONDS) / RATE
    return (0.3 * np.sin(2 * np.pi * 300 * (1 + t.astype(int)) * t)).astype(np.float32)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "clip.mp4", beeps())
