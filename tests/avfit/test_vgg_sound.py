"""VGG-Sound: both forms of its list, quoted labels, spans of 10 s."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest

from avalign.avfit.datasets.vgg_sound import VggSound
from avalign.errors import AvalignError
from tests.helpers.avfit.excerpts import excerpt, reasons, record_counts
from tests.helpers.avfit.layouts import lay_out


def readings(folder: Path, **options: Any) -> list[Any]:
    return list(VggSound(**options).read(folder))


def published(folder: Path, name: str) -> list[list[str]]:
    shutil.copy(excerpt(f"vgg-sound/{name}"), folder)
    with open(folder / name, newline="") as opened:
        return list(csv.reader(opened))


def test_the_published_list(tmp_path: Path) -> None:
    rows = published(tmp_path, "vggsound.csv")
    read = readings(tmp_path)
    assert record_counts(read) == (len(rows), 0) == (91, 0)
    assert not reasons(read)
    for (youtube, start, label, split), reading in zip(rows, read, strict=True):
        made = reading.made[0]
        assert (made.id, made.split, made.origin) == (f"vgg_sound/{reading.item}", split, youtube)
        assert made.file == f"audio/{youtube}_{int(start):06d}.wav"
        assert [(e.name, e.interval, e.mid) for e in made.events] == [(label, None, "")]
    labels = {r.made[0].events[0].name for r in read}
    assert "female speech, woman speaking" in labels


def test_the_published_test_list_names_the_same_clips(tmp_path: Path) -> None:
    rows = published(tmp_path, "test.csv")
    read = readings(tmp_path, labels="test.csv")
    assert record_counts(read) == (400, 0)
    made = [r.made[0] for r in read]
    assert [m.file for m in made] == [f"audio/{name.removesuffix('.mp4')}.wav" for name, _ in rows]
    assert [m.events[0].name for m in made] == [label for _, label in rows]
    assert {m.split for m in made} == {"test"}
    assert all(len(m.origin) == 11 for m in made)


def test_both_lists_name_a_clip_alike(tmp_path: Path) -> None:
    lay_out("vgg_sound", tmp_path)
    (tmp_path / "test.csv").write_text("---bcdefghi_000001.mp4,people marching\r\n")
    assert readings(tmp_path)[0].made == readings(tmp_path, labels="test.csv")[0].made


def test_a_clip_of_a_whole_video_is_its_ten_seconds(tmp_path: Path) -> None:
    made = readings(lay_out("vgg_sound", tmp_path), audio="{split}/{youtube}.mp4")[2].made[0]
    assert (made.file, made.start, made.end) == ("train/--1bcdefghi.mp4", 242.0, 252.0)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("a,1,dog", "row that names no clip"),
        ("a,x,dog,train", "row that names no clip"),
        ("a,-1,dog,train", "row that names no clip"),
        ("a,1e400,dog,train", "row that names no clip"),
        ("a,1,,train", "row that names no clip"),
        ("a,1,dog,val", "unknown split"),
        ("a,1,dog,test", "split not asked for"),
        ("../a,1,dog,train", "unsafe name"),
        (",1,dog,train", "unsafe name"),
        ("good,1,cat,train", "repeated clip"),
    ],
)
def test_a_row_that_cannot_be_used_is_refused_by_name(tmp_path: Path, row: str, reason: str) -> None:
    lay_out("vgg_sound", tmp_path, vggsound=f"good,1,dog,train\n{row}\n")
    read = readings(tmp_path, splits={"train": "val"})
    assert record_counts(read) == (1, 1)
    assert read[0].made[0].split == "val"
    assert reasons(read) == {reason: 1}
    assert read[1].where == "vggsound.csv:2"


def test_a_list_that_was_not_published_is_named() -> None:
    with pytest.raises(AvalignError, match=r"no list 'tset.csv' was published. Did you mean 'test.csv'"):
        VggSound(labels="tset.csv")  # type: ignore[arg-type]
