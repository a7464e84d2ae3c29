"""paired_folder: scenes composed of real photographs, with a real recording that goes with one of them.

A photograph of one animal can be answered without listening. So two to four of different classes are laid out
on one canvas, with shifted and cropped tiles, and the recording of one of them is heard: which one is sampled
independently of the image, so the image alone does not tell. What could tell the class of a recording
without recognising it is evened out: loudness, length, silence around it, bandwidth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from avalign.config.recipe import NonNegative
from avalign.data.paired_folder import composing, questions
from avalign.data.paired_folder.composing import Part, Tile
from avalign.data.paired_folder.folder import Photo, Pool, Recording, find_folder, read_folder
from avalign.data.paired_folder.questions import CLAIM_TYPES, QUESTIONS
from avalign.data.permutation import random_state
from avalign.data.phrasing import kind_shares, sample_kind
from avalign.errors import AvalignError, suggest
from avalign.interfaces import Source
from avalign.media.file import MediaError
from avalign.types import SPLITS, TASKS, Sample


@dataclass(frozen=True)
class Plan:
    """All of a sample but its pixels and samples, which `rng` finishes."""

    asked: questions.Asked
    tiles: list[Tile]
    parts: list[Part]
    sounding: Tile | None  # the photograph that is heard; None when no photograph is
    rng: np.random.Generator


class PairedFolder(Source):
    """Scenes of `photos` photographs and one recording, out of a folder described in folder.py.

    canvas:      px, both sides of the composed image
    photos:      how many photographs of different classes a scene may have, each equally often: 2, 3 or 4
    seconds:     length of every clip
    sample_rate: Hz of every clip
    classes:     classes to use; when not given, those with sounds and 20 usable training photographs: such as
                 show just one of the classes, and that on 2 % of their area or more
    leave_out:   sounds never used: a rooster's does go with some photographs of birds, not with others
    questions:   share of each kind of AVQA question in training (sounding, place, audible, visible, count,
                 seen). Those not named are not asked. When not given, and in validation and test, all are
                 equal
    offscreen:   share of IGATL scenes in which something that is not in the image is heard, too
    lowpass:     recordings of different classes come with different bandwidths, which would tell them apart.
                 In training each goes through a low-pass at a random 2 to 8 kHz; in validation and test all
                 through one at 4 kHz, which nearly every file reaches, so scores owe little to bandwidth
    follow_links: also read what links lead to outside the folder
    augment:     in training, mirror photographs at random and change the loudness by up to 6 dB

    What is used is decoded once by `prepare` and held in memory (12 kB for a photograph of 64 x 64 px, 32 kB
    for a second of audio). Tiles are cropped and shifted in every split: that is the task, not augmentation.
    """

    tasks = TASKS

    def __init__(
        self,
        *,
        canvas: int = 128,
        photos: tuple[int, ...] = (2, 3, 4),
        seconds: float = 5.0,
        sample_rate: int = 16_000,
        classes: list[str] | None = None,
        leave_out: tuple[str, ...] = ("rooster", "chicken"),
        questions: dict[str, NonNegative] | None = None,
        offscreen: float = 0.5,
        lowpass: bool = True,
        augment: bool = True,
        follow_links: bool = False,
    ) -> None:
        if not photos or not set(photos) <= {2, 3, 4}:
            raise AvalignError(f"paired_folder: photos is {list(photos)}: some of 2, 3 and 4 are needed")
        if canvas < 32 or seconds < 0.5 or sample_rate < 1000:
            raise AvalignError(
                f"paired_folder: canvas {canvas} px, seconds {seconds:g}, sample_rate {sample_rate} Hz: "
                "at least 32 px, 0.5 s and 1000 Hz are needed"
            )
        self.canvas, self.photos = canvas, tuple(photos)
        self.seconds, self.sample_rate = seconds, sample_rate
        self.follow_links = follow_links
        self.classes, self.leave_out = classes, tuple(leave_out)
        self.questions = kind_shares(questions, QUESTIONS, "paired_folder")
        self.offscreen, self.lowpass, self.augment = offscreen, lowpass, augment
        self.on_error: Literal["raise", "skip"] = "raise"
        self.skipped: list[str] = []
        self.seed = 0
        self._pools: dict[str, Pool] = {}

    # -- the folder ---------------------------------------------------------------------------------------

    def prepare(self, root: str | None, *, seed: int, workers: int = 1) -> None:
        """Decode what is used of the folder `root` (else AVALIGN_DATA names it), on `workers` threads."""
        folder = find_folder(root)
        self.seed, self.name, self.skipped = seed, folder.resolve().name, []
        self._pools = read_folder(
            folder,
            classes=self.classes,
            leave_out=self.leave_out,
            least_photos=20,
            side=2 * self.canvas,
            sample_rate=self.sample_rate,
            workers=workers,
            follow_links=self.follow_links,
            report=self._report,
        )
        self._noise = composing.long_noise(4 * round(self.seconds * self.sample_rate), seed)

    def _report(self, problem: MediaError) -> None:
        if self.on_error == "raise":
            raise problem
        self.skipped.append(str(problem))

    def pool(self, split: str) -> Pool:
        """What `split` has. AvalignError where that is too little to compose scenes of."""
        if not self._pools:
            raise AvalignError("paired_folder: prepare() has to be called first")
        if split not in self._pools:
            raise AvalignError(f"paired_folder: no split '{split}'.{suggest(split, SPLITS)}")
        pool = self._pools[split]
        if len(pool.classes) <= max(self.photos):
            raise AvalignError(
                f"{self.name}: split '{split}' has photographs and sounds of {len(pool.classes)} classes "
                f"({', '.join(pool.classes) or 'none'}); scenes of {max(self.photos)} need one more."
            )
        return pool

    # -- samples ------------------------------------------------------------------------------------------

    def sample(self, split: str, task: str, index: int) -> Sample:
        """Question `index` of a task, the same whenever it is asked for."""
        plan = self.plan(split, task, index)
        part = next((p for p in plan.parts if plan.sounding and p.name == plan.sounding.name), None)
        return Sample(
            id=f"{self.name}/{split}/{task}/{index}",
            task=task,
            instruction=plan.asked.instruction,
            response=plan.asked.response,
            image=composing.paint(plan.tiles, self.canvas, plan.rng),
            audio=self._mix(plan, split, task),
            sample_rate=self.sample_rate,
            boxes=plan.sounding.boxes if plan.sounding else (),
            intervals=(part.interval(self.sample_rate),) if part else (),
            label=plan.sounding.name if plan.sounding else None,
            kind=plan.asked.kind,
            references=plan.asked.references,
            provenance={
                "photos": {t.photo.file: t.name for t in plan.tiles},
                "recordings": {p.recording.file: p.name for p in plan.parts},
            },
        )

    def plan(self, split: str, task: str, index: int) -> Plan:
        """Sample what `sample` shows, plays and asks; classes evenly, however many files they have."""
        pool = self.pool(split)
        if task not in TASKS:
            raise AvalignError(f"paired_folder: no task '{task}'.{suggest(task, TASKS)}")
        rng = random_state(self.seed, split, task, index)
        # Training samples at random. Evaluation takes every kind, true and false, equally often.
        number = int(rng.integers(2**20)) if split == "train" else index
        kinds = {"avfc": CLAIM_TYPES, "avqa": QUESTIONS}.get(task, ("",))
        kind, true = kinds[number % len(kinds)], number // len(kinds) % 2 == 0
        if task == "avqa" and split == "train":
            kind = sample_kind(self.questions, rng)

        names = rng.permutation(pool.classes).tolist()
        shown = names[: self.photos[int(rng.integers(len(self.photos)))]]
        absent = names[len(shown) :]
        audible: list[tuple[str, Recording]] = []
        if kind == "type4" and not true:
            audible.append(_stranger(pool, absent, rng))
        else:  # `names` are in random order, and so are the positions: nothing in the image tells which it is
            audible.append((shown[0], _one(pool.recordings[shown[0]], rng)))
        if task == "igatl" and rng.random() < self.offscreen:
            audible.append(_stranger(pool, absent, rng))

        photos: list[tuple[str, Photo]] = [(name, _one(pool.photos[name], rng)) for name in shown]
        mirror = self.augment and split == "train"
        tiles = composing.lay_out(photos, self.canvas, mirror, rng)
        parts = composing.fit_parts(audible, round(self.seconds * self.sample_rate), self.sample_rate, rng)
        sounding = next((t for t in tiles if t.name == audible[0][0]), None)
        asked = self._ask(task, kind, true, tiles, parts, sounding, pool.classes, rng)
        return Plan(asked, tiles, parts, sounding, rng)

    def _ask(
        self,
        task: str,
        kind: str,
        true: bool,
        tiles: list[Tile],
        parts: list[Part],
        sounding: Tile | None,
        classes: list[str],
        rng: np.random.Generator,
    ) -> questions.Asked:
        if task == "avfc":
            return questions.avfc(kind, true, tiles, sounding, rng)
        assert sounding is not None  # only type4 has a scene in which nothing sounds
        if task == "arig":
            return questions.arig(sounding, rng)
        if task == "igatl":
            part = next(p for p in parts if p.name == sounding.name)
            return questions.igatl(part.interval(self.sample_rate), rng)
        if task == "avqa":
            return questions.avqa(kind, true, tiles, sounding, classes, rng)
        return questions.avcap(tiles, sounding, rng)

    def _mix(self, plan: Plan, split: str, task: str) -> np.ndarray:
        rng = plan.rng
        cutoff = None
        if self.lowpass:
            cutoff = 4000.0 * 2 ** float(rng.uniform(-1, 1)) if split == "train" else 4000.0
        gain = float(rng.uniform(-6, 6)) if self.augment and split == "train" else 0.0
        ratio = float(rng.uniform(15, 30) if task == "igatl" else rng.uniform(20, 40))  # dB over the noise
        return composing.mix(
            plan.parts,
            round(self.seconds * self.sample_rate),
            self.sample_rate,
            self._noise,
            ratio,
            gain,
            cutoff,
            rng,
        )

    def corpus(self) -> list[str]:
        """Instructions and answers of some hundred training questions a task, every class and position."""
        asked = [self.plan("train", task, index).asked for task in TASKS for index in range(300)]
        positions = [position for names in composing.POSITIONS.values() for position in names]
        words = [questions.a(name) for name in self.pool("train").classes] + positions
        return words + [text for q in asked for text in (q.instruction, q.response, *q.references)]


def _one(of: list[Any], rng: np.random.Generator) -> Any:
    return of[int(rng.integers(len(of)))]


def _stranger(pool: Pool, absent: list[str], rng: np.random.Generator) -> tuple[str, Recording]:
    """A sound of something not in the image: mostly of a class seen elsewhere, at times of none."""
    strangers = sorted(set(pool.strangers) - set(pool.classes))
    if strangers and rng.random() < 0.25:
        name = _one(strangers, rng)
        return name, _one(pool.strangers[name], rng)
    name = _one(absent, rng)
    return name, _one(pool.recordings[name], rng)
