"""manifest: samples by the names of their files, of any data set written out so; AVFIT's form."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from avalign.config.recipe import NonNegative
from avalign.data.manifest.clip_length import clip_length
from avalign.data.manifest.phrasings import Phrasings, fill
from avalign.data.manifest.record import Record, asking
from avalign.data.manifest.sampler import Records, Sampler
from avalign.data.manifest.table import Table
from avalign.errors import AvalignError
from avalign.interfaces import Source
from avalign.media.file import MediaFile
from avalign.media.key import file_key
from avalign.media.links import below
from avalign.media.read import read_audio, read_frames, read_image
from avalign.system.terminal import tell
from avalign.types import Medium, Sample, Undecoded


class Manifest(Source):
    """Samples listed in JSONL or Parquet files, one record each (its fields: manifest/record.py).

    `data.root` is the folder of those files, or one of them. The list stays on disk, so
    that millions of records open at once. Training goes through each task's records in random order, all of
    them before any comes again; validation and test take them in the files' order. A record that brings no
    instruction is asked in one of its task's phrasings (manifest/phrasings.py; the folder's `phrasings.yaml`
    adds to them): another one whenever training comes to it again, always the same in validation and test.

    Of the sources of a task's records, training samples each as often as it has records, or by `sources`. All
    of a source's records come before any comes again.

    media:   folder that the records' paths start from; the manifest's own when not given
    follow_links: also read what links lead to outside that folder
    sources: source -> weight in samples of a task, {vgg_ss: 3.0, openimages_audioset: 1.0}; every source of
             training has to have one, 0 leaves it out. By its number of records when not given
    """

    def __init__(
        self,
        *,
        media: str | None = None,
        follow_links: bool = False,
        sources: dict[str, NonNegative] | None = None,
    ) -> None:
        self.media, self.follow_links, self.sources = media, follow_links, sources
        self.skipped: list[str] = []
        self.tasks: tuple[str, ...] = ()
        self.table: Records

    def prepare(self, root: str | None, *, seed: int, workers: int = 1) -> None:
        """Open the files under `root` and note which record belongs to which split and task."""
        if root is None:
            raise AvalignError("source manifest: data.root has to name the manifest's folder or file")
        path = Path(root)
        beside = path if path.is_dir() else path.parent
        self.folder = Path(self.media) if self.media else beside
        self._open(Table(path, _told, workers=workers), beside, seed)

    def _open(self, table: Records, beside: Path, seed: int) -> None:
        """beside: the folder whose phrasings.yaml adds to the phrasings"""
        self.table, self.seed = table, seed
        self.phrasings = Phrasings(beside)
        self.sampler = Sampler(table, self.sources, seed)
        self.tasks = self.sampler.tasks

    def size(self, split: str, task: str) -> int:
        """How many records a split has of a task."""
        return self.sampler.size(split, task)

    def sample(self, split: str, task: str, index: int) -> Sample:
        """Record `index` of a task, its media decoded. MediaError names a file that cannot be used.

        In training `index` goes on for ever: when all have come they come again in another order.
        """
        return self.undecoded(split, task, index).decoded()

    def undecoded(self, split: str, task: str, index: int) -> Undecoded:
        """Record `index` of a task, its media still in their files."""
        record, number = self._at(split, task, index)
        image_file, audio_file = self.files(record, number)
        image = audio = None
        if image_file is not None:
            image = Medium(
                key=partial(file_key, image_file, "image", record.frame_times),
                decode=partial(_image, image_file, record.frame_times),
            )
        if audio_file is not None:
            span = record.audio_start or 0.0, record.audio_end
            audio = Medium(
                key=partial(file_key, audio_file, "audio", *span), decode=partial(_audio, audio_file, *span)
            )
        return Undecoded(self.question(record), image, audio)

    def truth(self, split: str, task: str, index: int) -> Sample:
        """The same sample without its image and audio: their files need not be there."""
        return self.question(self.record(split, task, index))

    def record(self, split: str, task: str, index: int) -> Record:
        """Record `index` of a task, as `sample` counts them, with the instruction it is asked in."""
        return self._at(split, task, index)[0]

    def where(self, split: str, task: str, index: int) -> str:
        """The file and line that record `index` of a task stands at."""
        return self.table.location(self.sampler.at(split, task, index)[0])

    def _at(self, split: str, task: str, index: int) -> tuple[Record, int]:
        number, epoch = self.sampler.at(split, task, index)
        record = self.table[number]
        seed = self.seed if split == "train" else None
        return asking(record, self.phrasings.instruction(record, seed=seed, epoch=epoch)), number

    def files(self, record: Record, number: int) -> tuple[MediaFile | None, MediaFile | None]:
        """The image and the audio of a record, which is `number` in the table."""
        image, audio = (
            None if path is None else below(self.folder, path, self.follow_links)
            for path in (record.image, record.audio)
        )
        return image, audio

    def question(self, record: Record) -> Sample:
        """The sample of a record without its media."""
        return Sample(
            id=record.id,
            task=record.task,
            instruction=record.instruction,
            response=record.response,
            frame_times=record.frame_times if len(record.frame_times) > 1 else (),
            boxes=record.boxes,
            consensus=record.consensus,
            intervals=record.intervals,
            label=record.label,
            kind=record.kind,
            references=record.references,
            provenance={"source": record.source, "image": record.image, "audio": record.audio}
            | record.provenance
            | clip_length(record),
        )

    def corpus(self) -> list[str]:
        """Instructions and answers of up to some thousand records of each task, spread over all of them.

        Every phrasing that these can be asked in is among them, filled.
        """
        found: list[str] = []
        asked: set[str] = set()
        for task in self.tasks:
            rows = self.sampler.rows("train", task)
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


def _image(file: MediaFile, frame_times: tuple[float, ...]) -> np.ndarray:
    """A picture, the one frame of a video that is meant, or several."""
    if not frame_times:
        return read_image(file)
    frames = read_frames(file, frame_times)
    return frames[0] if len(frame_times) == 1 else frames


def _audio(file: MediaFile, start: float, end: float | None) -> tuple[np.ndarray, int]:
    return read_audio(file, start, end)


def _told(file: Path, count: int) -> None:
    tell(f"... {file.name}: {count:,} records read", err=True)
