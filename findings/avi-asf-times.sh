#!/usr/bin/env bash
# FFmpeg by PyAV: the times of decoded frames in AVI and ASF, most of all where the video has B-frames.
#
# Expected (set down after a first trial, not before it): these files store one stamp a frame, in the order of
#   decoding; but FFmpeg knows the codec, so `frame.time` is right as in MP4, or is None. At worst it is off by the
#   same for all frames.
# Versions: av 18.1.0 and the FFmpeg that it brings (8.1.2), numpy 2.4.6, Python 3.11.
# Behaviour: PyAV sets FFmpeg's flag "genpts" on every file it opens, and FFmpeg then makes up the times that are
#   missing. Frames come in the right order, but with H.264 their times go 1, 3, 4, 2 (in frames): up to two late,
#   or one early. Who sorts by time shuffles the video; who seeks and decodes up to a time gets up to two frames
#   too early. MPEG-4 part 2 is one frame late, and so is H.264 without B-frames, though the stream is said to
#   start at 0 (AVI) or nowhere (ASF). MP4 of the same frames is right. With the flag taken away (the last column)
#   the times are None, save some of MPEG-4's, still one late. So number the frames as they come.
# Output seen: the text at the end; any other output ends this script with 1.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"

cat > times.py <<'PY'
import av
import numpy as np

RATE, COUNT = 25, 60  # frames a second, frames


def write(path, codec, b_frames):
    """Frame n has the grey level 20 + 3 n; a key frame every 30."""
    scene_cut = {"libx264": "0", "mpeg4": "1000000000"}[codec]  # never
    options = {"g": "30", "bf": str(b_frames), "b_strategy": "0", "sc_threshold": scene_cut}
    with av.open(path, "w") as file:
        stream = file.add_stream(codec, rate=RATE, width=64, height=48, pix_fmt="yuv420p", options=options)
        stream.bit_rate = 2_000_000
        for number in range(COUNT):
            planes = np.full((72, 64), 128, np.uint8)
            planes[:48] = 20 + 3 * number
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.pts = number
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


def painted(frame):
    return round((frame.to_ndarray()[:48].mean() - 20) / 3)


def in_frames(frames):
    return " ".join("-" if frame.time is None else f"{frame.time * RATE:g}" for frame in frames)


def read_at(path, number):
    """What a seek to the time of frame `number` and decoding on, while times are not after it, end at."""
    with av.open(path) as file:
        stream, last = file.streams.video[0], None
        file.seek(round(number / RATE / stream.time_base), stream=stream)
        for frame in file.decode(stream):
            if last is not None and frame.time is not None and frame.time > (number + 0.5) / RATE:
                break
            last = frame
        return painted(last)


for codec, b_frames in (("libx264", 2), ("mpeg4", 2), ("libx264", 0), ("mpeg4", 0)):
    for kind in ("mp4", "avi", "asf"):
        path = f"film.{kind}"
        write(path, codec, b_frames)
        with av.open(path) as file:
            start = file.streams.video[0].start_time
            frames = list(file.decode(video=0))
        in_order = [painted(frame) for frame in frames] == list(range(COUNT))
        with av.open(path) as file:
            file.flags &= ~av.container.Flags.gen_pts.value
            stored = list(file.decode(video=0))
        times, without = in_frames(frames[:8]), in_frames(stored[:6])
        reads = " ".join(f"{n}->{read_at(path, n)}" for n in (10, 33, 50))
        print(f"{codec} bf={b_frames} {kind}: in order {in_order}, start {start}, times {times},", end=" ")
        print(f"read {reads}, without genpts {without}")
PY

python3.11 -m venv env
env/bin/pip install -q --disable-pip-version-check av==18.1.0 numpy==2.4.6
env/bin/python times.py > seen.txt
diff - seen.txt <<'EXPECTED'
libx264 bf=2 mp4: in order True, start 0, times 0 1 2 3 4 5 6 7, read 10->10 33->33 50->50, without genpts 0 1 2 3 4 5
libx264 bf=2 avi: in order True, start 0, times 1 3 4 2 6 7 5 9, read 10->9 33->31 50->48, without genpts - - - - - -
libx264 bf=2 asf: in order True, start None, times 1 3 4 2 6 7 5 9, read 10->9 33->31 50->48, without genpts - - - - - -
mpeg4 bf=2 mp4: in order True, start 0, times 0 1 2 3 4 5 6 7, read 10->10 33->33 50->50, without genpts 0 1 2 3 4 5
mpeg4 bf=2 avi: in order True, start 0, times 1 2 3 4 5 6 7 8, read 10->9 33->32 50->49, without genpts - 2 3 - 5 6
mpeg4 bf=2 asf: in order True, start None, times 1 2 3 4 5 6 7 8, read 10->9 33->32 50->49, without genpts - 2 3 - 5 6
libx264 bf=0 mp4: in order True, start 0, times 0 1 2 3 4 5 6 7, read 10->10 33->33 50->50, without genpts 0 1 2 3 4 5
libx264 bf=0 avi: in order True, start 0, times 1 2 3 4 5 6 7 8, read 10->9 33->32 50->49, without genpts - - - - - -
libx264 bf=0 asf: in order True, start None, times 1 2 3 4 5 6 7 8, read 10->9 33->32 50->49, without genpts - - - - - -
mpeg4 bf=0 mp4: in order True, start 0, times 0 1 2 3 4 5 6 7, read 10->10 33->33 50->50, without genpts 0 1 2 3 4 5
mpeg4 bf=0 avi: in order True, start 0, times 0 1 2 3 4 5 6 7, read 10->10 33->33 50->50, without genpts 0 1 2 3 4 5
mpeg4 bf=0 asf: in order True, start 0, times 0 1 2 3 4 5 6 7, read 10->10 33->33 50->50, without genpts 0 1 2 3 4 5
EXPECTED
