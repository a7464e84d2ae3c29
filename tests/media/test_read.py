"""Pictures and sounds are read as they are meant, and what cannot be used is named with its reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from avalign.errors import AvalignError
from avalign.media.file import MediaError
from avalign.media.read import read_audio, read_image
from avalign.media.resample import fit_length, resample


def tone(hertz: float, rate: int, seconds: float = 0.5) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


def loudest_hertz(audio: np.ndarray, rate: int) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(audio))) * rate / len(audio))


def corner_picture() -> Image.Image:
    """6 wide, 4 high, black with the top left pixel red."""
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[0, 0] = (255, 0, 0)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "1", "CMYK", "I;16"])
def test_every_kind_of_image_becomes_rgb(tmp_path: Path, mode: str) -> None:
    file = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    if mode == "I;16":
        Image.fromarray(np.full((4, 6), 255 * 257, np.uint16)).save(file)
    else:
        Image.new("RGB", (6, 4), "white").convert(mode).save(file)
    image = read_image(file)
    assert image.shape == (4, 6, 3)
    assert image.dtype == np.uint8
    assert image.min() == 255


def test_transparent_pixels_lie_over_black(tmp_path: Path) -> None:
    Image.new("RGBA", (2, 2), (255, 255, 255, 0)).save(tmp_path / "clear.png")
    assert read_image(tmp_path / "clear.png").max() == 0


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side: turn it clockwise to look at it
    corner_picture().save(tmp_path / "turned.png", exif=exif)
    image = read_image(tmp_path / "turned.png")
    assert image.shape == (6, 4, 3)
    assert image[0, 3].tolist() == [255, 0, 0]  # top left went to the top right


def write_truncated_jpeg(file: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file)
    file.write_bytes(file.read_bytes()[:2000])


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda file: None, "no such file"),
        (lambda file: file.mkdir(), "is a folder"),
        (lambda file: file.write_bytes(b""), "empty"),
        (lambda file: file.write_bytes(b"not a picture at all"), "not an image"),
        (write_truncated_jpeg, "truncated"),
    ],
)
def test_an_image_that_cannot_be_used_is_named(tmp_path: Path, damage, why: str) -> None:
    file = tmp_path / "bad.jpg"
    damage(file)
    with pytest.raises(MediaError, match=why) as caught:
        read_image(file)
    assert caught.value.file == str(file)
    assert why in caught.value.why
    assert str(file) in str(caught.value)
    assert isinstance(caught.value, AvalignError)


def write_samples(file: Path, samples: list[float]) -> None:
    soundfile.write(file, np.array(samples, np.float32), 8000, subtype="FLOAT")


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda file: None, "no such file"),
        (lambda file: file.write_bytes(b""), "the file is empty"),
        (lambda file: file.write_bytes(b"RIFF but nothing else"), "cannot be decoded"),
        (lambda file: write_samples(file, []), "no audio samples"),
        (lambda file: write_samples(file, [0.0, float("nan"), 0.5]), "1 of 3 audio samples"),
        (lambda file: write_samples(file, [0.0, float("inf"), float("-inf")]), "2 of 3 audio samples"),
    ],
)
def test_a_sound_that_cannot_be_used_is_named(tmp_path: Path, damage, why: str) -> None:
    file = tmp_path / "bad.wav"
    damage(file)
    with pytest.raises(MediaError, match=why) as caught:
        read_audio(file)
    assert caught.value.file == str(file)
    assert why in caught.value.why


def test_channels_are_mixed_down_and_the_rate_is_told(tmp_path: Path) -> None:
    left, right = tone(440, 22_050), tone(1000, 22_050)
    soundfile.write(tmp_path / "stereo.wav", np.stack([left, right], axis=1), 22_050, subtype="FLOAT")
    audio, rate = read_audio(tmp_path / "stereo.wav")
    assert rate == 22_050
    assert audio.dtype == np.float32
    np.testing.assert_allclose(audio, (left + right) / 2, atol=1e-6)


@pytest.mark.parametrize("to_rate", [48_000, 8_000, 22_050])
def test_resampling_keeps_pitch_and_duration(to_rate: int) -> None:
    audio = resample(tone(440, 16_000), 16_000, to_rate)
    assert audio.dtype == np.float32
    assert len(audio) == round(0.5 * to_rate)
    assert loudest_hertz(audio, to_rate) == pytest.approx(440, abs=2)  # one bin is 2 Hz


def test_a_rate_must_be_positive() -> None:
    with pytest.raises(ValueError, match="got 0 and 16000"):
        resample(tone(440, 16_000), 0, 16_000)


def test_fit_length_cuts_or_adds_silence() -> None:
    audio = np.array([1, 2, 3], np.float32)
    assert fit_length(audio, 2).tolist() == [1, 2]
    assert fit_length(audio, 5).tolist() == [1, 2, 3, 0, 0]
    assert fit_length(audio, 3).dtype == np.float32
