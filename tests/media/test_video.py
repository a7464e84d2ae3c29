"""Frames and sound out of videos: the right frame at the right time, the right stretch of sound."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from avalign.media.file import MediaError
from avalign.media.read import read_audio, read_frames
from tests.helpers.tolerances import assert_close
from tests.helpers.videos import (
    FPS,
    RATE,
    SECONDS,
    beeps,
    video,  # noqa: F401 (fixtures)
    write_video,
)


def pitch(audio: np.ndarray, rate: int) -> float:
    return float(np.abs(np.fft.rfft(audio)).argmax() * rate / len(audio))


@pytest.mark.parametrize("number", [0, 1, 7, 12, 19])
@pytest.mark.parametrize("late", [0.0, 0.19])
def test_the_frame_shown_at_a_time_is_read(video: Path, number: int, late: float) -> None:
    (picture,) = read_frames(video, [number / FPS + late])
    assert picture.shape == (48, 64, 3)
    assert picture.dtype == np.uint8
    assert picture[36:, 40:].mean() == pytest.approx(10 * number + 20, abs=4)
    assert picture[:20, :28].mean() > 240


def test_frames_come_in_the_order_they_are_asked_for(video: Path) -> None:
    film = read_frames(video, [3.0, 0.4, 2.2])
    assert film.shape == (3, 48, 64, 3)
    assert film[:, 36:, 40:].mean((1, 2, 3)) == pytest.approx([170, 40, 130], abs=4)


def test_a_time_behind_the_end_is_refused(video: Path) -> None:
    with pytest.raises(MediaError, match=r"no frame at 9 s: the last begins at 3\.80 s"):
        read_frames(video, [0.0, 9.0])


def test_a_turned_video_is_set_upright(video: Path, tmp_path: Path) -> None:
    """A phone writes the angle into the track's header: a matrix of nine numbers, 48 bytes into 'tkhd'."""
    content = bytearray(video.read_bytes())
    head = content.index(b"tkhd") + 4
    one = 1 << 16
    quarter_to_the_right = (0, one, 0, -one, 0, 0, 0, 0, 1 << 30)
    content[head + 40 : head + 76] = struct.pack(">9i", *quarter_to_the_right)
    turned = tmp_path / "turned.mp4"
    turned.write_bytes(bytes(content))
    (picture,) = read_frames(turned, [1.0])
    assert picture.shape == (64, 48, 3)
    assert picture[:28, 28:].mean() > 240, "what was top left is top right"
    assert picture[40:, :20].mean() == pytest.approx(70, abs=4)


@pytest.mark.parametrize("second", range(SECONDS))
def test_a_segment_of_a_videos_sound_is_the_right_one(video: Path, second: int) -> None:
    audio, rate = read_audio(video, second + 0.1, second + 0.9)
    assert rate == RATE
    assert len(audio) == round(0.8 * RATE)
    assert pitch(audio, rate) == pytest.approx(300 * (second + 1), abs=3)


def test_a_segment_of_a_recording_is_the_right_one_to_the_sample(tmp_path: Path) -> None:
    import soundfile

    soundfile.write(tmp_path / "a.wav", beeps(), RATE, subtype="FLOAT")
    audio, rate = read_audio(tmp_path / "a.wav", 1.25, 2.5)
    assert rate == RATE
    assert_close(audio, beeps()[20_000:40_000])
    whole, _ = read_audio(tmp_path / "a.wav")
    assert len(whole) == RATE * SECONDS


@pytest.mark.parametrize("suffix", ["wav", "mp4"])
def test_a_segment_behind_the_end_is_refused(video: Path, tmp_path: Path, suffix: str) -> None:
    import soundfile

    soundfile.write(tmp_path / "a.wav", beeps(), RATE)
    file = video if suffix == "mp4" else tmp_path / "a.wav"
    with pytest.raises(MediaError, match=r"lasts .* s, its part from 3 s to 6 s is meant"):
        read_audio(file, 3.0, 6.0)
    with pytest.raises(MediaError, match="lasts"):
        read_audio(file, 30.0)


def test_what_is_no_video_or_has_none_of_the_kind_is_named(video: Path, tmp_path: Path) -> None:
    text = tmp_path / "notes.mp4"
    text.write_text("no video at all")
    with pytest.raises(
        MediaError, match=r"notes\.mp4: cannot be decoded as a video: it is no audio or video"
    ):
        read_frames(text, [0.0])
    with pytest.raises(MediaError, match=r"notes\.mp4: cannot be decoded as audio: it is no audio or video"):
        read_audio(text)
    with pytest.raises(MediaError, match="no such file"):
        read_frames(tmp_path / "absent.mp4", [0.0])
    silent = write_video(tmp_path / "silent.mp4")
    with pytest.raises(MediaError, match=r"silent\.mp4: holds no audio"):
        read_audio(silent)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    with pytest.raises(MediaError, match=r"cut\.mp4"):
        read_frames(cut, [1.0])
