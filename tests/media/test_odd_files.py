"""Files as recorders leave them: cut off, streamed, of several streams, of every sample format."""

from __future__ import annotations

import os
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from avalign.media.file import MediaError, Stored
from avalign.media.read import read_audio, read_frames, seconds_of
from tests.helpers.media_files import SECONDS, Kind, bursts, heard_at, write

RATE = 48_000


def reads_as_it_says(file: Path) -> float | None:
    """Its length if sound and length agree; None if both are refused."""
    try:
        audio, rate = read_audio(file)
    except MediaError:
        with pytest.raises(MediaError):
            seconds_of(file)
        return None
    assert seconds_of(file) == pytest.approx(len(audio) / rate, abs=1e-3)
    return len(audio) / rate


@pytest.mark.parametrize("suffix", ["wav", "flac", "aiff", "au", "w64", "caf", "ogg", "mp3"])
def test_a_cut_file_is_as_long_as_it_decodes(suffix: str, tmp_path: Path) -> None:
    whole = tmp_path / f"whole.{suffix}"
    soundfile.write(whole, bursts(RATE), RATE)
    content = whole.read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    for share in np.random.default_rng(0).uniform(0.02, 0.98, 6):
        cut.write_bytes(content[: int(len(content) * share)])
        seconds = reads_as_it_says(cut)
        assert seconds is None or seconds < SECONDS


@pytest.mark.parametrize("to_end", [False, True])
def test_flac_cut_without_coding_anew_begins_at_0(to_end: bool, tmp_path: Path) -> None:
    """Its frames keep the numbers that they had, and its header the length of the whole."""
    soundfile.write(tmp_path / "a.flac", bursts(RATE), RATE)
    whole, _ = read_audio(tmp_path / "a.flac")
    file = tmp_path / "cut.flac"
    with av.open(str(tmp_path / "a.flac")) as source, av.open(str(file), "w") as cut:
        stream = cut.add_stream_from_template(source.streams.audio[0])
        packets = [packet for packet in source.demux() if packet.size]
        kept = packets[10:] if to_end else packets[10:30]
        for packet in kept:
            packet.stream = stream
            cut.mux(packet)
    first, last = kept[0].pts, SECONDS * RATE if to_end else packets[30].pts
    rest, _ = read_audio(file)
    np.testing.assert_allclose(rest, whole[first:last], atol=1e-6)
    assert seconds_of(file) == len(rest) / RATE
    for start, end in ((0.0, 0.3), (0.6, 0.7), (1.1, 1.6)):
        part, _ = read_audio(file, start, end)
        np.testing.assert_array_equal(part, rest[round(start * RATE) : round(end * RATE)])
    with pytest.raises(MediaError, match="lasts"):
        read_audio(file, len(rest) / RATE - 0.1, len(rest) / RATE + 0.1)


def test_a_flac_file_whose_header_says_other_lengths(tmp_path: Path) -> None:
    whole, other = tmp_path / "whole.flac", tmp_path / "other.flac"
    soundfile.write(whole, bursts(RATE), RATE)
    content = bytearray(whole.read_bytes())
    for samples in (0, 2 * SECONDS * RATE):  # unknown, and too many
        content[22:26] = samples.to_bytes(4, "big")  # the last 32 bits of the number of samples
        other.write_bytes(content)
        assert reads_as_it_says(other) == SECONDS


