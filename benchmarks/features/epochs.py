"""An epoch over the loader with and without cached features: `benchmarks/features/epochs.py DATA OTHER`.

DATA holds photographs and recordings, from which 200 pairs of a 640 x 480 JPEG and a 10 s WAV are made.
OTHER is a checkout of before features were read in the place of media. Each way runs in a process of its own
and they take turns, so that the machine's moods meet all. An epoch loads all pairs in batches of 20 and has
both encoders give their tokens. Prints seconds of wall clock and of processor time, of the process and its
loader.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import soxr
from PIL import Image

PAIRS, TURNS, RATE = 200, 4, 44_100
WAYS = ("no cache", "cache behind decoding", "cache before decoding")
EPOCH = """
import os, sys, time
import torch
from pathlib import Path
from torch.utils.data import DataLoader
sys.path.insert(0, sys.argv[1])
from avalign.data.manifest import Manifest
from avalign.data import sampling
from avalign.encoders.small import SmallAudioEncoder, SmallImageEncoder
from avalign.fusion.avace import AvaceAdapters
from avalign.llm import SmallLlama
from avalign.model.feature_cache import FeatureCache
from avalign.model.model import AudioVisualLM
from avalign.projectors.linear import Linear

Samples = getattr(sampling, "TrainingDataset", None) or sampling.Draws  # the name before
torch.set_num_threads(1)
torch.manual_seed(0)
llm = SmallLlama(["What is it?", "a dog"], hidden=16, layers=1, heads=2)
model = AudioVisualLM(
    image_encoder=SmallImageEncoder(size=224, width=32),
    audio_encoder=SmallAudioEncoder(width=32, seconds=10.0),
    image_projector=Linear(32, 16), audio_projector=Linear(32, 16), fusion=AvaceAdapters(16, seconds=10.0),
    image_connector=Linear(16, llm.width), audio_connector=Linear(16, llm.width), llm=llm,
).eval()
model.learn({"llm"})
if sys.argv[3]:
    model.features = FeatureCache(Path(sys.argv[3]), dtype="float16", most=1e12, options={})
source = Manifest()
source.prepare(sys.argv[2], seed=0)
for line in sys.stdin:
    began, used = time.perf_counter(), os.times()
    data = Samples(source, {"avqa": 1.0}, seed=(0,), count=int(line), collator=model.collator())
    if hasattr(model, "feature_reader"):
        data.features = model.feature_reader()
    with torch.no_grad():
        for found in DataLoader(data, batch_size=20, num_workers=1, collate_fn=data.collate):
            model.encode(found["batch"])
    now = os.times()
    spent = sum(now[:4]) - sum(used[:4])
    print(time.perf_counter() - began, spent, flush=True)
"""


def main(data: str, other: str) -> None:
    here = str(Path(__file__).parents[2])
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        made(Path(data), folder / "corpus")
        caches = ("", str(folder / "behind"), str(folder / "before"))
        runs = [
            subprocess.Popen(
                [sys.executable, "-c", EPOCH, checkout, str(folder / "corpus"), cache],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": checkout},
            )
            for checkout, cache in zip((here, other, here), caches, strict=True)
        ]
        spent: list[list[tuple[float, ...]]] = [[] for _ in WAYS]
        for turn in range(TURNS + 1):
            for k in range(len(WAYS)) if turn % 2 else reversed(range(len(WAYS))):
                assert runs[k].stdin is not None
                assert runs[k].stdout is not None
                runs[k].stdin.write(f"{PAIRS}\n")
                runs[k].stdin.flush()
                spent[k].append(tuple(map(float, runs[k].stdout.readline().split())))
        for run in runs:
            run.communicate()
    print(
        f"load: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; medians of {TURNS} epochs after the first"
    )
    heads = ("first, wall s", "first, CPU s", "later, wall s", "later, CPU s")
    print(f"{'':24}" + "".join(f"{head:>15}" for head in heads))
    for way, turns in zip(WAYS, spent, strict=True):
        print(f"{way:24}" + "".join(f"{value:15.2f}" for value in (*turns[0], *np.median(turns[1:], axis=0))))


def made(data: Path, corpus: Path) -> None:
    """Photographs scaled to 640 x 480; recordings at 44.1 kHz, repeated up to 10 s. Each pair is another."""
    corpus.mkdir()
    images = sorted(file for file in data.rglob("*") if file.suffix.lower() in (".jpg", ".jpeg"))
    clips = sorted(file for file in data.rglob("*") if file.suffix.lower() in (".wav", ".ogg", ".flac"))
    with open(corpus / "made.jsonl", "w") as lines:
        for k in range(PAIRS):
            with Image.open(images[k % len(images)]) as photograph:
                photograph.convert("RGB").resize((640, 480)).save(corpus / f"{k}.jpg", quality=90 - k % 5)
            clip, rate = soundfile.read(clips[k % len(clips)], dtype="float32", always_2d=True)
            wave = np.resize(soxr.resample(clip.mean(1), rate, RATE), 10 * RATE)
            soundfile.write(corpus / f"{k}.wav", wave * (1 - k / 1000), RATE)
            record = {"id": str(k), "task": "avqa", "split": "train", "source": "made", "response": "a dog"}
            record |= {"instruction": "<image><audio>What is it?", "image": f"{k}.jpg", "audio": f"{k}.wav"}
            lines.write(json.dumps(record | {"version": 1}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
