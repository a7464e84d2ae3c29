"""AVE: when does an event happen that is both heard and seen?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field

from avalign.avfit.annotation import Reading, refused, spoken
from avalign.avfit.annotation_files import rows_of
from avalign.avfit.datasets.clips import Clips
from avalign.avfit.datasets.intervals import written
from avalign.data.manifest.record import Record
from avalign.interfaces import Dataset

SECONDS = 10
EVENTS = "Annotations.txt"
LISTS = {"train": "trainSet.txt", "val": "valSet.txt", "test": "testSet.txt"}
HEADER = ["Category", "VideoID"]  # the first cells of a first line that some copies have
Lists = Mapping[tuple[str, str], list[str]]  # category and clip -> the splits that list it


class Ave(Dataset):
    """AVE, Audio-Visual Event: 4,143 events of 28 categories in clips of 10 s (IGATL).

    Layout of its folder: `Annotations.txt` with rows "category&YouTube id&quality&start&end" (seconds of the
    clip), `trainSet.txt`, `valSet.txt` and `testSet.txt` with the rows of each split, and the media that
    `image` and `audio` name; "{clip}" stands for the YouTube id. The three lists have not been verified
    against the original files. One question an event; a clip may have events of two categories, and these may
    stand in different splits.
    Source: Tian et al., Audio-Visual Event Localization in Unconstrained Videos, ECCV 2018.

    image, audio: where a clip's image and audio lie
    frames:       how many frames stand for the image, if it is a video: its middle, or evenly spread
    """

    gives = "records"

    def __init__(
        self,
        *,
        image: str = "AVE/{clip}.mp4",
        audio: str = "AVE/{clip}.mp4",
        frames: Annotated[int, Field(ge=1)] = 1,
    ) -> None:
        self.clips = Clips("ave", image, audio, frames, SECONDS)

    def read(self, folder: Path) -> Iterator[Reading[Record]]:
        listed: dict[tuple[str, str], list[str]] = {}
        where: dict[tuple[str, str], str] = {}
        for split, name in LISTS.items():
            for line, row in rows_of(folder / name, delimiter="&"):
                key = (row[0], row[1] if len(row) > 1 else "")
                listed.setdefault(key, []).append(split)
                where.setdefault(key, f"{name}:{line}")
        seen: set[tuple[str, str]] = set()
        for line, row in rows_of(folder / EVENTS, delimiter="&"):
            if line == 1 and row[:2] == HEADER:
                seen.add((row[0], row[1]))
                continue
            yield self._reading(row, f"{EVENTS}:{line}", listed, seen)
        for key in listed:
            if key not in seen and list(key) != HEADER:
                yield refused(key[1], where[key], "listed, but not annotated")

    def _reading(
        self, row: list[str], where: str, listed: Lists, seen: set[tuple[str, str]]
    ) -> Reading[Record]:
        clip = row[1] if len(row) > 1 else ""
        if len(row) != 5 or not clip or not (row[3].isdecimal() and row[4].isdecimal()):
            return refused(clip, where, "no row of five with times in whole seconds", "&".join(row))
        category, (start, end) = row[0], (float(row[3]), float(row[4]))
        if (category, clip) in seen:
            return refused(clip, where, "repeated event", category)
        seen.add((category, clip))
        if start >= end:
            return refused(clip, where, "event without duration", f"{row[3]} to {row[4]}")
        if end > SECONDS:
            return refused(clip, where, "event beyond the clip's end", f"{row[3]} to {row[4]}")
        splits = listed.get((category, clip), [])
        if len(splits) != 1:
            return refused(clip, where, "in several lists" if splits else "in no list", ", ".join(splits))
        try:
            media, named = self.clips.media(clip), spoken(category)
        except ValueError as error:
            return refused(clip, where, "unsafe name", error)
        record = Record(
            id=f"ave/{clip}/{category}",
            task="igatl",
            split=splits[0],
            source="ave",
            response=written([(start, end)]),
            slots={"class": named},
            intervals=((start, end),),
            label=category,
            kind="audio-visual",
            provenance={"origins": [clip], "seconds": SECONDS},
            **media,
        )
        return Reading(clip, where, (record,))
