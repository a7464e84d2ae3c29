"""avworld: a generated world of objects that are seen and heard, with exact boxes and intervals.

Needs no download. Fourteen classes, each with its own look and voice; two to four objects a scene over
clutter and noise; one of them sounds, sometimes with something off screen, or one after the other. Which
object sounds is independent of everything in the image, so the image alone answers no grounding question.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from avalign.config.recipe import NonNegative
from avalign.data.avworld import questions as asking
from avalign.data.avworld import scenes
from avalign.data.avworld.scenes import RATE, SECONDS, SIZE, Event, Scene, Thing
from avalign.data.permutation import random_state
from avalign.data.phrasing import kind_shares, sample_kind
from avalign.errors import AvalignError
from avalign.interfaces import Source
from avalign.media.key import unchanging_key
from avalign.system.cache import VARIABLE, cache_folder
from avalign.system.processes import shared_map
from avalign.types import SPLITS, TASKS, Medium, Sample, Undecoded

VERSION = 2  # of the generator: part of the cache's name, raised with every change of what it generates
IMAGES, AUDIO = "images.npy", "audio.npy"  # of a split: a row a scene
LOCK = "lock"  # in a split that is being written, held by who writes it


class AvWorld(Source):
    """The built-in source of all five tasks.

    train, val, test: how many scenes each split has (a scene serves many questions; splits share no scene)
    questions:        share of each kind of AVQA question in training (sounding, count, visible, audible,
                      side, level, seen). Those not named are not asked. When not given, all are equal; in
                      validation and test, too, but without "level" and "seen"
    """

    tasks = TASKS

    def __init__(
        self,
        *,
        train: int = 10_000,
        val: int = 500,
        test: int = 1_500,
        questions: dict[str, NonNegative] | None = None,
    ) -> None:
        self.questions = kind_shares(questions, asking.TAUGHT, "avworld")
        self.counts = {"train": train, "val": val, "test": test}
        self.skipped: list[str] = []
        self._places: dict[str, Path] = {}
        self._splits: dict[str, tuple[np.ndarray, np.ndarray, list[Scene]]] = {}

    def prepare(self, root: str | None, *, seed: int, workers: int = 1) -> None:
        """Generate what the cache lacks, under `root` (else the cache)."""
        self.seed = seed
        for split in SPLITS:
            key = hashlib.sha256(repr((VERSION, seed, split, self.counts[split])).encode()).hexdigest()[:12]
            folder = (Path(root) if root else cache_folder()) / f"avworld-{split}-{key}"
            if not folder.exists():
                try:
                    _generate(folder, self.counts[split], (seed, SPLITS.index(split)), workers)
                except OSError as error:
                    raise AvalignError(
                        f"{folder}: the generated world cannot be written: {error.strerror}. data.root, or "
                        f"{VARIABLE}, names another folder"
                    ) from error
            lines = (folder / "scenes.jsonl").read_text(encoding="utf-8").splitlines()
            self._places[split] = folder
            self._splits[split] = (
                np.load(folder / IMAGES, mmap_mode="r"),
                np.load(folder / AUDIO, mmap_mode="r"),
                [_scene(json.loads(line)) for line in lines],
            )

    def sample(self, split: str, task: str, index: int) -> Sample:
        """Question `index` of a task, the same whenever it is asked for."""
        return self.undecoded(split, task, index).decoded()

    def undecoded(self, split: str, task: str, index: int) -> Undecoded:
        """The same, its image and audio still in the world's files."""
        images, audio, all_scenes = self._splits[split]
        rng = random_state(self.seed, split, task, index)
        plots = asking.ALLOWED[task]
        # Training samples at random. Evaluation takes every kind, true and false, equally often.
        kinds = {"avfc": asking.CLAIM_TYPES, "avqa": asking.SCORED}.get(task, ("",))
        kind, true = kinds[index % len(kinds)], index // len(kinds) % 2 == 0
        if split == "train" and task in asking.ASK_KIND:
            kind = (
                sample_kind(self.questions, rng)
                if task == "avqa"
                else asking.CLAIM_TYPES[int(rng.integers(4))]
            )
            true = bool(rng.integers(2))
        if kind == "type4" and not true:
            plots = ("stranger",)
        allowed = scenes.indices_with(plots, len(all_scenes))
        if not len(allowed):
            raise AvalignError(
                f"avworld has no scene to ask {task!r} of: none of its {len(all_scenes)} {split} scenes is "
                f"{' or '.join(plots)}. With 20 scenes or more, every task has some"
            )
        which = int(allowed[int(rng.integers(len(allowed)))])
        scene = all_scenes[which]
        if task in asking.ASK_KIND:
            asked = asking.ASK_KIND[task](scene, rng, kind, true)
        else:
            asked = asking.ASK[task](scene, rng)
        thing, event = asked.thing, asked.event
        question = Sample(
            id=f"avworld/{split}/{task}/{index}",
            task=task,
            instruction=asked.instruction,
            response=asked.response,
            boxes=() if thing is None else (thing.box,),
            intervals=() if thing is None or event is None else ((event.start, event.end),),
            label=None if thing is None else thing.name,
            kind=asked.kind,
            references=asked.references,
            provenance={"scene": which, "plot": scene.plot},
        )
        place = self._places[split]
        return Undecoded(
            question,
            Medium(partial(_key, place / IMAGES, which), partial(np.array, images[which])),
            Medium(partial(_key, place / AUDIO, which), partial(_heard, audio[which])),
        )

    def corpus(self) -> list[str]:
        """Instructions and answers of a few hundred training questions: enough for every word to appear."""
        samples = [self.sample("train", task, index) for task in TASKS for index in range(300)]
        return [text for s in samples for text in (s.instruction, s.response, *s.references)]


