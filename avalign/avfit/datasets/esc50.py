"""ESC-50: environmental sounds of 50 classes, 5 s each."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from avalign.avfit.annotation import AudioAnnotation, Event, Reading, filled_pattern, refused
from avalign.avfit.annotation_files import named_rows_of
from avalign.avfit.datasets.options import checked_pattern, checked_splits
from avalign.interfaces import Dataset

COLUMNS = ("filename", "fold", "category", "src_file")
FOLDS = {1: "train", 2: "train", 3: "train", 4: "val", 5: "test"}


class Esc50(Dataset):
    """ESC-50: 2,000 sounds of 5 s, 40 of each of 50 classes, from Freesound (recordings to pair).

    Layout of its folder, as published: `meta/esc50.csv` with columns filename, fold, target, category, esc10,
    src_file, take, and the sounds. All takes of a Freesound file are in one fold, so folds do not leak into
    each other. The class is heard at some time in the 5 s, which silence may fill up.
    Source: Piczak, ESC: Dataset for Environmental Sound Classification, ACM Multimedia 2015.

    audio:  where a sound lies; {file} is its name with ".wav"
    folds:  fold, 1 to 5 -> our split; sounds of a fold that is not named are refused
    """

    gives = "recordings"

    def __init__(self, *, audio: str = "audio/{file}", folds: Mapping[int, str] = FOLDS) -> None:
        self.audio = checked_pattern("esc50: audio", audio, ("file",))
        self.folds = checked_splits("esc50: folds", folds, FOLDS)

    def read(self, folder: Path) -> Iterator[Reading[AudioAnnotation]]:
        seen: set[str] = set()
        for number, row in named_rows_of(folder / "meta" / "esc50.csv", COLUMNS):
            where, file = f"esc50.csv:{number}", row.get("filename", "")
            yield self._reading(file, where, row, seen)
            seen.add(file)

    def _reading(
        self, file: str, where: str, row: Mapping[str, str], seen: Collection[str]
    ) -> Reading[AudioAnnotation]:
        if not all(row.get(column, "").strip() for column in COLUMNS):
            return refused(file, where, "row without file, fold, category or src_file")
        if file in seen:
            return refused(file, where, "repeated sound")
        if row["fold"] not in map(str, FOLDS):
            return refused(file, where, "unknown fold", row["fold"])
        if int(row["fold"]) not in self.folds:
            return refused(file, where, "fold not asked for", row["fold"])
        try:
            path = filled_pattern(self.audio, file=file)
        except ValueError as error:
            return refused(file, where, "unsafe name", error)
        item = file.removesuffix(".wav")
        split, origin = self.folds[int(row["fold"])], f"esc50:{row['src_file']}"
        return Reading(
            file,
            where,
            (AudioAnnotation(f"esc50/{item}", split, path, (Event(row["category"]),), origin=origin),),
        )
