"""VGG-SS: every published record becomes a question or is refused by name; broken boxes are never shown."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from avalign.answers import read_boxes
from avalign.avfit.datasets.vgg_ss import VggSs
from avalign.errors import AvalignError
from tests.helpers.avfit.excerpts import excerpt, reasons, record_counts

BRACKETS = str.maketrans("", "", "()")  # a box's label cannot hold them: "police car (siren)"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(excerpt("vgg-ss/vggss.json"), tmp_path)
    return tmp_path


def readings(folder: Path, **options: Any) -> list[Any]:
    return list(VggSs(**options).read(folder))


def test_the_published_records_all_come_out(folder: Path) -> None:
    published = json.loads((folder / "vggss.json").read_text())
    read = readings(folder)
    assert [r.item for r in read] == [p["file"] for p in published]
    assert record_counts(read) == (399, 1)
    assert reasons(read).keys() <= {"box without area", "corner outside the picture"}
    for reading, record in zip(read, published, strict=True):
        if not reading.made:
            continue
        made = reading.made[0]
        assert [list(box) for box in made.boxes] == record["bbox"] or reading.problems
        assert made.label == record["class"]
        written = read_boxes(made.response)
        assert [box.label for box in written] == [record["class"].translate(BRACKETS)] * len(made.boxes)
        assert made.provenance["origins"][0] == record["file"][:11]


def test_the_records_with_broken_boxes(folder: Path) -> None:
    """-2.88e16 for a corner, boxes without area: the other boxes stay, and two clips have none left."""
    shutil.copy(excerpt("vgg-ss/vggss.quirk-records.json"), folder / "vggss.json")
    read = readings(folder)
    assert record_counts(read) == (16, 2)
    assert reasons(read) == {"corner outside the picture": 12, "box without area": 6}
    assert [r.item for r in read if not r.made] == ["M1P1xla8rg0_000000", "MKC9LvRivTM_000030"]
    assert all(0 <= x <= 1 for r in read for made in r.made for box in made.boxes for x in box)


def test_an_id_may_begin_with_a_dash_and_hold_underscores(folder: Path) -> None:
    clips = ["-ANxUxvGASw_000010", "8_rFjamYo1Y_000022"]
    write(folder, [{"file": clip, "class": "dog barking", "bbox": [[0, 0, 1, 1]]} for clip in clips])
    made = [r.made[0] for r in readings(folder, image="videos/{clip}.mp4", audio="videos/{clip}.mp4")]
    assert [m.image for m in made] == [f"videos/{clip}.mp4" for clip in clips]
    assert [m.provenance["origins"] for m in made] == [["-ANxUxvGASw"], ["8_rFjamYo1Y"]]
    assert made[0].frame_times == (5.0,)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ("text", "record without file or class"),
        ({"file": "x_000001", "bbox": [[0, 0, 1, 1]]}, "record without file or class"),
        ({"file": "../../etc_000001", "class": "dog", "bbox": [[0, 0, 1, 1]]}, "unsafe name"),
        ({"file": "x_000001", "class": "dog", "bbox": []}, "no box"),
        ({"file": "x_000001", "class": "dog", "bbox": None}, "not four numbers"),
        ({"file": "x_000001", "class": "dog", "bbox": [["0", 0, 1, 1]]}, "not four numbers"),
    ],
)
def test_what_is_no_record_is_refused_by_name(folder: Path, item: Any, reason: str) -> None:
    write(folder, [item, {"file": "good_000001", "class": "dog", "bbox": [[0, 0, 1, 1]]}])
    read = readings(folder)
    assert record_counts(read) == (1, 1)
    assert reasons(read) == {reason: 1}
    assert read[0].where == "vggss.json, record 1"


def test_a_repeated_clip_counts_once(folder: Path) -> None:
    write(folder, [{"file": "x_000001", "class": "dog", "bbox": [[0, 0, 1, 1]]}] * 2)
    assert reasons(readings(folder)) == {"repeated clip": 1}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'[{"file": "x_0', "is not JSON"),
        (b"\xff\xfe\x00", "is not UTF-8"),
        (b"{}", "holds a dict"),
        (None, "no such file"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / "vggss.json").write_bytes(content)
    with pytest.raises(AvalignError, match=f"vggss.json: .*{said}"):
        readings(tmp_path)


def write(folder: Path, items: list[Any]) -> None:
    (folder / "vggss.json").write_text(json.dumps(items))