def _key(file: Path, scene: int) -> str | None:
    """The file's name holds version, seed, split and size of the world."""
    return unchanging_key(file, scene)


def _heard(stored: np.ndarray) -> tuple[np.ndarray, int]:
    return stored.astype(np.float32) / 32767, RATE


def _scene(record: dict[str, Any]) -> Scene:
    return Scene(
        record["plot"],
        tuple(Thing(t["name"], tuple(t["box"])) for t in record["things"]),
        tuple(Event(**e) for e in record["events"]),
    )


def _made(count: int, seed: tuple[int, ...], workers: int) -> Iterator[Any]:
    make = partial(scenes.make, seed=seed)
    if workers <= 1:
        yield from map(make, range(count))
        return
    yield from shared_map(make, range(count), workers, chunk=64)


def _generate(folder: Path, count: int, seed: tuple[int, ...], workers: int) -> None:
    """Write a split beside its final place and move it there atomically: a cache is complete or absent."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_left(folder)
    building = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}")  # never one that a killed process left
    building.mkdir()
    lock = open(building / LOCK, "w")  # noqa: SIM115  (held until the folder has its name)
    with contextlib.suppress(OSError):  # where there are no locks, nothing is removed either
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        images = np.lib.format.open_memmap(building / IMAGES, "w+", np.uint8, (count, SIZE, SIZE, 3))
        audio = np.lib.format.open_memmap(building / AUDIO, "w+", np.int16, (count, round(SECONDS * RATE)))
        for file in (building / IMAGES, building / AUDIO):
            _claim(file)
        with open(building / "scenes.jsonl", "w", encoding="utf-8") as lines:
            for k, (scene, image, waveform) in enumerate(_made(count, seed, workers)):
                images[k], audio[k] = image, waveform
                lines.write(json.dumps(asdict(scene)) + "\n")
        images.flush()
        audio.flush()
        (building / LOCK).unlink()
        try:
            building.rename(folder)
        except OSError:  # another process may have been first; both made the same
            if not folder.exists():
                raise
    finally:
        lock.close()
        shutil.rmtree(building, ignore_errors=True)


def _claim(file: Path) -> None:
    """Have the disk give all of a file's room now: a mapped file that finds none later ends the process."""
    if hasattr(os, "posix_fallocate"):
        with open(file, "rb+") as opened:
            try:
                os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # a file system that cannot
                    raise


def _remove_left(folder: Path) -> None:
    """What processes that were killed had begun: nobody holds its lock any more."""
    for left in folder.parent.glob(f"{folder.name}.*"):
        with contextlib.suppress(OSError), open(left / LOCK, "r+") as lock:
            if time.time() - left.stat().st_mtime > 60:  # one may have been made and not be locked yet
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left)
