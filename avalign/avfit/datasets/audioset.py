"""AudioSet: what is heard in 2 million clips of 10 s, without times."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from avalign.avfit.annotation import AudioAnnotation, Event, Problem, Reading, refused
from avalign.avfit.annotation_files import rows_of
from avalign.avfit.datasets.ontology import names_by_mid
from avalign.avfit.datasets.options import checked_splits, existing
from avalign.avfit.datasets.repeats import Repeats
from avalign.avfit.datasets.youtube import Clip, ClipFiles, seconds
from avalign.interfaces import Dataset

SPLITS = {"balanced_train": "train", "unbalanced_train": "train", "eval": "test"}
_Row = tuple[int, list[str]]


class AudioSet(Dataset):
    """AudioSet: 527 classes of sounds in 22 k, 2.04 M and 20 k clips of YouTube videos (recordings to pair).

    Layout of its folder: `class_labels_indices.csv`, for each split `<split>_segments.csv` as published (rows
    of YouTube id, start, end and a quoted list of class ids, after three lines that begin with "#"), and the
    sounds. When in its clip an event is heard is not known. Classes contain each other: a dog is also a
    domestic animal and an animal, and all three may be given.
    Source: Gemmeke et al., Audio Set: An ontology and human-labeled dataset for audio events, ICASSP 2017.

    audio:   where a clip's audio lies, of fields {youtube}, {split}, {start_seconds}, {end_seconds},
             {start_milliseconds}, {end_milliseconds}, {clip} (datasets/youtube.py has examples); without
             a start the file is the whole video, of which the clip's seconds are meant
    splits:  published split -> ours, of those to be read
    """

    gives = "recordings"

    def __init__(
        self, *, audio: str = "audio/{youtube}_{start_seconds}.wav", splits: Mapping[str, str] = SPLITS
    ) -> None:
        self.files = ClipFiles("audioset", audio)
        self.splits = checked_splits("audioset: splits", splits, SPLITS)

    def read(self, folder: Path) -> Iterator[Reading[AudioAnnotation]]:
        names = names_by_mid(folder / "class_labels_indices.csv")
        events = {mid: Event(name, mid=mid) for mid, name in names.items()}  # shared by all that have it
        files = {
            split: existing(folder / f"{split}_segments.csv", "audioset: splits") for split in self.splits
        }
        for split, file in files.items():
            yield from self._recordings(file, split, events)

    def _recordings(
        self, file: Path, split: str, events: Mapping[str, Event]
    ) -> Iterator[Reading[AudioAnnotation]]:
        repeated = Repeats(lambda: (_key(row) for _, row in _segments(file)))
        for number, row in _segments(file):
            where, key = f"{file.name}:{number}", _key(row)
            if repeated(key):
                yield refused(key, where, "repeated segment")
            else:
                yield self._reading(key, where, row, split, events)

    def _reading(
        self, item: str, where: str, row: list[str], split: str, events: Mapping[str, Event]
    ) -> Reading[AudioAnnotation]:
        if len(row) != 4:
            return refused(item, where, "row of another length", f"{len(row)} cells, not 4")
        mids = dict.fromkeys(row[3].split(","))
        named = tuple(events[mid] for mid in mids if mid in events)
        problems = tuple(Problem("unknown class", f"{mid:.60}") for mid in mids if mid not in events)
        try:
            clip = Clip(row[0], seconds(row[1]), seconds(row[2]))
            if not clip.start < clip.end:
                raise ValueError(f"ends at {row[2]} s, starts at {row[1]} s")
        except ValueError as error:
            return refused(item, where, "segment without a time", error)
        try:
            made = self.files.recording(item, self.splits[split], split, clip, named)
        except ValueError as error:
            return refused(item, where, "unsafe name", error)
        return Reading(item, where, (made,) if named else (), problems)


def _segments(file: Path) -> Iterator[_Row]:
    return rows_of(file, comment="#", blank_after_delimiter=True)


def _key(row: list[str]) -> str:
    return "_".join(row[:2])
