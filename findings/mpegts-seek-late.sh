#!/usr/bin/env bash
# FFmpeg by PyAV: where seeking "backward" lands in an MPEG transport stream, and where its clock begins.
#
# Guess, written down before this script: `seek(t, backward=True)` lands on a key frame at or before t, as in MP4,
#   and decoding on from there finds the frame at t; and a file's clock begins at 0 for each of its streams.
# Versions: av 18.1.0 and the FFmpeg that it brings, numpy 2.4.6, Python 3.11.
# Behaviour: neither holds. The demuxer, which has no index, seeks to the packet whose time is at or before t, key
#   frame or not, and the decoder gives nothing before the next key frame: the first frame is up to a GOP
#   (here 2 s) after t, even where t is a key frame's own time, and from the last key frame on there is none at
#   all. The two streams begin at different times, neither at 0. MP4 of the same frames: on the key frame at
#   or before t, and both from 0. So seek earlier until the first frame is at or before t, on the file's clock.
# Output seen: the text at the end; any other output ends this script with 1.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"

cat > seek.py <<'PY'
import av
import numpy as np

GOP = {"g": "50", "keyint_min": "50", "sc_threshold": "0"}  # a key frame every 2 s


def write(path):
    with av.open(path, "w") as file:
        video = file.add_stream("libx264", rate=25, width=64, height=48, pix_fmt="yuv420p", options=GOP)
        audio = file.add_stream("aac", rate=48000, layout="mono")
        for number in range(250):
            picture = av.VideoFrame.from_ndarray(np.full((72, 64), number % 200, np.uint8), format="yuv420p")
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 1920), np.float32), format="fltp", layout="mono")
            picture.pts, sound.pts, sound.sample_rate = number, number * 1920, 48000
            file.mux(video.encode(picture))
            file.mux(audio.encode(sound))
        file.mux(video.encode(None))
        file.mux(audio.encode(None))


def first_after_seek(path, seconds):
    """Time of the first frame decoded after a seek, both counted from the video's start."""
    with av.open(path) as file:
        video = file.streams.video[0]
        file.seek(video.start_time + int(seconds / video.time_base), stream=video, backward=True)
        frame = next(file.decode(video), None)
        return "none" if frame is None else f"{float((frame.pts - video.start_time) * video.time_base):.2f}"


for path in ("film.mp4", "film.ts"):
    write(path)
    with av.open(path) as file:
        starts = ", ".join(f"{s.type} {float(s.start_time * s.time_base):.3f}" for s in file.streams)
    print(f"{path} starts: {starts}")
    print(f"{path} seeks:", *(f"{t}->{first_after_seek(path, t)}" for t in (0, 1, 2, 3, 5, 7, 9)))
PY

python3.11 -m venv env
env/bin/pip install -q --disable-pip-version-check av==18.1.0 numpy==2.4.6
env/bin/python seek.py > seen.txt
diff - seen.txt <<'EXPECTED'
film.mp4 starts: video 0.000, audio 0.000
film.mp4 seeks: 0->0.00 1->0.00 2->2.00 3->2.00 5->4.00 7->6.00 9->8.00
film.ts starts: video 0.080, audio 0.059
film.ts seeks: 0->2.00 1->2.00 2->4.00 3->4.00 5->6.00 7->8.00 9->none
EXPECTED
