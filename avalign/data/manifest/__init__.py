"""manifest: samples by the names of their files, of any data set written out so; AVFIT's form."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from avalign.batch import TASKS, Sample
from avalign.data.manifest.phrasings import Phrasings, fill
from avalign.data.manifest.record import SPLITS, Record
from avalign.data.manifest.shuffle import shuffled
from avalign.data.manifest.table import Table
from avalign.data.media import read_audio, read_frames, read_image
from avalign.errors import AvalignError, suggest


class Manifest:
    """Samples listed in JSONL or Parquet files, one record each (its fields: manifest/record.py).

    `data.root` is the folder of those files, or one of them. The list stays on disk, mapped into memory, so
    that millions of records open at once. Training goes through each task's records in random order, all of
    them before any comes again; validation and test take them in the files' order. A record that brings no
    instruction is asked in one of its task's phrasings (manifest/phrasings.py; the folder's `phrasings.yaml`
    adds to them): another one whenever training comes to it again, always the same in validation and test.

    media: folder that the records' paths start from; the manifest's own when not given
    """

    def __init__(self, *, media: str | None = None) -> None:
        self.media = media
        self.on_error = "raise"
        self.skipped: list[str] = []
        self.tasks: tuple[str, ...] = ()
        self.seed = 0
        self._rows: dict[tuple[str, str], np.ndarray] = {}

    def prepare(self, root: str | None, *, seed: int, workers: int = 1) -> None:
        """Open the files under `root` and note which record belongs to which split and task."""
        if root is None:
            raise AvalignError("source manifest: data.root has to name the manifest's folder or file")
        place = Path(root)
        self.table, self.seed = Table(place, _told), seed
        beside = place if place.is_dir() else place.parent
        self.folder = Path(self.media) if self.media else beside
        self.phrasings = Phrasings(beside)
        self._rows = {
            (split, task): np.flatnonzero((self.table.split == i) & (self.table.task == j))
            for i, split in enumerate(SPLITS)
            for j, task in enumerate(TASKS)
        }
        self.tasks = tuple(task for task in TASKS if any(len(self._rows[s, task]) for s in SPLITS))

    def size(self, split: str, task: str) -> int:
        """How many records a split has of a task."""
        return len(self._rows.get((split, task), ()))

    def sample(self, split: str, task: str, index: int) -> Sample:
        """Record `index` of a task, its media decoded. MediaError names a file that cannot be used.

        In training `index` goes on for ever: when all were seen they come again in another order.
        """
        return self._decoded(self.record(split, task, index))

    def truth(self, split: str, task: str, index: int) -> Sample:
        """The same sample without its picture and sound: their files need not be there."""
        return self.question(self.record(split, task, index))

    def record(self, split: str, task: str, index: int) -> Record:
        """Record `index` of a task, as `sample` counts them, with the instruction it is asked in."""
        if split not in SPLITS:
            raise AvalignError(f"manifest: no split {split!r}.{suggest(split, SPLITS)}")
        count = self.size(split, task)
        if count == 0:
            raise AvalignError(f"manifest: no records of task {task!r} in split {split!r}. {self._counted()}")
        seed, epoch = None, 0
        if split == "train":
            seed = self.seed
            epoch, place = divmod(index, count)
            place = shuffled(place, count, key=(seed, TASKS.index(task), epoch))
        elif index < count:
            place = index
        else:
            raise AvalignError(
                f"manifest: split {split!r} has {count} records of task {task!r}, number {index} was asked "
                f"for. {self._counted()}"
            )
        record = self.table[self._rows[split, task][place]]
        return replace(record, instruction=self.phrasings.instruction(record, seed=seed, epoch=epoch))

    def _decoded(self, record: Record) -> Sample:
        image = audio = None
        rate = 16_000
        if record.image is not None:
            file = self.folder / record.image
            image = read_frames(file, record.frame_times) if record.frame_times else read_image(file)
            if len(record.frame_times) == 1:
                image = image[0]
        if record.audio is not None:
            audio, rate = read_audio(self.folder / record.audio, record.audio_start or 0.0, record.audio_end)
        return self.question(record, image, audio, rate)

    def question(
        self,
        record: Record,
        image: np.ndarray | None = None,
        audio: np.ndarray | None = None,
        rate: int = 16_000,
    ) -> Sample:
        """The sample of a record with these media; shapes as in Sample, rate in Hz."""
        return Sample(
            id=record.id,
            task=record.task,
            instruction=record.instruction,
            response=record.response,
            image=image,
            audio=audio,
            frame_times=record.frame_times if len(record.frame_times) > 1 else (),
            sample_rate=rate,
            boxes=record.boxes,
            consensus=record.consensus,
            intervals=record.intervals,
            label=record.label,
            kind=record.kind,
            references=record.references,
            provenance={"source": record.source, "image": record.image, "audio": record.audio}
            | record.provenance,
        )

    def texts(self) -> list[str]:
        """Instructions and answers of up to some thousand records of each task, spread over all of them.

        Every phrasing that these can be asked in is among them, filled.
        """
        found: list[str] = []
        asked: set[str] = set()
        for task in self.tasks:
            rows = self._rows["train", task]
            spread = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), 2000)).astype(int))
            for record in map(self.table.__getitem__, rows[spread]):
                phrasings = [record.instruction] if record.instruction else self.phrasings.of(record)
                fresh = [text for text in phrasings if text not in asked]
                asked.update(fresh)
                # of phrasings that were filled before one is enough: what this record puts into them is new
                fullest = max(phrasings, key=lambda text: text.count("<"))
                found += [fill(text, record) for text in fresh or [fullest]]
                found += [record.response, *record.references]
        return found

    def _counted(self) -> str:
        counts = ", ".join(
            f"{split} {task} {len(rows)}" for (split, task), rows in sorted(self._rows.items())
        )
        return f"There are: {counts}."


def _told(file: Path, count: int) -> None:
    print(f"... {file.name}: {count:,} records read", file=sys.stderr)
