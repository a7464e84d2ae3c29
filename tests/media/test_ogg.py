"""Ogg: streams in a row and side by side, and granules, which tell when a page ends, that begin late."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from avalign.media.file import MediaError
from avalign.media.ogg import last_pages
from avalign.media.read import read_audio, read_frames, seconds_of
from tests.helpers.media_files import SECONDS, bursts, heard_at

RATE = 48_000


def test_streams_of_one_ogg_file_are_read_to_the_last(tmp_path: Path) -> None:
    """As web radio records them; libsndfile alone reads the first."""
    sound = bursts(48_000)
    one, two = tmp_path / "one.ogg", tmp_path / "two.ogg"
    soundfile.write(one, sound, 48_000)
    two.write_bytes(one.read_bytes() * 2)
    once, rate = read_audio(one)
    twice, _ = read_audio(two)
    np.testing.assert_array_equal(twice, np.concatenate([once, once]))
    part, _ = read_audio(two, SECONDS - 1.0, SECONDS + 1.0)
    np.testing.assert_allclose(part, twice[(SECONDS - 1) * rate : (SECONDS + 1) * rate], atol=1e-6)
    assert seconds_of(two) == 2 * SECONDS


def test_streams_of_other_rates_behind_each_other_are_refused(tmp_path: Path) -> None:
    for rate in (8_000, 16_000):
        soundfile.write(tmp_path / f"{rate}.ogg", bursts(rate), rate)
    both = tmp_path / "both.ogg"
    both.write_bytes(b"".join((tmp_path / f"{rate}.ogg").read_bytes() for rate in (8_000, 16_000)))
    with pytest.raises(MediaError, match="different rates"):
        read_audio(both)


def pages(content: bytes) -> Iterator[bytearray]:
    at = 0
    while at < len(content):
        segments = content[at + 26]
        size = 27 + segments + sum(content[at + 27 : at + 27 + segments])
        yield bytearray(content[at : at + size])
        at += size


def checksum(page: bytes) -> int:
    """CRC of 32 bits by 0x04c11db7, as RFC 3533 has it."""
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ 0x04C11DB7 if crc & 1 << 31 else crc << 1) & 0xFFFFFFFF
    return crc


def at_granule(page: bytearray, samples: int) -> bytearray:
    """The page so many samples later."""
    granule = int.from_bytes(page[6:14], "little")
    if granule:
        page[6:14], page[22:26] = (granule + samples).to_bytes(8, "little"), bytes(4)
        page[22:26] = checksum(page).to_bytes(4, "little")
    return page


def later(content: bytes, samples: int) -> bytes:
    """As it is recorded when one joins a stream that is on air."""
    return b"".join(at_granule(page, samples) for page in pages(content))


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
@pytest.mark.parametrize("samples", [100, 4_800, 10 * RATE, 3_600 * RATE])
def test_sound_alone_begins_at_0_whatever_its_first_granule(
    samples: int, subtype: str, tmp_path: Path
) -> None:
    file, joined = tmp_path / "a.ogg", tmp_path / "joined.ogg"
    soundfile.write(file, bursts(RATE), RATE, format="OGG", subtype=subtype)
    joined.write_bytes(later(file.read_bytes(), samples))
    whole, _ = read_audio(file)
    np.testing.assert_array_equal(read_audio(joined)[0], whole)
    assert seconds_of(joined) == SECONDS
    part, _ = read_audio(joined, 1.2, 2.7)
    np.testing.assert_allclose(part, whole[round(1.2 * RATE) : round(2.7 * RATE)], atol=1e-6)


def vorbis(file: Path, trimmed: int) -> int:
    """Writes four seconds whose last samples its last page, a long one, does not count, as FFmpeg does where
    sound ends within a block; how many are left."""
    soundfile.write(file, bursts(RATE), RATE, format="OGG", subtype="VORBIS")
    *before, last_but_one, last = pages(file.read_bytes())
    head, more = 27 + last_but_one[26], 27 + last[26]
    last[26] += last_but_one[26]
    joined = last[:27] + last_but_one[27:head] + last[27:more] + last_but_one[head:] + last[more:]
    joined[18:22] = last_but_one[18:22]  # the page's number
    file.write_bytes(b"".join([*before, at_granule(joined, -trimmed)]))
    return SECONDS * RATE - trimmed


@pytest.mark.parametrize("trimmed", [0, 1, 901, 3_000])
@pytest.mark.parametrize("copies", [1, 2])
def test_parts_in_the_last_page_of_vorbis_are_those_of_the_whole(
    copies: int, trimmed: int, tmp_path: Path
) -> None:
    file = tmp_path / "a.ogg"
    samples = vorbis(tmp_path / "one.ogg", trimmed)
    file.write_bytes((tmp_path / "one.ogg").read_bytes() * copies)
    whole, _ = read_audio(file)
    assert len(whole) == copies * samples
    (ends,) = set(last_pages((tmp_path / "one.ogg").read_bytes()))
    for behind in (-700, -1, 0, 1, 700, ends // 2, ends - 1_500):
        for end in range(samples, copies * samples + 1, samples):
            first = max(0, end - ends + behind)
            part, _ = read_audio(file, first / RATE, (first + 1_500) / RATE)
            np.testing.assert_allclose(part, whole[first : first + 1_500], atol=1e-6)


@pytest.mark.parametrize("cut", [1_000, 15_000, 22_000])
def test_vorbis_cut_without_coding_anew_begins_at_0(cut: int, tmp_path: Path) -> None:
    """Its first page holds what is before 0, and its granule counts less than it holds."""
    vorbis(tmp_path / "a.ogg", 0)
    whole, _ = read_audio(tmp_path / "a.ogg")
    file = tmp_path / "cut.ogg"
    file.write_bytes(later((tmp_path / "a.ogg").read_bytes(), -cut))
    rest, _ = read_audio(file)
    np.testing.assert_allclose(rest, whole[cut:], atol=1e-4)
    assert seconds_of(file) == len(rest) / RATE
    for start, end in ((0.0, 0.3), (0.4, 0.6), (1.2, 2.7), (2.9, 3.1)):
        part, _ = read_audio(file, start, end)
        np.testing.assert_allclose(part, rest[round(start * RATE) : round(end * RATE)], atol=1e-4)
    with pytest.raises(MediaError, match="lasts"):
        read_audio(file, len(rest) / RATE + 0.1, SECONDS + 1)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="there is no ffmpeg")
@pytest.mark.parametrize("late", [0.0, 0.8])
@pytest.mark.parametrize("codec", ["libvorbis", "libopus", "flac"])
def test_theora_and_its_sound_share_a_clock(codec: str, late: float, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", bursts(RATE), RATE)
    picture = ["-f", "lavfi", "-i", f"testsrc=duration={SECONDS}:size=96x64"]
    sound = ["-itsoffset", f"{late}", "-i", tmp_path / "a.wav"]
    file = tmp_path / "a.ogv"
    command = ["ffmpeg", "-v", "error", *picture, *sound, "-c:v", "libtheora", "-c:a", codec, file]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this ffmpeg has no such encoder")
    whole, rate = read_audio(file)
    np.testing.assert_allclose(heard_at(whole, rate), np.arange(SECONDS) + 0.5 + late, atol=0.004)
    assert seconds_of(file) == len(whole) / rate
    assert len(whole) / rate == pytest.approx(SECONDS + late, abs=0.03)
    for start, end in ((0.1, 0.9), (1.0, 1.1), (1.4, 3.0), (3.2, 3.9)):
        part, _ = read_audio(file, start, end)
        np.testing.assert_allclose(part, whole[round(start * rate) : round(end * rate)], atol=1e-4)
    assert len(read_frames(file, [0.0, 2.0, 3.9])) == 3
