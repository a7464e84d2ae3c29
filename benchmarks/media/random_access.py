"""Random access to media, this checkout beside another: `python benchmarks/media/random_access.py OTHER`.

Each checkout reads in a process of its own, and the two take turns, so that the machine's moods meet both.
Frames of a 60 s H.264 clip (mp4, 25 a second, a key frame every 2 s), and 1 s of a 60 s Ogg Vorbis, of an MP3
and of the clip's AAC sound, at the same random times. Prints milliseconds of processor time
a read, and the ratio.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import av
import numpy as np
import soundfile

SECONDS, FPS, RATE, ROUNDS, READS = 60, 25, 48_000, 15, 40
READER = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
from avalign.media.read import read_audio, read_frames
for line in sys.stdin:
    file, kind, times = json.loads(line)
    began = time.process_time()
    for t in times:
        read_frames(file, [t]) if kind == "frames" else read_audio(file, t, t + 1)
    print((time.process_time() - began) / len(times) * 1e3, flush=True)
"""


def main(other: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        files = made(Path(folder))
        here = str(Path(__file__).parents[2])
        readers = [
            subprocess.Popen(
                [sys.executable, "-c", READER, place],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for place in (here, other)
        ]
        rng = np.random.default_rng(0)
        print(f"{'':24} {'here':>8} {'other':>8} {'ratio':>7}   CPU ms a read, medians of {ROUNDS} turns")
        for name, (file, kind) in files.items():
            spent = []
            for turn in range(ROUNDS + 1):
                line = json.dumps([str(file), kind, list(rng.uniform(1, SECONDS - 2, READS))]) + "\n"
                took = []
                for reader in readers if turn % 2 else readers[::-1]:
                    reader.stdin.write(line)
                    reader.stdin.flush()
                    took.append(float(reader.stdout.readline()))
                spent.append(took if turn % 2 else took[::-1])
            ours, theirs = np.median(spent[1:], axis=0)
            ratio = np.median([a / b for a, b in spent[1:]])
            print(f"{name:24} {ours:8.2f} {theirs:8.2f} {ratio:7.2f}")
        for reader in readers:
            reader.stdin.close()
            reader.wait()


def made(folder: Path) -> dict[str, tuple[Path, str]]:
    rng = np.random.default_rng(0)
    sound = (0.1 * rng.standard_normal(SECONDS * RATE)).astype(np.float32)
    for suffix in ("ogg", "mp3", "flac"):
        with soundfile.SoundFile(folder / f"a.{suffix}", "w", RATE, 1) as file:
            for begin in range(0, len(sound), RATE):
                file.write(sound[begin : begin + RATE])
    with av.open(str(folder / "a.mp4"), "w") as container:
        video = container.add_stream("libx264", rate=FPS)
        video.width, video.height, video.pix_fmt = 320, 240, "yuv420p"
        video.codec_context.gop_size = 2 * FPS
        audio = container.add_stream("aac", rate=RATE, layout="mono")
        ground = rng.integers(0, 256, (240, 320, 3), np.uint8)
        for number in range(SECONDS * FPS):
            frame = av.VideoFrame.from_ndarray(np.roll(ground, number, 1), format="rgb24")
            container.mux(video.encode(frame))
        for begin in range(0, len(sound), 1024):
            piece = av.AudioFrame.from_ndarray(
                sound[None, begin : begin + 1024], format="fltp", layout="mono"
            )
            piece.rate, piece.pts = RATE, begin
            container.mux(audio.encode(piece))
        for stream in (video, audio):
            container.mux(stream.encode(None))
    return {
        "H.264 frame, mp4": (folder / "a.mp4", "frames"),
        "1 s of AAC, mp4": (folder / "a.mp4", "sound"),
        "1 s of Ogg Vorbis": (folder / "a.ogg", "sound"),
        "1 s of MP3": (folder / "a.mp3", "sound"),
        "1 s of FLAC": (folder / "a.flac", "sound"),
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
