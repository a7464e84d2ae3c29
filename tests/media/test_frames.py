"""The very frame that a video shows at a time, whatever codec, order of frames and container."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from avalign.avfit.check.lines import VIDEO
from avalign.avfit.check.media import measured
from avalign.media.read import read_frames
from tests.helpers.coded_video import FRAMES, Film, coded, number_of, steady, uneven, write

NTSC = Fraction(30_000, 1001)
FINE = Fraction(1, 1000)
BEFORE = 0.002  # seconds before the next frame: stamps of milliseconds are half of one off
SMOOTH = {"preset": "veryfast", "x264-params": "bframes=3:b-adapt=0:b-pyramid=normal:scenecut=0:log-level=-1"}
OPEN = {"preset": "veryfast", "x264-params": "bframes=3:b-adapt=0:open-gop=1:scenecut=0:log-level=-1"}
HEVC = {"preset": "ultrafast", "x265-params": "bframes=3:log-level=none"}  # its groups are open
AHEAD = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "16", "auto-alt-ref": "1"}
EDITED = {"avoid_negative_ts": "disabled", "use_editlist": "1"}

FILMS = [
    *(Film("B frames", s, "libx264", steady(25), options=SMOOTH) for s in ("mp4", "mkv", "ts", "flv", "3gp")),
    *(Film("B frames", s, "libx264", steady(25), options=SMOOTH) for s in ("avi", "asf", "mpg")),
    *(Film("open groups", s, "libx264", steady(NTSC), 1 / NTSC, OPEN) for s in ("mov", "mkv", "ts", "avi")),
    *(Film("uneven", s, "libx264", uneven(1), FINE, SMOOTH) for s in ("mp4", "mkv", "ts", "flv")),
    *(Film("uneven, open", s, "libx264", uneven(2), FINE, OPEN) for s in ("mp4", "mkv", "ts")),
    *(Film("from 10 s", s, "libx264", steady(25, begin=10), options=SMOOTH) for s in ("mp4", "mkv", "ts")),
    Film("stamps run over", "ts", "libx264", steady(25, begin=95_442), options=SMOOTH),
    *(
        Film("10 bits", s, "libx265", steady(25), options=HEVC, pixels="yuv420p10le")
        for s in ("mp4", "mkv", "ts")
    ),
    *(
        Film("10 bits, uneven", s, "libx265", uneven(3), FINE, HEVC, "yuv420p10le")
        for s in ("mp4", "mkv", "ts")
    ),
    Film("10 bits", "mov", "prores_ks", steady(25), pixels="yuv422p10le"),
    Film("hidden frames", "webm", "libvpx-vp9", steady(25), options=AHEAD),
    Film("hidden frames, uneven", "webm", "libvpx", uneven(4), FINE, AHEAD),
    *(
        Film("B frames", s, codec, steady(25), options={"bf": "2"})
        for s in ("ts", "mpg", "avi", "mkv")
        for codec in ("mpeg2video", "mpeg4")
    ),
    Film("still by still", "avi", "mjpeg", steady(25), pixels="yuvj420p"),
    Film("of Windows", "wmv", "wmv2", steady(25)),
]


def assert_exact(file: Path, begins: Sequence[Fraction | float], numbers: Sequence[int]) -> None:
    """At each frame's begin, in its middle and just before its end, in any order, it is read."""
    random = np.random.default_rng(0)
    ends = [*map(float, begins[1:]), float(begins[-1]) + 0.04]
    inside = [0.0, 0.5, 1.0] * (len(numbers) // 3 + 1)
    times = [
        float(begin) + (end - BEFORE - float(begin)) * random.choice(inside)
        for begin, end in zip(begins, ends, strict=True)
    ]
    order = random.permutation(len(numbers))
    found = [number_of(frame) for frame in read_frames(file, [times[k] for k in order])]
    assert found == [numbers[k] for k in order]


@pytest.mark.parametrize("film", FILMS, ids=str)
def test_the_frame_shown_at_a_time_is_read(film: Film, tmp_path: Path) -> None:
    file = write(tmp_path, film)
    assert_exact(file, [time - film.times[0] for time in film.times], range(len(film.times)))


@pytest.mark.parametrize("name", ["B frames", "open groups", "10 bits"])
def test_the_videos_have_frames_out_of_order(name: str, tmp_path: Path) -> None:
    film = next(film for film in FILMS if film.name == name and film.suffix in ("mp4", "mov"))
    with av.open(str(write(tmp_path, film))) as container:
        stamps = [packet.pts for packet in container.demux(video=0) if packet.pts is not None]
    assert stamps != sorted(stamps)


def test_what_an_edit_list_cuts_off_is_not_shown(tmp_path: Path) -> None:
    """As cameras and editors cut without coding anew: the file holds seven frames that nobody sees."""
    film = Film("edited", "mp4", "libx264", steady(25, begin=Fraction(-7, 25)), options=SMOOTH, muxer=EDITED)
    assert_exact(write(tmp_path, film), steady(25, FRAMES - 7), range(7, FRAMES))


# ---- turned and mirrored ----

TURNS = {  # a, b, c, d of the matrix that takes a stored pixel (x, y) to (a x + c y, b x + d y), y downwards
    "as stored": ((1, 0, 0, 1), lambda seen: seen),
    "to the right": ((0, 1, -1, 0), lambda seen: np.rot90(seen, 1)),
    "half": ((-1, 0, 0, -1), lambda seen: np.rot90(seen, 2)),
    "to the left": ((0, -1, 1, 0), lambda seen: np.rot90(seen, -1)),
    "mirrored": ((-1, 0, 0, 1), lambda seen: seen[:, ::-1]),
    "upside down in a mirror": ((1, 0, 0, -1), lambda seen: seen[::-1]),
    "mirrored and to the right": ((0, 1, 1, 0), lambda seen: seen.swapaxes(0, 1)),
    "mirrored and to the left": ((0, -1, -1, 0), lambda seen: np.rot90(seen, 2).swapaxes(0, 1)),
}


def with_matrix(file: Path, matrix: tuple[int, int, int, int]) -> None:
    """Nine numbers, 48 bytes into 'tkhd', as a phone writes them."""
    a, b, c, d = (number << 16 for number in matrix)
    content = bytearray(file.read_bytes())
    head = content.index(b"tkhd") + 4
    content[head + 40 : head + 76] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    file.write_bytes(content)


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_turned_or_mirrored_video_is_set_upright(suffix: str, turn: str, tmp_path: Path) -> None:
    matrix, stored_of = TURNS[turn]
    file = write(tmp_path, Film("turned", "mp4", "libx264", steady(25, 20), options=SMOOTH), stored_of)
    with_matrix(file, matrix)
    if suffix == "mkv":
        file = behind_another_head(file, tmp_path / "turned.mkv")
    assert_exact(file, steady(25, 20), range(20))


def behind_another_head(file: Path, to: Path) -> Path:
    """The same packets in another container."""
    with av.open(str(file)) as source, av.open(str(to), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return to


# ---- what ffmpeg makes, and what it shows ----

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="there is no ffmpeg")


def ffmpeg(*arguments: str | Path, given: bytes | None = None) -> tuple[bytes, str]:
    """What it writes to its output, and what it says."""
    command = ["ffmpeg", "-hide_banner", "-y", *map(str, arguments)]
    done = subprocess.run(command, input=given or b"", capture_output=True, timeout=60)
    said = done.stderr.decode(errors="replace")
    if "Unknown encoder" in said or "Error while opening encoder" in said:
        pytest.skip("this ffmpeg has no such encoder")
    assert done.returncode == 0, said
    return done.stdout, said


ALL = ("-map", "0", "-f", "null", "-")


def shown_by_ffmpeg(file: Path) -> tuple[list[float], list[int]]:
    """When each frame begins, in seconds, and its number. Its clock is that of the streams it uses: all."""
    picked = ["-map", "0:v", "-vf", "showinfo", "-fps_mode", "passthrough"]
    shown, said = ffmpeg("-i", file, *picked, "-f", "rawvideo", "-pix_fmt", "rgb24", "-", *ALL)
    begins = [float(time) for time in re.findall(r"pts_time:\s*([\d.]+)", said)]
    frames = np.frombuffer(shown, np.uint8).reshape(len(begins), *coded(0).shape)
    return begins, [number_of(frame) for frame in frames]


@needs_ffmpeg
@pytest.mark.parametrize(
    "film", [film for film in FILMS if film.suffix in ("mp4", "mov", "mkv", "ts", "webm", "flv")], ids=str
)
def test_the_frame_is_the_one_that_ffmpeg_shows(film: Film, tmp_path: Path) -> None:
    file = write(tmp_path, film)
    begins, numbers = shown_by_ffmpeg(file)
    assert len(numbers) == FRAMES
    assert_exact(file, begins, numbers)


MADE = {
    "10bit.webm": "-c:v libvpx-vp9 -pix_fmt yuv420p10le -b:v 4M -g 12 -deadline realtime -cpu-used 8",
    "10bit-vp9.mp4": "-c:v libvpx-vp9 -pix_fmt yuv420p10le -b:v 4M -g 12 -deadline realtime -cpu-used 8",
    "av1.mp4": "-c:v libaom-av1 -pix_fmt yuv420p10le -crf 5 -g 12 -cpu-used 8 -usage realtime",
    "theora.ogv": "-c:v libtheora -b:v 4M -g 12",
    "theora-late.ogv": "-c:v libtheora -b:v 4M -g 12 -output_ts_offset 3",
    "theora-again.ogv": "-r 50 -c:v libtheora -b:v 4M -g 12",  # every second frame is empty: as before
    "vp8.ogv": "-c:v libvpx -b:v 4M -g 12 -deadline realtime -cpu-used 8",
    "xvid.avi": "-c:v mpeg4 -vtag xvid -bf 2 -b:v 4M -g 12",
    "long.mp4": "-f lavfi -i sine=300:duration=2 -c:v libx264 -preset veryfast -bf 3 -g 12",
}


@needs_ffmpeg
@pytest.mark.parametrize("name", MADE)
def test_videos_that_ffmpeg_makes(name: str, tmp_path: Path) -> None:
    file = made_by_ffmpeg(tmp_path / name)
    assert_exact(file, steady(25), range(FRAMES))
    facts = measured(file, VIDEO)
    assert not facts.code, facts.why
    assert facts.begin == 0
    assert facts.end == pytest.approx(FRAMES / 25, abs=0.05)


def made_by_ffmpeg(file: Path) -> Path:
    raw = np.stack([coded(number) for number in range(FRAMES)]).tobytes()
    given = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-video_size", "96x64", "-framerate", "25", "-i", "-"]
    ffmpeg(*given, *MADE[file.name].split(), file, given=raw)
    return file


@needs_ffmpeg
@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "ts"])
@pytest.mark.parametrize("cut", ["0.7", "1.01"])
def test_a_video_cut_without_coding_anew(suffix: str, cut: str, tmp_path: Path) -> None:
    whole, part = made_by_ffmpeg(tmp_path / "long.mp4"), tmp_path / f"part.{suffix}"
    ffmpeg("-ss", cut, "-i", whole, "-c", "copy", part)
    begins, numbers = shown_by_ffmpeg(part)
    assert len(numbers) > 20
    assert_exact(part, begins, numbers)
