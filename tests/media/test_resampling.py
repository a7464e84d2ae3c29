"""A part that is read and brought to another rate is that part of the whole, brought to it, to a rounding."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from avalign.media.read import read_audio, seconds_of
from avalign.media.resample import resample
from tests.helpers.media_files import SECONDS, Kind, bursts, write
from tests.helpers.tolerances import PARTS_OF_SOUND, RESAMPLED, Tolerance

EDGE = 0.02  # seconds at each end in which a part's filter hears silence where the whole goes on
KINDS = [
    *(Kind("wav", "pcm_s16le", rate=rate) for rate in (8_000, 44_100, 192_000)),
    *(Kind("flac", "flac", rate=rate) for rate in (44_100, 96_000)),
    *(Kind("mp3", "libmp3lame", rate=rate) for rate in (22_050, 44_100, 48_000)),
    Kind("m4a", "aac", rate=44_100), Kind("mkv", "aac", "libx264"), Kind("ts", "aac", "libx264"),
    Kind("ogg", "libopus"), Kind("webm", "libopus"), Kind("ogv", "libopus", "libvpx"),
    Kind("flv", "libmp3lame", "libx264"), Kind("ts", "mp2", "mpeg2video"), Kind("mpg", "mp2", "mpeg2video"),
    Kind("mka", "ac3"), Kind("mka", "eac3"), Kind("m4a", "alac", rate=44_100),
    Kind("wav", "g722", rate=16_000), Kind("mka", "g722", rate=16_000), Kind("avi", "g722", rate=16_000),
    Kind("wav", "adpcm_yamaha", rate=44_100), Kind("wav", "adpcm_ms", rate=44_100),
    Kind("wav", "adpcm_ima_wav", rate=44_100), Kind("mov", "adpcm_ima_qt", rate=44_100),
    Kind("vob", "pcm_dvd", "mpeg2video"), Kind("asf", "wmav2", rate=44_100),
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("media")


def allowed(codec: str | None) -> Tolerance:
    return PARTS_OF_SOUND[{"mp2": "mp2", "ac3": "ac3", "eac3": "ac3"}.get(codec or "", "exact")]


def parts(rate: int, to_rate: int) -> Iterator[tuple[int, int]]:
    """First and last sample of parts that begin and end where samples of both rates do."""
    step = rate // np.gcd(rate, to_rate)
    for begin, length in np.random.default_rng(rate + to_rate).uniform(0.1, SECONDS / 2 - 0.1, (6, 2)):
        yield round(begin * rate / step) * step, round((begin + length) * rate / step) * step


@pytest.mark.parametrize("to_rate", [16_000, 32_000, 48_000])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_part_at_another_rate_is_that_of_the_whole(kind: Kind, to_rate: int, folder: Path) -> None:
    assert_parts(write(folder, kind), to_rate, allowed(kind.audio).absolute)


@pytest.mark.parametrize(("suffix", "subtype"), [("wav", "GSM610"), ("au", "G721_32"), ("au", "G723_24")])
def test_a_part_of_a_codec_that_goes_on_from_before_is_that_of_the_whole(
    suffix: str, subtype: str, tmp_path: Path
) -> None:
    file = tmp_path / f"a.{suffix}"
    soundfile.write(file, bursts(8_000), 8_000, subtype=subtype)
    assert_parts(file, 16_000, allowed(None).absolute)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.audio == "g722"], ids=str)
def test_a_sound_is_as_long_as_it_decodes_whatever_its_stamps(kind: Kind, folder: Path) -> None:
    file = write(folder, kind)
    assert seconds_of(file) == pytest.approx(SECONDS, abs=0.03)
    assert len(read_audio(file)[0]) == round(seconds_of(file) * kind.rate)


@pytest.mark.parametrize("to_rate", [16_000, 48_000])
@pytest.mark.parametrize("rate", [22_050, 44_100])
def test_a_part_of_ogg_vorbis_at_another_rate_is_that_of_the_whole(
    rate: int, to_rate: int, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "a.ogg", bursts(rate), rate)
    assert_parts(tmp_path / "a.ogg", to_rate, allowed("vorbis").absolute)


def assert_parts(file: Path, to_rate: int, of_codec: float) -> None:
    whole, rate = read_audio(file)
    resampled, edge = resample(whole, rate, to_rate), round(EDGE * to_rate)
    for first, last in parts(rate, to_rate):
        part, _ = read_audio(file, first / rate, last / rate)
        np.testing.assert_allclose(part, whole[first:last], atol=of_codec, rtol=0)
        brought = resample(part, rate, to_rate)
        expected = resampled[first * to_rate // rate : last * to_rate // rate]
        assert len(brought) == len(expected)
        inner = slice(edge, len(expected) - edge)
        np.testing.assert_allclose(
            brought[inner], expected[inner], atol=2 * of_codec + RESAMPLED.absolute, rtol=0
        )


@pytest.mark.parametrize("to_rate", [16_000, 44_100, 48_000])
@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000, 96_000])
def test_a_tone_stays_at_its_times_and_height(rate: int, to_rate: int) -> None:
    """The same sine at the other rate's times: no shift of a sample, no other length."""
    tone = np.sin(2 * np.pi * 1000 * np.arange(rate) / rate).astype(np.float32)
    brought, edge = resample(tone, rate, to_rate), to_rate // 50
    assert len(brought) == to_rate
    expected = np.sin(2 * np.pi * 1000 * np.arange(to_rate) / to_rate)
    np.testing.assert_allclose(brought[edge:-edge], expected[edge:-edge], atol=1e-4, rtol=0)
