"""PASCAL VOC: pixels counted from 1 become 0..1; difficult boxes, parts and splits as stated."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from avalign.avfit.datasets.pascal_voc import PascalVoc
from avalign.errors import AvalignError
from avalign.media.read import read_image
from tests.helpers.avfit.excerpts import excerpt, reasons, record_counts
from tests.helpers.avfit.layouts import VOC, lay_out

TRAIN = {"train": "train"}


def readings(folder: Path, **options: Any) -> list[Any]:
    return list(PascalVoc(**options).read(folder))


def one(folder: Path, annotation: str, **options: Any) -> Any:
    lay_out("pascal_voc", folder, **{"000001": annotation, "train": "000001\n"})
    (reading,) = readings(folder, splits=TRAIN, **options)
    return reading


def test_the_published_annotation(tmp_path: Path) -> None:
    lay_out("pascal_voc", tmp_path, train="000001\n")
    shutil.copy(excerpt("pascal-voc/VOC2007/Annotations/000001.xml"), tmp_path / "Annotations")
    (reading,) = readings(tmp_path, splits=TRAIN)
    made = reading.made[0]
    assert (made.id, made.file) == ("pascal_voc/000001", "JPEGImages/000001.jpg")
    assert (made.origin, made.split, reading.problems) == ("pascal_voc:000001", "train", ())
    assert [thing.name for thing in made.things] == ["dog", "person"]
    # 353 x 500; dog: columns 48 to 195, rows 240 to 371, counted from 1 and all inside
    assert made.things[0].box == (47 / 353, 239 / 500, 195 / 353, 371 / 500)
    assert made.things[1].box == (7 / 353, 11 / 500, 352 / 353, 498 / 500)


def test_the_first_and_last_pixel_are_the_images_edges_and_parts_are_no_objects(tmp_path: Path) -> None:
    reading = one(tmp_path, VOC.format(id="000001"), difficult=True)
    assert [(thing.name, thing.box) for thing in reading.made[0].things] == [
        ("dog", (0, 0.1, 0.5, 0.6)),
        ("person", (0.5, 0, 1, 1)),
    ]


def test_difficult_objects_are_told(tmp_path: Path) -> None:
    reading = one(tmp_path, VOC.format(id="000001"))
    assert [thing.name for thing in reading.made[0].things] == ["dog"]
    assert reasons([reading]) == {"difficult object": 1}


@pytest.mark.parametrize(
    ("old", "new", "reason", "used"),
    [
        ("<xmax>100<", "<xmax>300<", "corner outside the picture", False),
        ("<xmax>100<", "<xmax>201<", "corner slightly outside, clipped", True),
        ("<xmax>100<", "<xmax>nan<", "corner outside the picture", False),
        ("<xmax>100<", "<xmax>many<", "not four numbers", False),
        ("<xmax>100</xmax>", "", "not four numbers", False),
        ("<xmin>1<", "<xmin>101<", "box without area", False),
        ("<xmin>1<", "<xmin>150<", "swapped corners, sorted", True),
        ("<width>200<", "<width>0<", "no size of the picture in pixels", False),
        ("<width>200<", "<width>1e400<", "no size of the picture in pixels", False),
        ("<height>100</height>", "", "no size of the picture in pixels", False),
        ("<name>dog</name>", "", "object without a class", False),
        ("</annotation>", "", "no readable annotation", False),
        ("<annotation>", "<!DOCTYPE a [<!ENTITY b 'c'>]><annotation>", "no readable annotation", False),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(
    tmp_path: Path, old: str, new: str, reason: str, used: bool
) -> None:
    reading = one(tmp_path, VOC.format(id="000001").replace(old, new, 1))
    assert bool(reading.made) is used
    assert reading.problems[0].reason == reason
    assert str(tmp_path) not in reading.problems[0].detail


def test_an_image_without_objects_is_refused(tmp_path: Path) -> None:
    reading = one(tmp_path, "<a><size><width>2</width><height>2</height></size></a>")
    assert reasons([reading]) == {"no object": 1}


def test_lists_give_the_splits_and_an_image_counts_once(tmp_path: Path) -> None:
    lay_out("pascal_voc", tmp_path, val="000003\r\n\n000002\n000009\n../secret\n")
    (tmp_path / "secret.xml").write_text(VOC.format(id="secret"))  # "Annotations/../secret.xml"
    read = readings(tmp_path)
    assert [(r.item, r.made[0].split if r.made else None, r.where) for r in read] == [
        *(("000001", "train", "train.txt:1"), ("000002", "train", "train.txt:2")),
        *(("000003", "val", "val.txt:1"), ("000002", None, "val.txt:3"), ("000009", None, "val.txt:4")),
        *(("../secret", None, "val.txt:5"), ("000004", "test", "test.txt:1")),
    ]
    told = reasons(read)
    del told["difficult object"]
    assert told == {"repeated image": 1, "no readable annotation": 1, "unsafe name": 1}


def test_a_share_of_val_becomes_the_test_of_2012(tmp_path: Path) -> None:
    ids = [f"2008_{number:06d}" for number in range(400)]
    lay_out("pascal_voc", tmp_path, val="\n".join(ids))
    for name in ids:
        (tmp_path / "Annotations" / f"{name}.xml").write_text(VOC.format(id=name))
    (tmp_path / "ImageSets/Main/test.txt").unlink()
    with pytest.raises(AvalignError, match=r"test.txt: no such file \(decided by pascal_voc: splits\)"):
        readings(tmp_path)

    def split(**options: Any) -> dict[str, str]:
        splits = {"train": "train", "val": "val"}
        read = readings(tmp_path, splits=splits, **options)
        return {r.item: r.made[0].split for r in read}

    halved = split(test_share=0.5)
    assert 150 < sum(s == "test" for s in halved.values()) < 250
    assert halved["000001"] == halved["000002"] == "train"
    assert halved == split(test_share=0.5)
    assert halved != split(test_share=0.5, seed=1)
    smaller = {name for name, s in split(test_share=0.2).items() if s == "test"}
    assert smaller < {name for name, s in halved.items() if s == "test"}
    assert "test" not in split().values()
    assert record_counts(readings(tmp_path, splits={"val": "val"}, test_share=1.0)) == (400, 0)
    assert set(split(test_share=1.0).values()) == {"train", "test"}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("told", ["stored", "seen"])
def test_boxes_lie_where_the_image_shows_their_object(tmp_path: Path, orientation: int, told: str) -> None:
    """A red object in a photograph turned by EXIF, annotated on its pixels as stored or as seen."""
    stored = np.zeros((40, 96, 3), np.uint8)
    stored[8:24, 16:64] = (255, 0, 0)
    lay_out("pascal_voc", tmp_path, train="000001\n")
    file = tmp_path / "JPEGImages" / "000001.jpg"
    file.parent.mkdir(exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(file, exif=exif, quality=100, subsampling=0)
    seen = read_image(file)
    drawn_on = stored if told == "stored" else seen
    rows, columns = (np.flatnonzero(drawn_on[..., 0].max(axis) > 128) for axis in (1, 0))
    corners = dict(xmin=columns[0] + 1, ymin=rows[0] + 1, xmax=columns[-1] + 1, ymax=rows[-1] + 1)
    box = "".join(f"<{name}>{value}</{name}>" for name, value in corners.items())
    size = f"<width>{drawn_on.shape[1]}</width><height>{drawn_on.shape[0]}</height>"
    xml = (
        f"<annotation><size>{size}</size><object><name>dog</name><bndbox>{box}</bndbox></object></annotation>"
    )
    (tmp_path / "Annotations" / "000001.xml").write_text(xml)
    (reading,) = readings(tmp_path, splits=TRAIN)
    if orientation in (2, 3, 4):  # stored and seen have one size: which was drawn on cannot be told
        assert not reading.made
        assert reasons([reading]) == {"boxes of another frame than the picture's": 1}
        return
    x0, y0, x1, y1 = reading.made[0].things[0].box
    height, width, _ = seen.shape
    inside = np.zeros((height, width), bool)
    inside[round(y0 * height) : round(y1 * height), round(x0 * width) : round(x1 * width)] = True
    assert np.array_equal(inside, seen[..., 0] > 128)


def test_a_size_of_another_shape_is_refused_and_a_smaller_copy_is_not(tmp_path: Path) -> None:
    size = "<size><width>500</width><height>333</height></size>"
    bounds = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>90</xmax><ymax>90</ymax></bndbox>"
    one(tmp_path, f"<annotation>{size}<object><name>dog</name>{bounds}</object></annotation>")
    file = tmp_path / "JPEGImages" / "000001.jpg"
    file.parent.mkdir(exist_ok=True)
    for shape, used in (((500, 333), 1), ((1000, 666), 1), ((224, 149), 1), ((540, 333), 0), ((333, 500), 0)):
        Image.new("RGB", shape).save(file)
        (reading,) = readings(tmp_path, splits=TRAIN)
        assert len(reading.made) == used
