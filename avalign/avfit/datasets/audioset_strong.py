"""AudioSet Strong: what is heard when, in 120 thousand clips of AudioSet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from avalign.avfit.annotation import AudioAnnotation, Event, Problem, Reading, filled_pattern, refused
from avalign.avfit.annotation_files import named_rows_of, rows_of
from avalign.avfit.datasets.ontology import names_by_mid
from avalign.avfit.datasets.options import checked_pattern, checked_splits, existing
from avalign.avfit.datasets.youtube import Clip, ClipFiles, milliseconds, seconds
from avalign.interfaces import Dataset

SECONDS = 10.0
SLACK = 0.1  # seconds by which an event may end after its clip, and is clipped
SPLITS = {"train": "train", "eval": "test"}
COLUMNS = ("segment_id", "start_time_seconds", "end_time_seconds", "label")
PRESENT, ABSENT = "PRESENT", "NOT_PRESENT"  # in the files that judge every 0.96 s
_Row = tuple[int, Mapping[str, str]]


class AudioSetStrong(Dataset):
    """AudioSet Strong: 456 classes of sounds with their times, in 103 k and 17 k clips (recordings to pair).

    Layout of its folder: `mid_to_display_name.tsv`, for each split the file that `labels` names as published
    (segment_id "<YouTube id>_<start in milliseconds>", start and end in seconds of the clip, class id), and
    the audio. Clips last 10 s. All events of a clip make one recording, also where its rows do not stand
    together. A file with a column `present` (`..._framed_posneg.tsv`) judges frames of 0.96 s: those of one
    class that touch are joined to one event, and frames in which a class is absent are told, not used.
    Source: Hershey et al., The benefit of temporally-strong labels in audio event classification, ICASSP
    2021.

    audio:   where a clip's audio lies, of fields {youtube}, {split}, {start_milliseconds},
             {end_milliseconds}, {start_seconds}, {end_seconds}, {clip} (avalign/avfit/datasets/youtube.py has
             examples); without a start the file is the whole video, of which the clip's 10 s are meant
    labels:  the files of events; {split} as published: "audioset_{split}_strong_framed_posneg.tsv"
    splits:  published split -> ours, of those to be read
    """

    gives = "recordings"

    def __init__(
        self,
        *,
        audio: str = "audio/{youtube}_{start_milliseconds}.wav",
        labels: str = "audioset_{split}_strong.tsv",
        splits: Mapping[str, str] = SPLITS,
    ) -> None:
        self.files = ClipFiles("audioset_strong", audio)
        self.labels = checked_pattern("audioset_strong: labels", labels, ("split",))
        self.splits = checked_splits("audioset_strong: splits", splits, SPLITS)

    def read(self, folder: Path) -> Iterator[Reading[AudioAnnotation]]:
        names = names_by_mid(folder / "mid_to_display_name.tsv", delimiter="\t")
        option = "audioset_strong: labels, splits"
        files = {
            split: existing(folder / filled_pattern(self.labels, split=split), option)
            for split in self.splits
        }
        for split, file in files.items():
            for item, rows in _segments(file):
                yield self._reading(item, f"{file.name}:{rows[0][0]}", rows, split, names)

    def _reading(
        self, item: str, where: str, rows: Sequence[_Row], split: str, names: Mapping[str, str]
    ) -> Reading[AudioAnnotation]:
        if not item:
            return refused(item, where, "row of another length", f"{len(rows)} rows")
        youtube, _, start = item.rpartition("_")  # the id itself may hold "_"
        events, problems = _events(rows, names)
        if not events:
            return Reading(item, where, problems=problems)
        try:
            clip = Clip(youtube, milliseconds(start), milliseconds(start) + SECONDS)
        except ValueError as error:
            return refused(item, where, "segment without a start", error)
        try:
            made = self.files.recording(item, self.splits[split], split, clip, events)
        except ValueError as error:
            return refused(item, where, "unsafe name", error)
        return Reading(item, where, (made,), problems)


def _segments(file: Path) -> Iterator[tuple[str, list[_Row]]]:
    """Every segment with all its rows: those whose rows stand together first, as the file is gone through."""
    runs = Counter(item for item, _ in _runs(file))
    scattered: dict[str, list[_Row]] = {item: [] for item, count in runs.items() if item and count > 1}
    del runs  # 120 thousand names
    for item, rows in _runs(file):
        if item in scattered:
            scattered[item].extend(rows)
        else:
            yield item, list(rows)
    yield from scattered.items()


def _runs(file: Path) -> Iterator[tuple[str, Iterator[_Row]]]:
    """The rows that stand together and are of one segment; "" is the segment of a row of another length."""
    _, header = next(rows_of(file, delimiter="\t"), (0, []))
    columns = [*COLUMNS, *(name for name in ("present",) if name in header)]
    rows = named_rows_of(file, columns, delimiter="\t")
    return groupby(rows, key=lambda row: row[1].get("segment_id", ""))


def _events(rows: Sequence[_Row], names: Mapping[str, str]) -> tuple[tuple[Event, ...], tuple[Problem, ...]]:
    """The events of one segment in their order, each once, and what is wrong with the other rows."""
    found: dict[Event, None] = {}
    problems = []
    framed = "present" in rows[0][1]
    for number, row in rows:
        event, problem = _event(row, names)
        if event is not None and event in found:
            event, problem = None, Problem("repeated event", row["label"])
        if problem is not None:
            problems.append(Problem(problem.reason, f"line {number}: {problem.detail}"))
        if event is not None:
            found[event] = None
    return tuple(_joined(found) if framed else found), tuple(problems)


def _event(row: Mapping[str, str], names: Mapping[str, str]) -> tuple[Event | None, Problem | None]:
    mid = row["label"]
    said = f"{row['start_time_seconds']:.30} to {row['end_time_seconds']:.30} s, {mid:.40}"
    if mid not in names:
        return None, Problem("unknown class", said)
    try:
        start, end = seconds(row["start_time_seconds"]), seconds(row["end_time_seconds"])
    except ValueError:
        return None, Problem("event without times", said)
    if start >= end:
        return None, Problem("event that does not end after its start", said)
    if start >= SECONDS or end > SECONDS + SLACK:
        return None, Problem("event beyond the clip's end", said)
    present = row.get("present", PRESENT)
    if present != PRESENT:
        return None, Problem("absent there" if present == ABSENT else "neither present nor not", said)
    problem = Problem("event ends slightly after the clip, clipped", said) if end > SECONDS else None
    return Event(names[mid], (start, min(end, SECONDS)), mid), problem


def _joined(frames: Iterable[Event]) -> list[Event]:
    """Frames of one class that touch, as one event."""
    joined: list[Event] = []
    last: dict[str, int] = {}  # class -> index of its last event
    for frame in sorted(frames, key=lambda event: event.interval or ()):
        index = last.get(frame.mid)
        before = joined[index].interval if index is not None else None
        if index is not None and before and frame.interval and frame.interval[0] <= before[1]:
            interval = (before[0], max(before[1], frame.interval[1]))
            joined[index] = Event(frame.name, interval, frame.mid)
        else:
            last[frame.mid] = len(joined)
            joined.append(frame)
    return joined
