#!/usr/bin/env bash
# FFmpeg by PyAV: whether a part of a recording, decoded after a seek, is the same part of the whole decode.
#
# Expected (set down after a first trial, not before it): it is, for each of these codecs, once the decoder has
#   had a lead-in, as blocks only overlap with their neighbours. A second of it is far more than enough; who finds
#   a difference after that has got the times wrong. And a file decoded twice gives the same samples twice.
# Versions: av 18.1.0 and the FFmpeg that it brings (8.1.2), numpy 2.4.6, Python 3.11.
# Behaviour: only of MP3, Opus, and AAC without "perceptual noise substitution" (which FFmpeg's encoder uses unless
#   told not to). AC-3 and E-AC-3 give noise to bands that got no bits, AAC to bands that are marked as noise: it
#   is drawn by a generator, so it depends on how much was decoded before. However long the lead-in, the part is
#   another: by 0.12 where the peak is 0.47 (AC-3 and E-AC-3 at 96 kbit/s), 0.06 (AAC at 64), 0.006 (AC-3 at 192).
#   At 448 kbit/s no band is empty, and all is equal, so the times are right. Decoding twice from the start gives
#   the same, but of AAC only if the file is opened anew: going back to 0 leaves its generator where it was.
# Output seen: the text at the end; any other output ends this script with 1.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"

cat > parts.py <<'PY'
import av
import numpy as np

RATE, SECONDS = 48000, 12
time = np.arange(SECONDS * RATE) / RATE
sound = 0.2 * np.sin(2 * np.pi * 440 * time) * (1 + 0.5 * np.sin(3 * time))
sound = (sound + 0.05 * np.random.default_rng(0).normal(size=time.size)).astype(np.float32)


def write(path, codec, bit_rate, options):
    with av.open(path, "w") as file:
        stream = file.add_stream(codec, rate=RATE, layout="mono", bit_rate=bit_rate, options=options)
        for start in range(0, sound.size, 960):
            kind = "flt" if codec == "libopus" else "fltp"
            frame = av.AudioFrame.from_ndarray(sound[None, start : start + 960], format=kind, layout="mono")
            frame.sample_rate, frame.pts = RATE, start
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


def decode(file, seconds=None):
    """Samples by the time stamp of their frame."""
    stream = file.streams.audio[0]
    if seconds is not None:
        file.seek(round(seconds / stream.time_base), stream=stream)
    return {frame.pts: frame.to_ndarray()[0] for frame in file.decode(stream)}


def difference(whole, part, after):
    """How large the largest difference is from the second `after` on."""
    stamps = [stamp for stamp in part if stamp >= after * RATE]
    assert stamps
    assert whole.keys() >= set(stamps)
    largest = max(np.abs(whole[stamp] - part[stamp]).max() for stamp in stamps)
    bounds = [bound for bound in (0.03, 0.003, 0) if largest > bound]
    return f"over {bounds[0]}" if bounds else "none"


for name, codec, kbps, options in (
    ("MP3", "libmp3lame", 96, {}),
    ("Opus", "libopus", 64, {}),
    ("AAC without PNS", "aac", 64, {"aac_pns": "0"}),
    ("AAC", "aac", 64, {}),
    ("AC-3", "ac3", 448, {}),
    ("AC-3", "ac3", 192, {}),
    ("AC-3", "ac3", 96, {}),
    ("E-AC-3", "eac3", 96, {}),
):
    write("sound.mp4", codec, kbps * 1000, options)
    with av.open("sound.mp4") as file:
        whole = decode(file)
        rewound = decode(file, 0)
    with av.open("sound.mp4") as file:
        opened_again = decode(file)
    leads = []
    for lead in (1, 5, 10):
        with av.open("sound.mp4") as file:
            part = decode(file, 11 - lead)
        leads.append(f"{lead} s {difference(whole, part, 11)}")
    again = f"opened again {difference(whole, opened_again, 0)}, rewound {difference(whole, rewound, 1)}"
    print(f"{name} {kbps} kbit/s: {again}, after a lead-in of {', '.join(leads)}")
PY

python3.11 -m venv env
env/bin/pip install -q --disable-pip-version-check av==18.1.0 numpy==2.4.6
env/bin/python parts.py > seen.txt
diff - seen.txt <<'EXPECTED'
MP3 96 kbit/s: opened again none, rewound none, after a lead-in of 1 s none, 5 s none, 10 s none
Opus 64 kbit/s: opened again none, rewound none, after a lead-in of 1 s none, 5 s none, 10 s none
AAC without PNS 64 kbit/s: opened again none, rewound none, after a lead-in of 1 s none, 5 s none, 10 s none
AAC 64 kbit/s: opened again none, rewound over 0.03, after a lead-in of 1 s over 0.03, 5 s over 0.03, 10 s over 0.03
AC-3 448 kbit/s: opened again none, rewound none, after a lead-in of 1 s none, 5 s none, 10 s none
AC-3 192 kbit/s: opened again none, rewound none, after a lead-in of 1 s over 0.003, 5 s over 0.003, 10 s over 0.003
AC-3 96 kbit/s: opened again none, rewound none, after a lead-in of 1 s over 0.03, 5 s over 0.03, 10 s over 0.03
E-AC-3 96 kbit/s: opened again none, rewound none, after a lead-in of 1 s over 0.03, 5 s over 0.03, 10 s over 0.03
EXPECTED
