"""Every stream of a file on the file's one clock, whatever codec and container, and parts as in the whole."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from avalign.avfit.check.lines import AUDIO, VIDEO
from avalign.avfit.check.media import measured
from avalign.media.file import MediaError
from avalign.media.read import read_audio, read_frames, seconds_of
from tests.helpers.coded_video import number_of
from tests.helpers.media_files import FILMS, FPS, SECONDS, SOUNDS, Kind, bursts, heard_at, write

LATE = [
    Kind(suffix, audio, video, late_audio, late_video)
    for suffix, audio, video in FILMS
    for late_audio, late_video in ((0.0, 0.0), (0.8, 0.0), (0.0, 0.72))
]
GAPS = [
    Kind(suffix, audio, video, gap=(1.2, 2.2))
    for suffix, audio, video in (
        ("mp4", "aac", "libx264"), ("mkv", "aac", None), ("ts", "aac", "libx264"),
        ("mka", "flac", None), ("flv", "aac", "flv1"),
    )
]  # fmt: skip
DELAY = 0.03  # seconds of an encoder's, where the container cannot say that they are none of the sound


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("media")


def expected(kind: Kind) -> list[float]:
    times = [kind.late_audio + 0.5 + k for k in range(SECONDS)]
    return [t for t in times if kind.gap is None or not kind.gap[0] <= t < kind.gap[1]]


@pytest.mark.parametrize("kind", LATE + SOUNDS + GAPS, ids=str)
def test_sound_is_where_the_clock_says(kind: Kind, folder: Path) -> None:
    """Late streams and lost packets are silence; the length is what decodes; a part is that of the whole."""
    file = write(folder, kind)
    whole, rate = read_audio(file)
    assert rate == kind.rate
    heard = heard_at(whole, rate)
    assert len(heard) == len(expected(kind))
    off = np.array(heard) - expected(kind)
    assert np.ptp(off) < 0.002
    assert -0.002 < off[0] < DELAY
    assert len(whole) / rate == pytest.approx(SECONDS + kind.late_audio, abs=2 * DELAY)
    assert seconds_of(file) == pytest.approx(len(whole) / rate, abs=1e-4)
    for start, end in np.random.default_rng(0).uniform(0, SECONDS - 0.1, (4, 2)):
        start, end = min(start, end), max(start, end) + 0.05
        part, _ = read_audio(file, start, end)
        np.testing.assert_allclose(part, whole[round(start * rate) : round(end * rate)], atol=1e-4)
    assert measured(file, AUDIO).seconds == pytest.approx(len(whole) / rate, abs=1e-4)


@pytest.mark.parametrize("kind", [kind for kind in LATE if kind.video], ids=str)
def test_frames_are_where_the_clock_says(kind: Kind, folder: Path) -> None:
    file = write(folder, kind)
    (burst, *_), off_by = heard_at(*read_audio(file)), kind.late_audio + 0.5
    delay = burst - off_by  # an encoder's moves every stream
    numbers = np.random.default_rng(0).permutation(round(FPS * SECONDS))[:20]
    middles = [float((number + 0.5) / FPS + kind.late_video + delay) for number in numbers]
    assert [number_of(frame) for frame in read_frames(file, middles)] == numbers.tolist()
    facts = measured(file, VIDEO)
    assert facts.begin == pytest.approx(kind.late_video + delay * (kind.late_audio == 0), abs=DELAY)


WITH_FFMPEG = [
    kind
    for kind in LATE + SOUNDS
    if kind.suffix != "aac"
    and not kind.late_video
    and not (kind.suffix in ("ts", "mpg") and kind.late_audio)  # begun where the first *used* stream does
    and not (kind.suffix == "ogv" and kind.audio == "flac" and kind.late_audio)  # its first page at 0
]


@pytest.mark.parametrize("kind", WITH_FFMPEG, ids=str)
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="there is no ffmpeg to compare with")
def test_sound_is_where_ffmpeg_has_it(kind: Kind, folder: Path) -> None:
    file = write(folder, kind)
    command = ["ffmpeg", "-v", "error", "-i", str(file), "-vn", "-af", "aresample=async=1:first_pts=0"]
    said = subprocess.run([*command, "-ac", "1", "-f", "f32le", "-"], capture_output=True, check=True).stdout
    theirs = heard_at(np.frombuffer(said, np.float32), kind.rate)
    audio, rate = read_audio(file)
    off = np.array(heard_at(audio, rate)) - theirs
    assert np.ptp(off) < 0.004
    assert abs(off[0]) < DELAY  # releases of ffmpeg differ in whether an encoder's delay moves every stream


@pytest.mark.parametrize(
    "kind", [Kind("mp3", "libmp3lame"), Kind("flac", "flac"), Kind("mp4", "aac", "mpeg4")], ids=str
)
def test_what_was_cut_off_is_not_read_beyond_its_end(kind: Kind, folder: Path, tmp_path: Path) -> None:
    content = write(folder, kind).read_bytes()
    cut = tmp_path / f"cut.{kind.suffix}"
    cut.write_bytes(content[: len(content) * 6 // 10])
    with pytest.raises(MediaError):
        read_audio(cut, 3.0, 3.9)


def test_a_variable_rate_without_a_header_is_read_to_its_end(tmp_path: Path) -> None:
    """Cut from the front, as a recording of a stream is: nothing says how long it is."""
    rate, file = 44_100, tmp_path / "whole.mp3"
    loud = np.random.default_rng(0).standard_normal(30 * rate).astype(np.float32) * 0.2
    loud[3 * rate :] *= 0.001
    soundfile.write(file, loud, rate, bitrate_mode="VARIABLE", compression_level=0.5)
    content = file.read_bytes()
    second = content.index(content[:2], 200)  # the frame behind the one that says how long it is
    bare = tmp_path / "bare.mp3"
    bare.write_bytes(content[second:])
    audio, _ = read_audio(bare)
    assert len(audio) / rate == pytest.approx(30, abs=0.1)
    assert seconds_of(bare) == pytest.approx(len(audio) / rate, abs=1e-4)


@pytest.mark.parametrize("kind", [Kind("ts", "aac", "libx264"), Kind("mpg", "mp2", "mpeg2video")], ids=str)
def test_recordings_behind_one_another_are_heard_one_after_the_other(kind: Kind, folder: Path) -> None:
    """Each with its time stamps from the beginning on; whatever a seek finds, a part is that of the whole."""
    one = write(folder, kind)
    three = folder / f"three.{kind.suffix}"
    three.write_bytes(one.read_bytes() * 3)
    whole, rate = read_audio(three)
    assert len(whole) == 3 * len(read_audio(one)[0])
    assert len(heard_at(whole, rate)) == 3 * SECONDS
    assert seconds_of(three) == len(whole) / rate
    for start, end in ((1.0, 2.0), (5.0, 6.0), (7.3, 8.6), (11.0, 11.9)):
        part, _ = read_audio(three, start, end)
        np.testing.assert_allclose(part, whole[round(start * rate) : round(end * rate)], atol=1e-4)


ROUNDED = [
    Kind(suffix, audio, None, late, rate=rate)
    for suffix, audio, rates in (
        ("mka", "aac", (11_025, 22_050, 44_100)), ("mka", "libmp3lame", (22_050, 44_100)),
        ("mka", "mp2", (44_100,)), ("mka", "flac", (44_100,)),
        ("mka", "pcm_s16le", (11_025, 44_100)), ("webm", "libopus", (48_000,)),
        ("flv", "aac", (22_050, 44_100)), ("flv", "libmp3lame", (22_050, 44_100)),
    )
    for rate in rates
    for late in (0.0, 0.0213)
]  # fmt: skip


@pytest.mark.parametrize("kind", ROUNDED, ids=str)
def test_stamps_of_milliseconds_add_and_lose_no_sample(kind: Kind, folder: Path) -> None:
    """All that the decoder gives, one piece behind the other, wherever a part begins."""
    file = write(folder, kind)
    with av.open(str(file)) as container:
        resampler = av.AudioResampler(format="fltp")
        frames = [f for frame in container.decode(audio=0) for f in resampler.resample(frame)]
        given = np.concatenate([frame.to_ndarray()[0] for frame in frames])
    whole, rate = read_audio(file)
    assert abs(len(whole) - len(given)) <= 0.001 * rate  # of where the first begins
    np.testing.assert_allclose(whole[-len(given) :], given[-len(whole) :], atol=1e-6)
    for start in np.random.default_rng(0).uniform(0.5, SECONDS - 0.3, 6):
        part, _ = read_audio(file, start, start + 0.2)
        np.testing.assert_allclose(part, whole[round(start * rate) :][: len(part)], atol=1e-4)


def test_the_last_still_is_seen_while_the_sound_goes_on(tmp_path: Path) -> None:
    kind = Kind("mkv", "aac", "libx264", video_seconds=2.0)  # of 4 s of sound
    file = write(tmp_path, kind)
    assert [number_of(frame) for frame in read_frames(file, [3.9, 1.9, 1.97])] == [49, 47, 49]
    with pytest.raises(MediaError, match=r"no frame at 5 s"):
        read_frames(file, [5.0])


def test_the_first_frame_stands_for_a_second_before_it_begins(tmp_path: Path) -> None:
    early = write(tmp_path, Kind("mkv", "flac", "libx264", late_video=0.72))
    assert [number_of(frame) for frame in read_frames(early, [0.0, 0.7, 0.77])] == [0, 0, 1]
    late = write(tmp_path, Kind("mkv", "flac", "libx264", late_video=2.0))
    assert [number_of(frame) for frame in read_frames(late, [1.1, 2.05])] == [0, 1]
    with pytest.raises(MediaError, match=r"no frame at 0\.5 s: the first begins at 2\.00 s"):
        read_frames(late, [0.5])


def test_a_cover_image_is_no_video(tmp_path: Path) -> None:
    file = tmp_path / "a.mp4"
    with av.open(str(file), "w") as container:
        sound = container.add_stream("aac", rate=48_000, layout="mono")
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
        container.mux([*cover.encode(picture), *cover.encode(None)])
        piece = av.AudioFrame.from_ndarray(bursts(48_000)[None, :48_000], format="fltp", layout="mono")
        piece.rate = 48_000
        container.mux([*sound.encode(piece), *sound.encode(None)])
    with pytest.raises(MediaError, match="holds no video"):
        read_frames(file, [0.0])
    assert len(heard_at(*read_audio(file))) == 1


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="there is no ffmpeg to write Vorbis into Matroska")
def test_pieces_of_several_lengths_lie_within_a_millisecond(tmp_path: Path) -> None:
    """Of Vorbis in Matroska: its stamps are rounded, and no grid is there to set them right."""
    soundfile.write(tmp_path / "a.wav", bursts(44_100), 44_100)
    file = tmp_path / "a.mka"
    command = ["ffmpeg", "-v", "error", "-i", tmp_path / "a.wav", "-c:a", "libvorbis", file]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this ffmpeg has no such encoder")
    whole, rate = read_audio(file)
    assert seconds_of(file) == pytest.approx(len(whole) / rate, abs=0.001)
    beyond = rate // 1000
    for start in (0.8, 1.37, 2.1, 2.9):
        part, begin = read_audio(file, start, start + 0.4)[0], round(start * rate)
        inner = part[beyond:-beyond]
        off = [np.abs(inner - whole[begin + at :][: len(inner)]).max() for at in range(2 * beyond + 1)]
        assert min(off) < 1e-4
