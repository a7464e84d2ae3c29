"""AudioSet: every published row becomes a recording; times, names of files and classes as published."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest

from avalign.avfit.datasets.audioset import AudioSet
from avalign.errors import AvalignError
from tests.helpers.avfit.excerpts import excerpt, reasons, record_counts
from tests.helpers.avfit.layouts import SEGMENTS, lay_out

EVAL = {"eval": "test"}


def readings(folder: Path, **options: Any) -> list[Any]:
    return list(AudioSet(**options).read(folder))


def rows(folder: Path, *segments: str, **options: Any) -> list[Any]:
    lay_out("audioset", folder, eval_segments=SEGMENTS + "".join(f"{s}\n" for s in segments))
    return readings(folder, splits=EVAL, **options)


def test_the_published_rows_all_come_out(tmp_path: Path) -> None:
    for name in ("class_labels_indices.csv", "balanced_train_segments.csv", "eval_segments.csv"):
        shutil.copy(excerpt(f"audioset/{name}"), tmp_path)
    read = readings(tmp_path, splits={"balanced_train": "train", "eval": "test"})
    assert record_counts(read) == (800, 0)
    assert not reasons(read)
    made = [r.made[0] for r in read]
    assert [m.split for m in made] == ["train"] * 400 + ["test"] * 400
    with open(tmp_path / "class_labels_indices.csv", newline="") as opened:
        names = {row["mid"]: row["display_name"] for row in csv.DictReader(opened)}
    published = [
        *(tmp_path / "balanced_train_segments.csv").read_text().splitlines()[3:],
        *(tmp_path / "eval_segments.csv").read_text().splitlines()[3:],
    ]
    for line, m in zip(published, made, strict=True):
        clip, start, _, labels = line.split(", ", 3)
        mids = labels.strip('"').split(",")
        assert [(event.mid, event.name) for event in m.events] == [(mid, names[mid]) for mid in mids]
        assert all(event.interval is None for event in m.events)
        assert (m.origin, m.file) == (clip, f"audio/{clip}_{int(float(start))}.wav")
        assert (m.start, m.end) == (None, None)


@pytest.mark.parametrize(
    ("pattern", "file", "span"),
    [
        ("audio/{youtube}_{start_seconds}.wav", "audio/-_abcdefgh-_30.5.wav", (None, None)),
        ("{youtube}_{start_milliseconds}.flac", "-_abcdefgh-_30500.flac", (None, None)),
        (
            "{split}_segments/Y{youtube}_{start_milliseconds}_{end_milliseconds}.wav",
            "eval_segments/Y-_abcdefgh-_30500_40000.wav",
            (None, None),
        ),
        ("{youtube}_{start_seconds:0>6}_{end_seconds}.wav", "-_abcdefgh-_0030.5_40.wav", (None, None)),
        ("{clip}.wav", "-_abcdefgh-_000030.wav", (None, None)),
        ("videos/{youtube}.mp4", "videos/-_abcdefgh-.mp4", (30.5, 40.0)),
    ],
)
def test_names_of_files(tmp_path: Path, pattern: str, file: str, span: Any) -> None:
    (reading,) = rows(tmp_path, '-_abcdefgh-, 30.500, 40.000, "/m/0bt9lr"', audio=pattern)
    assert (reading.made[0].file, (reading.made[0].start, reading.made[0].end)) == (file, span)


@pytest.mark.parametrize(
    ("segment", "reason"),
    [
        ("a, 0.000, 10.000", "row of another length"),
        ('a, 10.000, 10.000, "/m/0bt9lr"', "segment without a time"),
        ('a, 10.000, 0.000, "/m/0bt9lr"', "segment without a time"),
        ('a, -1, 10.000, "/m/0bt9lr"', "segment without a time"),
        ('a, nan, 10.000, "/m/0bt9lr"', "segment without a time"),
        ('a, 0, 1e400, "/m/0bt9lr"', "segment without a time"),
        ('../up, 0, 10, "/m/0bt9lr"', "unsafe name"),
        ('a, 0, 10, "/m/none"', "unknown class"),
        ('a, 0, 10, ""', "unknown class"),
    ],
)
def test_a_row_that_cannot_be_used_is_refused_by_name(tmp_path: Path, segment: str, reason: str) -> None:
    read = rows(tmp_path, segment, 'good, 0.000, 10.000, "/m/0bt9lr"')
    assert record_counts(read) == (1, 1)
    assert reasons(read) == {reason: 1}
    assert read[0].where == "eval_segments.csv:4"


def test_known_classes_stay_beside_an_unknown_one_and_count_once(tmp_path: Path) -> None:
    (reading,) = rows(tmp_path, 'a, 0, 10, "/m/0bt9lr,/m/none,/m/09x0r,/m/0bt9lr"')
    assert [event.name for event in reading.made[0].events] == ["Dog", "Speech"]
    assert reasons([reading]) == {"unknown class": 1}


def test_a_repeated_segment_counts_once_and_another_of_its_video_too(tmp_path: Path) -> None:
    read = rows(tmp_path, *[f'b, {start}, 40, "/m/0bt9lr"' for start in (30, 20, 30)], 'a, 0, 9, "/m/0bt9lr"')
    assert [bool(r.made) for r in read] == [True, True, False, True]
    assert reasons(read) == {"repeated segment": 1}


def test_files_and_options_that_are_not_there_are_named(tmp_path: Path) -> None:
    (lay_out("audioset", tmp_path) / "unbalanced_train_segments.csv").unlink()
    with pytest.raises(AvalignError, match=r"unbalanced_train_segments.csv: no such file .*audioset: splits"):
        next(AudioSet().read(tmp_path))
    with pytest.raises(AvalignError, match=r"audioset: audio: .*no field 'start'.*start_seconds"):
        AudioSet(audio="{youtube}_{start}.wav")
    with pytest.raises(AvalignError, match=r"audioset: splits: {} does not say"):
        AudioSet(splits={})
