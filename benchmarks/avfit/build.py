"""Build a generated AVFIT of 3,000,000 records, and open it: python benchmarks/avfit/build.py --jobs 2

Writes annotation files of OpenImages' and AudioSet's form and, unless told otherwise, of their size, builds
a plan over them without media, and opens what was built. Prints wall times, and the peak of the memory that
all processes of the build hold together (shared pages counted once: the sum of PSS in /proc).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import numpy as np

from avalign.avfit.pairing.classes import Classes
from avalign.system.versions import versions

COLUMNS = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,"
    "IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
)
OPEN = """\
import sys
from pathlib import Path
from avalign.data.manifest.table import Table

Table(Path(sys.argv[1]))
"""
BOXES = 8.4  # of a photograph on average: 14.6 M boxes in 1.74 M photographs
STRETCH = 20_000  # items written at a time


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    reader.add_argument("--records", type=int, default=3_000_000)
    reader.add_argument("--images", type=int, default=1_743_042, help="photographs of training")
    reader.add_argument("--clips", type=int, default=2_042_985, help="recordings of training")
    reader.add_argument("--jobs", type=int, default=os.cpu_count())
    reader.add_argument("--folder", type=Path, help="kept; a temporary one if not given")
    chosen = reader.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.folder or Path(temporary)
        os.environ["AVALIGN_CACHE"] = str(folder / "cache")
        if not (folder / "plan.yaml").is_file():
            write(folder, chosen.records, chosen.images, chosen.clips)
        known = versions()
        print(f"commit {known['commit']}, Python {known['python']}, {os.cpu_count()} cores, load {load:.1f}")
        words = ["data", "build", str(folder / "plan.yaml"), "--root", str(folder / "media")]
        words += ["--out", str(folder / "out"), "--media", "skip", "--jobs", str(chosen.jobs), "--overwrite"]
        seconds, peak = measured([sys.executable, "-m", "avalign", *words])
        size = sum(file.stat().st_size for file in (folder / "out").glob("*.jsonl"))
        print(f"build: {seconds:.0f} s, {peak / 2**20:.0f} MiB at most, {size / 2**30:.2f} GiB written")
        for which in ("first opening, which makes the index", "opening"):
            seconds, peak = measured([sys.executable, "-c", OPEN, str(folder / "out")])
            print(f"{which}: {seconds:.1f} s, {peak / 2**20:.0f} MiB at most")


def measured(command: list[str]) -> tuple[float, int]:
    """Seconds, and the peak of the bytes that a command and its descendants hold together."""
    begun, peak, ended = time.monotonic(), 0, threading.Event()
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.5):
            peak = max(peak, sum(map(held, family(process.pid))))

    watcher = threading.Thread(target=watch)
    watcher.start()
    status = process.wait()
    ended.set()
    watcher.join()
    if status:
        raise SystemExit(f"failed with {status}: {' '.join(command)}")
    return time.monotonic() - begun, peak


def family(process: int) -> Iterator[int]:
    yield process
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return
    for child in children:
        yield from family(int(child))


def held(process: int) -> int:
    """Bytes in memory, those shared with n processes for an nth."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))


# ---- annotation files ----


def write(folder: Path, records: int, images: int, clips: int) -> None:
    """Photographs and recordings whose classes are those of the look-up, and the plan."""
    classes, rng = Classes.read(), np.random.default_rng(0)
    seen = names(classes, "pictures", "openimages")
    heard = names(classes, "sounds", "audioset")
    openimages, audioset = folder / "media" / "OpenImages", folder / "media" / "AudioSet"
    openimages.mkdir(parents=True)
    audioset.mkdir()
    rows = [f"{mid},{name}\n" for name, mid in seen.items()]
    (openimages / "class-descriptions-boxable.csv").write_text("".join(rows))
    for split, count in (("train", images), ("test", max(1, images // 14))):
        with open(openimages / f"{split}-annotations-bbox.csv", "w") as file:
            file.write(f"{COLUMNS}\n")
            write_boxes(file, split, count, list(seen.values()), rng)
    rows = [f'{k},{mid},"{name}"\n' for k, (name, mid) in enumerate(heard.items())]
    (audioset / "class_labels_indices.csv").write_text("index,mid,display_name\n" + "".join(rows))
    for split, count in (("unbalanced_train", clips), ("eval", max(1, clips // 100))):
        with open(audioset / f"{split}_segments.csv", "w") as file:
            file.write("# Segments csv\n# generated\n# YTID, start_seconds, end_seconds, positive_labels\n")
            write_clips(file, split, count, list(heard.values()), rng)
    share = {"train": {"arig": 0.45, "avfc": 0.45}, "test": {"avfc": 0.1}}
    counts = {s: {task: round(records * x) for task, x in tasks.items()} for s, tasks in share.items()}
    plan = {
        "name": "generated",
        "datasets": {
            "openimages": {"folder": "OpenImages", "splits": {"train": "train", "test": "test"}},
            "audioset": {"folder": "AudioSet", "splits": {"unbalanced_train": "train", "eval": "test"}},
        },
        "pairs": {"openimages_audioset": {"images": "openimages", "sounds": "audioset", "records": counts}},
    }
    (folder / "plan.yaml").write_text(json.dumps(plan))


def names(classes: Classes, side: str, family: str) -> dict[str, str]:
    """Name -> mid of every class that a data set has in the look-up."""
    entries = classes.entries.values()
    found = {n: mid for e in entries for n, mid in dict(getattr(e, side)).get(family, {}).items()}
    return {name: mid for name, mid in found.items() if mid}


def write_boxes(file: TextIO, split: str, count: int, mids: list[str], rng: np.random.Generator) -> None:
    frequencies = rng.dirichlet(np.ones(len(mids)))
    for first in range(0, count, STRETCH):
        many = 1 + rng.poisson(BOXES - 1, min(STRETCH, count - first))
        corners = np.sort(rng.uniform(0, 1, (many.sum(), 2, 2)), axis=2)
        corners[..., 1] = np.minimum(corners[..., 1] + 0.02, 1)
        kinds = rng.choice(len(mids), many.sum(), p=frequencies)
        images = np.repeat(np.arange(first, first + len(many)), many)
        file.writelines(
            f"{split[:2]}{image:014x},xclick,{mids[kind]},1,{x0:.6f},{x1:.6f},{y0:.6f},{y1:.6f},0,0,0,0,0\n"
            for image, kind, ((x0, x1), (y0, y1)) in zip(
                images.tolist(), kinds.tolist(), corners.tolist(), strict=True
            )
        )


def write_clips(file: TextIO, split: str, count: int, mids: list[str], rng: np.random.Generator) -> None:
    frequencies = rng.dirichlet(np.ones(len(mids)))
    for first in range(0, count, STRETCH):
        kinds = rng.choice(len(mids), (min(STRETCH, count - first), 2), p=frequencies)
        starts = rng.integers(0, 300, len(kinds))
        file.writelines(
            f'{split[:2]}-{first + k:08x}, {start}.000, {start + 10}.000, "{mids[a]},{mids[b]}"\n'
            for k, ((a, b), start) in enumerate(zip(kinds.tolist(), starts.tolist(), strict=True))
        )


if __name__ == "__main__":
    main()