@pytest.mark.parametrize("suffix", ["flac", "mp3"])
@pytest.mark.parametrize("share", [0.31, 0.5, 0.93, 0.999])
def test_a_file_cut_within_a_packet_is_read_to_the_packet_before(
    share: float, suffix: str, tmp_path: Path
) -> None:
    file = tmp_path / f"a.{suffix}"
    soundfile.write(file, bursts(RATE), RATE)
    whole, content = read_audio(file)[0], file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    seconds = reads_as_it_says(file)
    assert seconds == pytest.approx(share * SECONDS, abs=0.2)
    there, _ = read_audio(file)
    np.testing.assert_allclose(there[: RATE // 2], whole[: RATE // 2], atol=1e-4)


def test_what_is_broken_in_its_middle_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "broken.mka"
    with av.open(str(write(tmp_path, Kind("mka", "flac")))) as source, av.open(str(file), "w") as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        for number, packet in enumerate(source.demux(audio=0)):
            if packet.dts is None:
                continue
            if number == 20:
                broken = av.Packet(bytes(packet.size))
                broken.pts, broken.dts, broken.time_base = packet.pts, packet.dts, packet.time_base
                packet = broken
            packet.stream = stream
            target.mux(packet)
    with pytest.raises(MediaError, match="Invalid data"):
        read_audio(file)


@pytest.mark.parametrize("data", [0, 0xFFFFFFFF, 0x7FFFFFFF, 10 << 20])
@pytest.mark.parametrize("riff", [0, 36, 0xFFFFFFFF])
def test_a_streamed_wav_file_is_read_to_its_end(riff: int, data: int, tmp_path: Path) -> None:
    file = tmp_path / "a.wav"
    soundfile.write(file, bursts(RATE), RATE)
    content = bytearray(file.read_bytes())
    at = content.index(b"data")
    content[4:8], content[at + 4 : at + 8] = riff.to_bytes(4, "little"), data.to_bytes(4, "little")
    file.write_bytes(content)
    assert reads_as_it_says(file) == SECONDS


def test_an_empty_wav_file_with_a_tag_behind_is_empty(tmp_path: Path) -> None:
    file = tmp_path / "a.wav"
    soundfile.write(file, np.zeros(0, np.float32), RATE)
    tag = b"LIST" + (400).to_bytes(4, "little") + b"INFO" + bytes(396)
    content = file.read_bytes()
    file.write_bytes(content[:4] + (len(content) + len(tag) - 8).to_bytes(4, "little") + content[8:] + tag)
    with pytest.raises(MediaError, match="holds no audio samples"):
        read_audio(file)


@pytest.mark.parametrize("rates", [(48_000, 32_000), (32_000, 48_000), (44_100, 48_000)])
def test_a_rate_that_changes_within_a_stream_loses_nothing(rates: tuple[int, int], tmp_path: Path) -> None:
    parts = [write(tmp_path, Kind("ts", "mp2", rate=rate)).read_bytes() for rate in rates]
    file = tmp_path / "both.ts"
    file.write_bytes(b"".join(parts))
    audio, rate = read_audio(file)
    assert rate == rates[0]
    heard = heard_at(audio, rate)
    assert len(heard) == 2 * SECONDS
    assert np.ptp(np.diff(heard)[: SECONDS - 1]) < 0.002
    assert np.ptp(np.diff(heard)[SECONDS:]) < 0.002
    assert len(audio) / rate == pytest.approx(2 * SECONDS, abs=0.1)


def test_a_long_file_of_frames_alone_is_read_without_drift(tmp_path: Path) -> None:
    """A frame of AC-3 at 44.1 kHz is no whole number of the ticks that FFmpeg counts in."""
    one, file = write(tmp_path, Kind("ac3", "ac3", rate=44_100)), tmp_path / "long.ac3"
    short, rate = read_audio(one)
    file.write_bytes(one.read_bytes() * 25)
    whole, _ = read_audio(file)
    assert len(whole) == 25 * len(short)
    assert seconds_of(file) == len(whole) / rate
    part, _ = read_audio(file, 90.0, 95.0)
    assert heard_at(part, rate) == heard_at(whole[90 * rate : 95 * rate], rate)


def two_sounds(file: Path, channels: tuple[int, int], default: int | None) -> Path:
    """Streams of the constants 0.25 and 0.5."""
    with av.open(str(file), "w") as container:
        streams = [
            container.add_stream("flac", rate=RATE, layout={1: "mono", 2: "stereo"}[n]) for n in channels
        ]
        for number, stream in enumerate(streams):
            if default is not None:
                flag = av.stream.Disposition.default
                stream.disposition = flag if number == default else av.stream.Disposition(0)
        for number, stream in enumerate(streams):
            level = round(0.25 * (number + 1) * 32768)
            samples = np.full((1, 8192 * channels[number]), level, np.int16)
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout=stream.layout.name)
            frame.rate, frame.pts = RATE, 0
            container.mux([*stream.encode(frame), *stream.encode(None)])
    return file


@pytest.mark.parametrize(
    ("channels", "default", "heard"),
    [((1, 1), 1, 0.5), ((1, 1), 0, 0.25), ((2, 1), 1, 0.5), ((1, 2), 0, 0.25)],
)
def test_the_default_stream_is_heard(
    channels: tuple[int, int], default: int, heard: float, tmp_path: Path
) -> None:
    audio, _ = read_audio(two_sounds(tmp_path / "a.mkv", channels, default))
    assert np.abs(audio - heard).max() < 1e-4


@pytest.mark.parametrize(
    "subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAW", "ULAW"]
)
def test_every_sample_format_is_read_at_its_scale(subtype: str, tmp_path: Path) -> None:
    sound, file = bursts(8_000), tmp_path / "a.wav"
    soundfile.write(file, sound, 8_000, subtype=subtype)
    coarse = {"PCM_U8": 0.008, "ALAW": 0.03, "ULAW": 0.03}.get(subtype, 1e-4)
    np.testing.assert_allclose(read_audio(file)[0], sound, atol=coarse)


def test_six_channels_are_their_mean_and_nothing_is_clipped(tmp_path: Path) -> None:
    sound = np.arange(1, 7, dtype=np.float32) * np.ones((4_800, 1), np.float32)
    soundfile.write(tmp_path / "a.wav", sound, RATE, subtype="FLOAT")
    audio, _ = read_audio(tmp_path / "a.wav")
    np.testing.assert_allclose(audio, 3.5)


@pytest.mark.parametrize(
    "kind",
    [
        Kind("wav", "pcm_s16le"),
        Kind("ogg", "libopus"),
        Kind("mp3", "libmp3lame"),
        Kind("mp4", "aac", "mpeg4"),
    ],
    ids=str,
)
def test_a_stored_file_is_read_once_and_as_the_file(kind: Kind, tmp_path: Path) -> None:
    file, reads = write(tmp_path, kind), []

    def content() -> bytes:
        reads.append(1)
        return file.read_bytes()

    stored = Stored("a.tar/a", content)
    np.testing.assert_array_equal(read_audio(stored, 1.0, 2.0)[0], read_audio(file, 1.0, 2.0)[0])
    assert len(reads) == 1
    assert seconds_of(stored) == seconds_of(file)
    assert len(reads) == 2
    if kind.video:
        np.testing.assert_array_equal(read_frames(stored, [1.0, 2.0]), read_frames(file, [1.0, 2.0]))
        assert len(reads) == 3


def test_pipes_and_devices_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    for file in (tmp_path / "pipe.wav", Path("/dev/zero")):
        for read in (read_audio, seconds_of, lambda path: read_frames(path, [0.0])):
            with pytest.raises(MediaError, match="pipe or device"):
                read(file)
