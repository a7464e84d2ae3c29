"""How fast a manifest of millions of records is indexed, opened and read. No media are touched.

    python benchmarks/avfit/manifest.py --records 3000000 --folder FOLDER

Generates the manifest if the folder has none: records as AVFIT has them, of five tasks and seven sources, in
parts of 250,000 lines. Every figure is of one process on one core, but for the index, which may use more.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from avalign.answers import write_box, write_interval
from avalign.data.manifest import Manifest
from avalign.data.manifest.record import Record, write
from avalign.data.mixture import Mixture
from avalign.types import TASKS

PART = 250_000  # records of a file
SOURCES = {  # task -> sources and their shares of its records, about those of AVFIT
    "arig": {"openimages_audioset": 0.85, "openimages_vggsound": 0.14, "avsbench": 0.01},
    "igatl": {"openimages_audioset_strong": 1.0},
    "avfc": {"openimages_audioset": 1.0},
    "avqa": {"avqa": 0.6, "music_avqa": 0.4},
    "avcap": {"valor": 1.0},
}
SHARES = {"arig": 0.42, "igatl": 0.04, "avfc": 0.5, "avqa": 0.03, "avcap": 0.01}
SPLITS = {"train": 0.9, "val": 0.02, "test": 0.08}


def records(count: int, seed: int = 0) -> Iterator[Record]:
    rng = np.random.default_rng(seed)
    tasks = rng.choice(list(SHARES), count, p=list(SHARES.values()))
    splits = rng.choice(list(SPLITS), count, p=list(SPLITS.values()))
    chance = rng.random((count, 6)).round(3)
    for k in range(count):
        task, (a, b, c, d, e, f) = str(tasks[k]), chance[k].tolist()
        named = SOURCES[task]
        source = list(named)[int(np.searchsorted(np.cumsum(list(named.values())), a * 0.999, "right"))]
        box = (min(a, b) * 0.9, min(c, d) * 0.9, max(a, b) * 0.9 + 0.05, max(c, d) * 0.9 + 0.05)
        start, end = min(e, f) * 9, max(e, f) * 9 + 0.5
        times = [round(start, 2), round(end, 2)]
        asked = {"class": "Acoustic guitar", "box": [round(x, 4) for x in box], "time": times}
        answer = "a man plays the acoustic guitar on a stage"
        if task == "arig":
            answer = write_box(box, "Acoustic guitar")
        elif task == "igatl":
            answer = write_interval((start, end))
        elif task == "avfc":
            answer = "True" if a < 0.5 else "False"
        yield Record(
            id=f"{source}/{splits[k]}/{task}/{k:07d}",
            task=task,
            split=str(splits[k]),
            source=source,
            response=answer,
            instruction="" if task != "avqa" else "<image><audio>Which instrument is heard first?",
            slots=asked if task == "avfc" else {},
            image=f"openimages/train/{k % 4096:03x}/{k * 2654435761 % 2**64:016x}.jpg",
            audio=f"audioset/{k % 997:03d}/Y{k * 40503 % 2**40:011x}.flac",
            audio_start=0.0,
            audio_end=10.0,
            boxes=(tuple(round(x, 4) for x in box),) if task == "arig" else (),  # type: ignore[arg-type]
            intervals=((round(start, 3), round(end, 3)),) if task == "igatl" else (),
            label="Acoustic guitar",
            kind="type3" if task == "avfc" else None,
            provenance={"origins": [f"openimages:{k:016x}", f"Y{k:011x}"], "pair": [k, k + 1]},
        )


def generate(folder: Path, count: int) -> None:
    made = records(count)
    for part in range(-(-count // PART)):
        within = min(PART, count - part * PART)
        write((next(made) for _ in range(within)), folder / f"part-{part:04d}.jsonl")


def seconds(what: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.perf_counter()
    made = what()
    return time.perf_counter() - begin, made


def rates(what: Callable[[int], Any], asked: np.ndarray) -> dict[str, float]:
    """Calls a second by the clock, and by the time that one core worked: others may share the machine."""
    begin, worked = time.perf_counter(), time.process_time()
    for number in asked.tolist():
        what(number)
    passed, worked = time.perf_counter() - begin, time.process_time() - worked
    return {"per_s": round(len(asked) / passed), "per_core_s": round(len(asked) / worked)}


def cpu_seconds() -> float:
    """Of this process and of those it started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def peak_gib() -> dict[str, float]:
    who = {"this": resource.RUSAGE_SELF, "largest_worker": resource.RUSAGE_CHILDREN}
    return {name: round(resource.getrusage(one).ru_maxrss / 2**20, 3) for name, one in who.items()}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--records", type=int, default=3_000_000)
    arguments.add_argument("--folder", type=Path, required=True)
    arguments.add_argument("--workers", type=int, default=1, help="processes that make the index")
    arguments.add_argument("--reads", type=int, default=60_000, help="of each kind")
    chosen = arguments.parse_args()
    folder = chosen.folder / f"manifest-{chosen.records}"
    os.environ["AVALIGN_CACHE"] = str(chosen.folder / "cache")
    if not folder.is_dir():
        generate(folder, chosen.records)
    size = sum(file.stat().st_size for file in folder.glob("*.jsonl"))
    figures: dict[str, Any] = {"records": chosen.records, "bytes": size, "load_before": os.getloadavg()}
    shutil.rmtree(chosen.folder / "cache", ignore_errors=True)
    for name in ("index_s", "open_s"):
        source = Manifest()
        before = cpu_seconds()
        figures[name], _ = seconds(lambda s=source: s.prepare(str(folder), seed=0, workers=chosen.workers))
        figures[name.replace("_s", "_cpu_s")] = cpu_seconds() - before
    figures["peak_gib_opened"] = peak_gib()
    rng = np.random.default_rng(1)
    anywhere = rng.integers(0, chosen.records, chosen.reads)
    figures["random"] = rates(source.table.__getitem__, anywhere)
    figures["shuffled"] = rates(lambda n: source.record("train", "avfc", n), np.arange(chosen.reads))
    weights = {"openimages_audioset": 1.0, "openimages_vggsound": 3.0, "avsbench": 0.5}
    weights |= {"openimages_audioset_strong": 1.0, "avqa": 2.0, "music_avqa": 1.0, "valor": 1.0}
    mixed = Manifest(sources=weights)
    mixed.prepare(str(folder), seed=0)
    tasks = Mixture(dict.fromkeys(TASKS, 1.0), (0, 0))
    figures["weighted"] = rates(lambda n: mixed.record("train", *tasks[n]), np.arange(chosen.reads))
    figures["peak_gib_read"] = peak_gib()
    figures["load_after"] = os.getloadavg()
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
