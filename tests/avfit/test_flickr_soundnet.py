"""Flickr-SoundNet: every annotator's box counts, the published lists are read, hostile XML is not."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from avalign.answers import read_boxes
from avalign.avfit.datasets.flickr_soundnet import LISTS, FlickrSoundNet
from avalign.errors import AvalignError
from tests.helpers.avfit.excerpts import excerpt, reasons, record_counts

BOXES = [(0, 64, 128, 256), (0, 64, 128, 256), (32, 0, 256, 192)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "flickr_test.csv").write_bytes(b"111,202\r\n")
    write(tmp_path, "111", BOXES)
    return tmp_path


def readings(folder: Path, **options: Any) -> list[Any]:
    return list(FlickrSoundNet(**options).read(folder))


@pytest.mark.parametrize(
    ("clips", "count", "twice"),
    [("flickr_test", 249, 0), ("test_list", 250, 0), ("supervised_test_list", 250, 30)],
)
def test_every_clip_of_the_published_lists_is_found(folder: Path, clips: Any, count: int, twice: int) -> None:
    """CRLF and frame numbers, ".png" endings, absolute paths of ".mp4"; a list that names clips twice."""
    shutil.copy(excerpt(f"flickr-soundnet/{LISTS[clips]}"), folder)
    rows = (folder / LISTS[clips]).read_text().split()
    ids = [row.split(",")[0].split("/")[-1].split(".")[0] for row in rows]
    for clip in ids[1:]:
        write(folder, clip, BOXES)
    read = readings(folder, clips=clips)
    assert [r.item for r in read] == ids
    assert all(clip.isdecimal() for clip in ids)
    assert record_counts(read) == (count - 1, 1 + twice)
    assert reasons(read) == Counter({"no readable boxes": 1}) + Counter({"repeated clip": twice})
    assert read[0].problems[0].detail == f"Annotations/{ids[0]}.xml: no such file"
    found = [r.made[0].image for r in read if r.made]
    assert found == [f"frames/{clip}.jpg" for clip in dict.fromkeys(ids[1:])]


def test_boxes_that_two_annotators_drew_alike_count_twice(folder: Path) -> None:
    (reading,) = readings(folder)
    (made,) = reading.made
    assert made.boxes == (*((0, 0.25, 0.5, 1), (0, 0.25, 0.5, 1), (0.125, 0, 1, 0.75)),)
    assert (made.consensus, made.label, made.split) == (2, None, "test")
    assert [b.box for b in read_boxes(made.response)] == [(0, 0.25, 0.5, 1), (0.12, 0, 1, 0.75)]
    assert (made.image, made.audio, made.frame_times) == ("frames/111.jpg", "audio/111.wav", ())
    assert made.provenance == {"origins": ["flickr:111"]}


def test_an_annotator_may_have_drawn_several_boxes(folder: Path) -> None:
    boxes = "".join(bbox(box) for box in BOXES[1:])
    (folder / "Annotations" / "111.xml").write_text(f"<a><b><name>x</name>{boxes}</b><b/></a>")
    assert len(readings(folder)[0].made[0].boxes) == 2


@pytest.mark.parametrize(
    ("box", "reason", "used"),
    [
        ((10, 10, 10, 90), "box without area", 1),
        ((0, 0, 300, 90), "corner outside the picture", 1),
        ((0, 0, 257, 90), "corner slightly outside, clipped", 1),
        ((90, 10, 10, 90), "swapped corners, sorted", 1),
        ((0, 0, "nan", 90), "not four numbers", 1),
        ((0, 0, "9" * 5000, 90), "not four numbers", 1),
        ((0, 0, 90), "not four numbers", 1),
    ],
)
def test_a_box_that_is_none_is_told_and_the_others_stay(
    folder: Path, box: Any, reason: str, used: int
) -> None:
    write(folder, "111", [*BOXES, box])
    read = readings(folder)
    assert (record_counts(read), reasons(read)) == ((used, 1 - used), {reason: 1})
    assert all(0 <= x <= 1 for b in read[0].made[0].boxes for x in b)
    assert read[0].made[0].boxes[:2] == ((0, 0.25, 0.5, 1), (0, 0.25, 0.5, 1))


BOMB = '<!DOCTYPE a [<!ENTITY x "xxxxxxxxxx"><!ENTITY y "&x;&x;&x;">]><a>&y;</a>'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (BOMB.encode(), "has a DOCTYPE"),
        (BOMB.encode("utf-16"), "has a DOCTYPE"),
        (b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', "has a DOCTYPE"),
        (b"<a><b>", "is not XML"),
        (b"", "is not XML"),
        (b"\xff\x00", "is not XML"),
        (b'<?xml version="1.0" encoding="nonsense"?><a/>', "is not XML"),
        (b"<a>&x;</a>", "is not XML"),
        (b"<a>" + b" " * (1 << 20) + b"</a>", "is larger than"),
    ],
)
def test_xml_that_is_broken_or_hostile_is_refused_by_name(folder: Path, content: bytes, said: str) -> None:
    (folder / "Annotations" / "111.xml").write_bytes(content)
    read = readings(folder)
    assert reasons(read) == {"no readable boxes": 1}
    assert read[0].problems[0].detail.startswith(f"Annotations/111.xml: {said}")


def test_xml_without_boxes_is_refused_by_name(folder: Path) -> None:
    (folder / "Annotations" / "111.xml").write_text("<a><b/></a>")
    assert reasons(readings(folder)) == {"no box": 1}


def test_names_that_lead_elsewhere_or_repeat(folder: Path) -> None:
    (folder / "flickr_test.csv").write_bytes(b"111,1\r\n..,1\r\na\\b,1\r\n111,2\r\n ,3\r\n")
    read = readings(folder)
    assert record_counts(read) == (1, 4)
    assert reasons(read) == {"unsafe name": 2, "repeated clip": 1, "row without a name": 1}
    assert read[3].where == "flickr_test.csv:4"


def test_a_list_or_pattern_that_cannot_be_read_is_named(folder: Path) -> None:
    with pytest.raises(AvalignError, match=r"supervised_test_list\.txt"):
        readings(folder, clips="supervised_test_list")
    with pytest.raises(AvalignError, match=r"annotations: .* no field 'id'"):
        FlickrSoundNet(annotations="{id}.xml")
    with pytest.raises(AvalignError, match="is a video"):
        FlickrSoundNet(image="videos/{clip}.mp4")


def bbox(box: Any) -> str:
    corners = "".join(f"<c>{x}</c>" for x in box)
    return f"<bbox><kind>box</kind>{corners}</bbox>"


def write(folder: Path, clip: str, boxes: Any) -> None:
    annotators = "".join(f"<annotator>{bbox(box)}</annotator>" for box in boxes)
    (folder / "Annotations" / f"{clip}.xml").write_text(f"<annotation>{annotators}</annotation>")
