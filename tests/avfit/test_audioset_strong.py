"""AudioSet Strong: every row is an event of its clip, wherever it stands; milliseconds, frames, absences."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest

from avalign.avfit.datasets.audioset_strong import AudioSetStrong
from avalign.errors import AvalignError
from tests.helpers.avfit.excerpts import excerpt, reasons, record_counts
from tests.helpers.avfit.layouts import EVENTS, lay_out

TRAIN = {"train": "train"}
FRAMED = EVENTS.replace("label", "label\tpresent")
FILTERED = [f"{sound}_{part}" for sound in ("baby_cry", "gun", "snore") for part in ("nov", "ov")]


def readings(folder: Path, **options: Any) -> list[Any]:
    return list(AudioSetStrong(**options).read(folder))


def rows(folder: Path, *events: str, header: str = EVENTS) -> list[Any]:
    lines = "".join(event.replace(" ", "\t") + "\n" for event in events)
    lay_out("audioset_strong", folder, audioset_train_strong=header + lines)
    return readings(folder, splits=TRAIN)


def heard(reading: Any) -> list[tuple[str, Any]]:
    return [(event.name, event.interval) for event in reading.made[0].events]


@pytest.mark.parametrize("filtered", FILTERED)
def test_the_published_rows_all_come_out(tmp_path: Path, filtered: str) -> None:
    shutil.copy(excerpt("audioset/mid_to_display_name.tsv"), tmp_path)
    published: dict[str, list[tuple[str, float, float]]] = {}
    for split in ("train", "eval"):
        name = f"{filtered}_audioset_{split}_strong.tsv"
        shutil.copy(excerpt(f"audioset/strong-filtered/{name}"), tmp_path)
        with open(tmp_path / name, newline="") as opened:
            for row in csv.DictReader(opened, delimiter="\t"):
                event = (row["label"], float(row["start_time_seconds"]), float(row["end_time_seconds"]))
                published.setdefault(row["segment_id"], []).append(event)
    read = readings(tmp_path, labels=filtered + "_audioset_{split}_strong.tsv")
    assert record_counts(read) == (len(published), 0)
    assert not reasons(read)
    for reading in read:
        made = reading.made[0]
        assert [(e.mid, *e.interval) for e in made.events] == published[reading.item]
        assert made.origin == reading.item[:11]
        assert made.file == f"audio/{reading.item}.wav"
        assert made.split == ("train" if "_train_" in reading.where else "test")


def test_published_frames_become_events(tmp_path: Path) -> None:
    name = "baby_cry_ov_audioset_eval_strong_framed_posneg.tsv"
    shutil.copy(excerpt(f"audioset/strong-filtered/{name}"), tmp_path)
    shutil.copy(excerpt("audioset/mid_to_display_name.tsv"), tmp_path)
    labels = "baby_cry_ov_audioset_{split}_strong_framed_posneg.tsv"
    read = readings(tmp_path, labels=labels, splits={"eval": "test"})
    assert record_counts(read) == (60, 0)
    assert heard(read[0]) == [("Baby cry, infant cry", (4.8, 9.6))]  # five frames of 0.96 s
    with open(tmp_path / name, newline="") as opened:
        frames = sum(1 for _ in opened) - 1
    seconds = sum(e.interval[1] - e.interval[0] for r in read for e in r.made[0].events)
    assert seconds == pytest.approx(0.96 * frames)
    gaps = [
        b.interval[0] - a.interval[1]
        for r in read
        for a, b in zip(r.made[0].events, r.made[0].events[1:], strict=False)
    ]
    assert min(gaps) > 0.9


def test_frames_join_by_class_and_absent_ones_are_told(tmp_path: Path) -> None:
    (reading,) = rows(
        tmp_path,
        "a_0 0.96 1.92 /m/0bt9lr PRESENT",
        "a_0 0.0 0.96 /m/09x0r PRESENT",
        "a_0 0.0 0.96 /m/0bt9lr PRESENT",
        "a_0 1.92 2.88 /m/0bt9lr NOT_PRESENT",
        "a_0 2.88 3.84 /m/0bt9lr PRESENT",
        "a_0 2.88 3.84 /m/09x0r perhaps",
        header=FRAMED,
    )
    assert heard(reading) == [("Speech", (0, 0.96)), ("Dog", (0, 1.92)), ("Dog", (2.88, 3.84))]
    assert reasons([reading]) == {"absent there": 1, "neither present nor not": 1}
    (reading,) = rows(tmp_path, "a_0 0.0 0.96 /m/0bt9lr NOT_PRESENT", header=FRAMED)
    assert not reading.made
    (reading,) = rows(tmp_path, "a_0 0 1 /m/0bt9lr", "a_0 1 2 /m/0bt9lr")
    assert len(heard(reading)) == 2, "events of the other files stay as they were annotated"


def test_rows_of_a_segment_need_not_stand_together(tmp_path: Path) -> None:
    read = rows(tmp_path, *(f"{clip}_0 {n} {n + 1} /m/0bt9lr" for n, clip in enumerate("abacab")))
    assert [(r.item, r.where, [e[1][0] for e in heard(r)]) for r in read] == [
        ("c_0", "audioset_train_strong.tsv:5", [3]),
        ("a_0", "audioset_train_strong.tsv:2", [0, 2, 4]),
        ("b_0", "audioset_train_strong.tsv:3", [1, 5]),
    ]


def test_the_start_is_in_milliseconds_and_an_id_may_hold_underscores(tmp_path: Path) -> None:
    lay_out("audioset_strong", tmp_path)
    read = readings(tmp_path, splits=TRAIN, audio="videos/{youtube}.mp4")
    assert [(r.made[0].origin, r.made[0].start, r.made[0].end) for r in read] == [
        ("--abcdefgh_", 21.0, 31.0),
        ("zyxwvutsrqp", 0.0, 10.0),
    ]
    assert heard(read[0])[0] == ("Speech", (1.419, 1.599)), "seconds of the clip, not of the video"


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ("a_0 2.0 2.0 /m/0bt9lr", "event that does not end after its start"),
        ("a_0 9 0 /m/0bt9lr", "event that does not end after its start"),
        ("a_0 nan 2.0 /m/0bt9lr", "event without times"),
        ("a_0 -1 2.0 /m/0bt9lr", "event without times"),
        ("a_0 1 1e400 /m/0bt9lr", "event without times"),
        ("a_0 9.0 10.2 /m/0bt9lr", "event beyond the clip's end"),
        ("a_0 10.0 10.05 /m/0bt9lr", "event beyond the clip's end"),
        ("a_0 1 2 /m/none", "unknown class"),
        ("a_0 0 1 /m/0bt9lr", "repeated event"),
    ],
)
def test_an_event_that_cannot_be_used_is_told_with_its_line(tmp_path: Path, event: str, reason: str) -> None:
    (reading,) = rows(tmp_path, "a_0 0 1 /m/0bt9lr", event)
    assert heard(reading) == [("Dog", (0, 1))]
    assert reasons([reading]) == {reason: 1}
    assert reading.problems[0].detail.startswith("line 3: ")


def test_an_event_that_ends_just_after_its_clip_is_clipped_and_told(tmp_path: Path) -> None:
    (reading,) = rows(tmp_path, "a_0 9 10.05 /m/0bt9lr")
    assert heard(reading) == [("Dog", (9, 10))]
    assert reasons([reading]) == {"event ends slightly after the clip, clipped": 1}


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ("a 0 1 /m/0bt9lr", "segment without a start"),
        ("_0 0 1 /m/0bt9lr", "unsafe name"),
        ("a_b 0 1 /m/0bt9lr", "segment without a start"),
        ("a_-1 0 1 /m/0bt9lr", "segment without a start"),
        ("../a_0 0 1 /m/0bt9lr", "unsafe name"),
        ("a_0 0 1", "row of another length"),
    ],
)
def test_a_segment_that_cannot_be_used_is_refused_by_name(tmp_path: Path, event: str, reason: str) -> None:
    read = rows(tmp_path, event, "good_0 0 1 /m/0bt9lr")
    assert record_counts(read) == (1, 1)
    assert reasons(read) == {reason: 1}


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    lay_out("audioset_strong", tmp_path)
    with pytest.raises(AvalignError, match=r"gun_eval.tsv: no such file .*labels, splits"):
        readings(tmp_path, labels="gun_{split}.tsv", splits={"eval": "test"})
    with pytest.raises(AvalignError, match=r"audioset_strong: labels: .*names the same file for all"):
        AudioSetStrong(labels="events.tsv")
