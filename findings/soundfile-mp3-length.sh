#!/usr/bin/env bash
# libsndfile: how long it takes an MP3 of variable bitrate to be that has no Xing header (written through a pipe, say).
#
# Guess, written down before this script: its decoder reads to the file's end, whatever the estimated length is, as
#   PyAV's does; only what is said of the length beforehand may be off. So 30 s are read by both, header or not.
# Versions: soundfile 0.14.0 (the libsndfile it brings is in the output), av 18.1.0, numpy 2.4.6, Python 3.11.
# Behaviour: without the header soundfile takes the size of the first frames for that of all, says 5.0 s of a
#   file of 30 s (3 s are loud, 27 s are nearly silent and so made of small frames), and its read ends there:
#   no error, no warning, five sixths of the sound missing. PyAV says 27.4 s and decodes all of it.
# Output seen: the text at the end; any other output ends this script with 1.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"

cat > lengths.py <<'PY'
import av
import numpy as np
import soundfile

RATE, FRAME = 44100, 1152
noise = np.random.default_rng(0).uniform(-1, 1, (1, 30 * RATE)).astype(np.float32)
noise[:, 3 * RATE :] *= 0.001


def write(path, header):
    with av.open(path, "w", options={"write_xing": header}) as file:
        stream = file.add_stream("libmp3lame", rate=RATE, layout="mono")
        stream.codec_context.qscale = True  # variable bitrate, of the quality below (118 is libavcodec's unit)
        stream.codec_context.global_quality = 4 * 118
        for start in range(0, noise.shape[1], FRAME):
            frame = av.AudioFrame.from_ndarray(noise[:, start : start + FRAME], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = RATE, start
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


print(soundfile.__libsndfile_version__)
for name, header in (("header", "1"), ("no header", "0")):
    write("noise.mp3", header)
    said, read = soundfile.info("noise.mp3").frames, len(soundfile.read("noise.mp3")[0])
    print(f"{name}: soundfile says {said / RATE:.1f} s, reads {read / RATE:.1f} s")
    with av.open("noise.mp3") as file:
        said, decoded = file.duration / av.time_base, sum(frame.samples for frame in file.decode(audio=0))
        print(f"{name}: PyAV says {said:.1f} s, decodes {decoded / RATE:.1f} s")
PY

python3.11 -m venv env
env/bin/pip install -q --disable-pip-version-check av==18.1.0 soundfile==0.14.0 numpy==2.4.6
env/bin/python lengths.py > seen.txt
diff - seen.txt <<'EXPECTED'
1.2.2
header: soundfile says 30.0 s, reads 30.0 s
header: PyAV says 30.0 s, decodes 30.0 s
no header: soundfile says 5.0 s, reads 5.0 s
no header: PyAV says 27.4 s, decodes 30.0 s
EXPECTED
