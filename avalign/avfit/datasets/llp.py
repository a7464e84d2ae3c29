"""LLP: when is a class of event heard, or seen, in a clip of a video?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from avalign.answers import Interval
from avalign.avfit.annotation import Problem, Reading, refused, spoken
from avalign.avfit.annotation_files import named_rows_of
from avalign.avfit.datasets.clips import Clips
from avalign.avfit.datasets.intervals import covered, in_both, written
from avalign.data.manifest.record import Record
from avalign.interfaces import Dataset

SECONDS = 10
LISTS = {"val": "AVVP_val_pd.csv", "test": "AVVP_test_pd.csv"}
EVENTS = {"audio": "AVVP_eval_audio.csv", "visual": "AVVP_eval_visual.csv"}
# fmt: off
CLASSES = (
    "Accordion", "Acoustic_guitar", "Baby_cry_infant_cry", "Baby_laughter", "Banjo", "Basketball_bounce",
    "Blender", "Car", "Cat", "Cello", "Chainsaw", "Cheering", "Chicken_rooster", "Clapping", "Dog",
    "Fire_alarm", "Frying_(food)", "Helicopter", "Lawn_mower", "Motorcycle", "Singing", "Speech",
    "Telephone_bell_ringing", "Vacuum_cleaner", "Violin_fiddle",
)
# fmt: on
Found = dict[str, dict[str, list[Interval]]]  # clip -> class -> its events


class Llp(Dataset):
    """LLP, Look, Listen and Parse: 25 classes, annotated in time in 1,849 clips of 10 s (IGATL, zero-shot).

    Layout of its folder: `AVVP_val_pd.csv` and `AVVP_test_pd.csv` (the clips of a split),
    `AVVP_eval_audio.csv` and `AVVP_eval_visual.csv` (their events, a row each) as published, and the media
    that `image` and `audio` name; "{clip}" stands for the name in these files, "<YouTube id>_<start>_<end>".
    One question a clip and class. A class's intervals are the union of its rows, in whole seconds; a row that
    ends where or before it begins is told and counts nothing, as in the data set's own evaluation. A clip
    without rows has no such event. The training list is weak, without times, and so not used.
    Source: Tian et al., Unified Multisensory Perception: Weakly-Supervised Audio-Visual Video Parsing, ECCV
    2020.

    modality:     what is asked for: when the class is heard, seen, or both ("audio-visual", the intersection)
    ask:          "present": the classes that a clip has; "all": all 25, answered "never" where it has not
    image, audio: where a clip's image and audio lie
    frames:       how many frames stand for the image, if it is a video: its middle, or evenly spread
    """

    gives = "records"

    def __init__(
        self,
        *,
        modality: Literal["audio", "visual", "audio-visual"] = "audio",
        ask: Literal["present", "all"] = "present",
        image: str = "videos/{clip}.mp4",
        audio: str = "videos/{clip}.mp4",
        frames: Annotated[int, Field(ge=1)] = 1,
    ) -> None:
        self.modality, self.ask = modality, ask
        self.clips = Clips("llp", image, audio, frames, SECONDS)

    def read(self, folder: Path) -> Iterator[Reading[Record]]:
        problems: dict[str, list[Problem]] = defaultdict(list)
        unread: list[Reading[Record]] = []
        kinds = ["audio", "visual"] if self.modality == "audio-visual" else [self.modality]
        found = [_events(folder / EVENTS[kind], problems, unread) for kind in kinds]
        seen: set[str] = set()
        for split, name in LISTS.items():
            for line, row in named_rows_of(folder / name, ["filename", "event_labels"], delimiter="\t"):
                where, clip = f"{name}:{line}", row.get("filename", "")
                if not clip:
                    yield refused(clip, where, "row without a name")
                elif clip in seen:
                    yield refused(clip, where, "repeated clip")
                else:
                    seen.add(clip)
                    events = [of_clips.get(clip, {}) for of_clips in found]
                    yield self._reading(clip, split, where, events, tuple(problems.get(clip, ())))
        yield from unread
        where = " and ".join(EVENTS[kind] for kind in kinds)
        unlisted = Problem("events of a clip in no list")
        for clip in dict.fromkeys([*(clip for events in found for clip in events), *problems]):
            if clip not in seen:
                yield Reading(clip, where, problems=(*problems.get(clip, ()), unlisted))

    def _reading(
        self,
        clip: str,
        split: str,
        where: str,
        events: Sequence[Mapping[str, list[Interval]]],
        told: tuple[Problem, ...],
    ) -> Reading[Record]:
        youtube = clip.rsplit("_", 2)[0]  # ids shorter than 11 characters occur
        try:
            media = self.clips.media(clip)
        except ValueError as error:
            return refused(clip, where, "unsafe name", error)
        made = []
        for name in CLASSES:
            intervals = covered(events[0].get(name, []))
            for other in events[1:]:
                intervals = in_both(intervals, covered(other.get(name, [])))
            if intervals or self.ask == "all":
                made.append(self._record(clip, split, name, intervals, media, youtube))
        if not made:
            return Reading(clip, where, problems=(*told, Problem(f"no {self.modality} event")))
        return Reading(clip, where, tuple(made), told)

    def _record(
        self, clip: str, split: str, name: str, intervals: tuple[Interval, ...], media: Any, youtube: str
    ) -> Record:
        return Record(
            id=f"llp/{self.modality}/{clip}/{name}",
            task="igatl",
            split=split,
            source="llp",
            response=written(intervals),
            slots={"class": spoken(name)},
            intervals=intervals,
            label=name,
            kind=self.modality,
            provenance={"origins": [youtube], "clip": clip, "seconds": SECONDS},
            **media,
        )


def _events(file: Path, problems: Mapping[str, list[Problem]], unread: list[Reading[Record]]) -> Found:
    """Clip -> class -> its events; what is wrong with a row goes to its clip's problems, or to `unread`."""
    found: Found = defaultdict(lambda: defaultdict(list))
    for line, row in named_rows_of(file, ["filename", "onset", "offset", "event_labels"], delimiter="\t"):
        where, clip = f"{file.name}:{line}", row.get("filename", "")
        if not clip:
            unread.append(refused(clip, where, "event without a clip"))
            continue
        interval, reason = _interval(row["onset"], row["offset"])
        if row["event_labels"] not in CLASSES:
            interval, reason = None, "unknown class"
        if interval is None:
            said = f"{where}: {row['onset']} to {row['offset']}, {row['event_labels']}"
            problems[clip].append(Problem(reason, f"{said:.120}"))
        else:
            found[clip][row["event_labels"]].append(interval)
    return found


def _interval(onset: str, offset: str) -> tuple[Interval | None, str]:
    if not (onset.isdecimal() and offset.isdecimal()):
        return None, "event without times in whole seconds"
    start, end = float(onset), float(offset)
    if end > SECONDS:
        return None, "event beyond the clip's end"
    if start == end:
        return None, "event without duration"
    return ((start, end), "") if start < end else (None, "event that ends before it begins")
