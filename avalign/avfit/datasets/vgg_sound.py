"""VGG-Sound: what is heard and seen in 200 thousand clips of 10 s."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from avalign.avfit.annotation import AudioAnnotation, Event, Reading, refused
from avalign.avfit.annotation_files import rows_of
from avalign.avfit.datasets.options import checked_splits
from avalign.avfit.datasets.repeats import Repeats
from avalign.avfit.datasets.youtube import Clip, ClipFiles, seconds
from avalign.errors import AvalignError, suggest
from avalign.interfaces import Dataset

SECONDS = 10.0
SPLITS = {"train": "train", "test": "test"}
LISTS = ("vggsound.csv", "train.csv", "test.csv")


class VggSound(Dataset):
    """VGG-Sound: one of 309 classes for each of 200 k clips of YouTube videos (recordings to pair).

    Layout of its folder: the list that `labels` names, and the audio. As published, `vggsound.csv` has rows
    of YouTube id, start in seconds, class, train or test; `train.csv` and `test.csv`, the 15,446 clips that
    papers are compared on, have rows "<YouTube id>_<start in seconds, 6 digits>.mp4", class. Clips last 10 s;
    the class is heard at some time in them.
    Source: Chen et al., VGGSound: A large-scale audio-visual dataset, ICASSP 2020.

    audio:   where a clip's audio lies, of fields {youtube}, {clip}, {split}, {start_seconds}, {end_seconds},
             {start_milliseconds}, {end_milliseconds} (datasets/youtube.py has examples); without a start
             the file is the whole video, of which the clip's 10 s are meant
    labels:  the list to be read
    splits:  published split -> ours; clips of one that is not named are refused
    """

    gives = "recordings"

    def __init__(
        self,
        *,
        audio: str = "audio/{clip}.wav",
        labels: Literal["vggsound.csv", "train.csv", "test.csv"] = "vggsound.csv",
        splits: Mapping[str, str] = SPLITS,
    ) -> None:
        if labels not in LISTS:
            raise AvalignError(
                f"vgg_sound: labels: no list {labels!r} was published.{suggest(labels, LISTS)}"
            )
        self.labels = labels
        self.files = ClipFiles("vgg_sound", audio)
        self.splits = checked_splits("vgg_sound: splits", splits, SPLITS)

    def read(self, folder: Path) -> Iterator[Reading[AudioAnnotation]]:
        file = folder / self.labels
        read = self._of_all if self.labels == "vggsound.csv" else self._of_split
        repeated = Repeats(lambda: (_named(row) for _, row in rows_of(file)))
        for number, row in rows_of(file):
            item, where = _named(row), f"{file.name}:{number}"
            try:
                clip, label, theirs = read(row)
            except ValueError as error:
                yield refused(item, where, "row that names no clip", error)
                continue
            yield self._reading(item, where, clip, label, theirs, repeated(item))

    def _reading(
        self, item: str, where: str, clip: Clip, label: str, theirs: str, repeated: bool
    ) -> Reading[AudioAnnotation]:
        if repeated:
            return refused(item, where, "repeated clip")
        if theirs not in self.splits:
            reason = "split not asked for" if theirs in SPLITS else "unknown split"
            return refused(item, where, reason, theirs)
        try:
            made = self.files.recording(item, self.splits[theirs], theirs, clip, (Event(label),))
        except ValueError as error:
            return refused(item, where, "unsafe name", error)
        return Reading(item, where, (made,))

    def _of_all(self, row: list[str]) -> tuple[Clip, str, str]:
        """vggsound.csv: id, start, label, split"""
        if len(row) != 4 or not row[2].strip():
            raise ValueError(f"{','.join(row)[:80]!r} is not an id, a start, a class and a split")
        start = seconds(row[1])
        return Clip(row[0], start, start + SECONDS), row[2].strip(), row[3].strip()

    def _of_split(self, row: list[str]) -> tuple[Clip, str, str]:
        """test.csv and train.csv: clip, label"""
        youtube, _, start = _named(row).rpartition("_")  # the id itself may hold "_"
        if len(row) != 2 or not row[1].strip():
            raise ValueError(f"{','.join(row)[:80]!r} is not a clip and its class")
        return Clip(youtube, seconds(start), seconds(start) + SECONDS), row[1].strip(), Path(self.labels).stem


def _named(row: list[str]) -> str:
    """The clip's name, whichever list the row is from: "---g-f_I2yQ_000001"."""
    if len(row) == 4:
        return f"{row[0]}_{row[1]:0>6}"
    return row[0].removesuffix(".mp4")
