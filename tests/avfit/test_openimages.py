"""OpenImages: the published order of corners, flags and headers; streamed, and each image once."""

from __future__ import annotations

import csv
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from avalign.avfit.datasets.openimages import OpenImages
from avalign.avfit.datasets.repeats import Repeats
from avalign.errors import AvalignError
from tests.helpers.avfit.excerpts import excerpt, reasons, record_counts
from tests.helpers.avfit.layouts import BOXES, lay_out

TRAIN = {"train": "train"}


@pytest.fixture
def published(tmp_path: Path) -> Path:
    for name in ("class-descriptions-boxable.csv", "train-annotations-bbox.csv"):
        shutil.copy(excerpt(f"openimages/{name}"), tmp_path)
    return tmp_path


def readings(folder: Path, **options: Any) -> list[Any]:
    return list(OpenImages(**options).read(folder))


def one_split(folder: Path, rows: str, header: str = BOXES, **options: Any) -> list[Any]:
    lay_out("openimages", folder, train_annotations_bbox=header + rows)
    return readings(folder, splits=TRAIN, **options)


def row(
    image: str = "01", mid: str = "/m/0bt9lr", box: str = "0.1,0.5,0.2,0.6", flags: str = "0,0,0,0,0"
) -> str:
    return f"{image},xclick,{mid},1,{box},{flags}\n"


def test_the_published_rows(published: Path) -> None:
    read = readings(published, splits=TRAIN)
    assert [r.item for r in read] == ["000026e7ee790996", "000062a39995e348", "0000c64e1253d68f"]
    assert record_counts(read) == (2, 1)
    assert reasons(read) == {"box around a group": 4}  # all three boxes of the first image
    bird = read[1].made[0]
    assert (bird.id, bird.file) == ("openimages/000062a39995e348", "train/000062a39995e348.jpg")
    assert (bird.split, bird.origin) == ("train", "openimages:000062a39995e348")
    assert [(t.name, t.mid, t.box) for t in bird.things] == [
        ("Bird", "/m/015p6", (0.205719, 0.154144, 0.849912, 1.0)),  # published as XMin, XMax, YMin, YMax
        ("Plant", "/m/05s2s", (0.137133, 0.0, 0.377634, 0.884185)),
    ]
    assert record_counts(readings(published, splits=TRAIN, groups=True)) == (3, 0)


def test_real_boxes_in_the_published_form(published: Path) -> None:
    """400 rows that a project had reformatted: refused as they are, read with their ids restored."""
    source = excerpt("openimages/openimage-sub-validation-annotations-bbox.reformatted.csv")
    shutil.copy(source, published / "validation-annotations-bbox.csv")
    options: dict[str, Any] = {"splits": {"validation": "val"}, "groups": True, "depictions": True}
    read = readings(published, **options)
    assert set(reasons(read)) == {"unsafe name", "repeated image"}  # its rows are in no order
    assert record_counts(read)[0] == 0
    with open(source, newline="") as opened:
        header, *rows = csv.reader(opened)
    rows = sorted([Path(cells[0]).stem, *cells[1:]] for cells in rows)
    with open(published / "validation-annotations-bbox.csv", "w", newline="") as opened:
        csv.writer(opened).writerows([header, *rows])
    read = readings(published, **options)
    assert record_counts(read) == (len({cells[0] for cells in rows}), 0)
    things = [thing for r in read for thing in r.made[0].things]
    assert [thing.name for thing in things] == [cells[-1] for cells in rows]
    assert [thing.box for thing in things] == [tuple(float(cells[i]) for i in (3, 5, 4, 6)) for cells in rows]
    assert read[0].made[0].file.startswith("validation/")


def test_a_missing_flag_column_is_named_unless_it_is_not_needed(published: Path) -> None:
    header = "ImageID,LabelName,XMin,XMax,YMin,YMax\n"
    rows = "01,/m/0bt9lr,0.1,0.5,0.2,0.6\n"
    with pytest.raises(AvalignError, match=r"no column IsGroupOf, IsDepiction.*depictions: true do without"):
        one_split(published, rows, header)
    assert record_counts(one_split(published, rows, header, groups=True, depictions=True)) == (1, 0)
    with pytest.raises(AvalignError, match=r"no column XMin.*YMax' *$|no column XMin"):
        one_split(published, rows, header.replace("XMin", "xmin"), groups=True, depictions=True)


@pytest.mark.parametrize(
    ("flags", "options", "reason"),
    [
        ("0,0,1,0,0", {}, "box around a group"),
        ("0,0,1,0,0", {"depictions": True}, "box around a group"),
        ("0,0,1,0,0", {"groups": True}, None),
        ("0,0,0,1,0", {}, "box around a depiction"),
        ("0,0,0,1,0", {"depictions": True}, None),
        ("1,1,0,0,1", {}, None),
        ("-1,-1,-1,-1,-1", {}, None),  # unknown
    ],
)
def test_flags(tmp_path: Path, flags: str, options: dict[str, Any], reason: str | None) -> None:
    read = one_split(tmp_path, row(flags=flags) + row(mid="/m/01yrx"), **options)
    assert record_counts(read) == (1, 0)
    assert reasons(read) == ({} if reason is None else {reason: 1})
    assert [t.name for t in read[0].made[0].things] == ["Dog", "Cat"][reason is not None :]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (row(mid="/m/none"), "unknown class"),
        (row(box="a,0.5,0.2,0.6"), "not four numbers"),
        (row(box="nan,0.5,0.2,0.6"), "corner outside the picture"),
        (row(box="0.1,0.5,0.2,1e400"), "corner outside the picture"),
        (row(box="0.1,0.1,0.2,0.6"), "box without area"),
        (row(box="0.1,0.2,0.1,0.2"), "box below min_area"),
        ("01,xclick,/m/0bt9lr,1,0.1\n", "row of another length"),
    ],
)
def test_a_box_that_cannot_be_used_is_told_with_its_line(tmp_path: Path, bad: str, reason: str) -> None:
    read = one_split(tmp_path, row() + bad, min_area=0.02)
    assert record_counts(read) == (1, 0)
    assert [p.reason for p in read[0].problems] == [reason]
    assert read[0].problems[0].detail.startswith("line 3: ")
    assert len(read[0].made[0].things) == 1


def test_swapped_corners_are_sorted_and_told(tmp_path: Path) -> None:
    read = one_split(tmp_path, row(box="0.5,0.1,0.2,0.6"))
    assert read[0].made[0].things[0].box == (0.1, 0.2, 0.5, 0.6)
    assert reasons(read) == {"swapped corners, sorted": 1}


def test_an_image_that_comes_again_is_refused_by_name(tmp_path: Path) -> None:
    read = one_split(tmp_path, row("05") + row("03") + row("05") + row("04") + row("03") + row("04"))
    assert [(r.item, bool(r.made)) for r in read] == [
        *(("05", True), ("03", True), ("05", False), ("04", True), ("03", False), ("04", False))
    ]
    assert reasons(read) == {"repeated image": 3}
    assert [r.where for r in read][2] == "train-annotations-bbox.csv:4"


@settings(deadline=None)
@given(st.lists(st.text("ab", max_size=3)), st.booleans())
def test_repeats_are_those_a_set_would_find(keys: list[str], rising: bool) -> None:
    keys = sorted(keys) if rising else keys
    asked: list[int] = []

    def again() -> list[str]:
        asked.append(1)
        return keys

    repeated = Repeats(again)
    assert [repeated(key) for key in keys] == [key in keys[:place] for place, key in enumerate(keys)]
    assert len(asked) <= 1, "read again at most once"
    if all(a < b for a, b in zip(["", *keys], keys, strict=False)):
        assert not asked, "a sorted file is never read again"


def test_names_splits_and_files(tmp_path: Path) -> None:
    folder = lay_out("openimages", tmp_path)
    read = readings(folder, depictions=True)
    assert [r.made[0].split for r in read if r.made] == ["train", "train", "val", "test"]
    assert [r.made[0].file for r in read if r.made][2] == "validation/0000000000000004.jpg"
    (folder / "train-annotations-bbox.csv").rename(folder / "oidv6-train-annotations-bbox.csv")
    assert [r.item for r in readings(folder, depictions=True)] == [r.item for r in read]
    shutil.copy(folder / "oidv6-train-annotations-bbox.csv", folder / "train-annotations-bbox.csv")
    with pytest.raises(AvalignError, match=r"train-annotations-bbox.csv: lies beside"):
        readings(folder)
    with pytest.raises(AvalignError, match=r"openimages: splits: no split 'val' was published.*validation"):
        OpenImages(splits={"val": "val"})
    with pytest.raises(AvalignError, match=r"cannot become 'validation'"):
        OpenImages(splits={"validation": "validation"})
    with pytest.raises(AvalignError, match=r"no field 'img' to fill. Did you mean 'image'"):
        OpenImages(image="{split}/{img}.jpg")
    with pytest.raises(AvalignError, match="names the same file for all"):
        OpenImages(image="picture.jpg")
    assert reasons(one_split(tmp_path / "up", row("..") + row("a\\b") + row(""))) == {
        **{"unsafe name": 2, "row without an image": 1}
    }


def test_every_file_is_there_before_the_first_row_is_read(tmp_path: Path) -> None:
    (lay_out("openimages", tmp_path) / "test-annotations-bbox.csv").unlink()
    with pytest.raises(AvalignError, match=r"test-annotations-bbox.csv: no such file .*openimages: splits"):
        next(OpenImages().read(tmp_path))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "names no class"),
        ("LabelName,DisplayName\n", "names no class"),
        ("/m/0bt9lr,Dog\nm/01yrx,Cat\n", r":2: 'm/01yrx,Cat' is not a class's mid"),
        ("/m/0bt9lr,Dog\nDog\n", r":2: 'Dog' is not a class's mid"),
        ("/m/0bt9lr,Dog\n/m/0bt9lr,Hound\n", r":2: /m/0bt9lr is 'Hound' here and 'Dog' before"),
    ],
)
def test_class_names_that_cannot_be_used(tmp_path: Path, content: str, said: str) -> None:
    lay_out("openimages", tmp_path, class_descriptions_boxable=content)
    with pytest.raises(AvalignError, match=f"class-descriptions-boxable.csv.*{said}"):
        readings(tmp_path)


def test_copies_of_the_class_names_may_have_a_header(tmp_path: Path) -> None:
    lay_out("openimages", tmp_path, class_descriptions_boxable="LabelName,DisplayName\n/m/0bt9lr,Dog\n")
    assert readings(tmp_path, splits=TRAIN)[0].made[0].things[0].name == "Dog"


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    rows = "".join(row(f"{number:06x}") + row(f"{number:06x}", "/m/01yrx") for number in range(6000))
    lay_out("openimages", tmp_path, train_annotations_bbox=BOXES + rows)
    reader = OpenImages(splits=TRAIN).read(tmp_path)
    next(reader)
    tracemalloc.start()
    assert sum(1 for _ in reader) == 5999
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000  # bytes; the ids alone of 6000 images take more


@pytest.mark.parametrize(
    ("boxes_on", "box"), [("seen", (0.1, 0.2, 0.5, 0.8)), ("stored", (0.2, 0.1, 0.8, 0.5))]
)
def test_boxes_on_stored_pixels_are_turned_where_that_is_told(
    tmp_path: Path, boxes_on: str, box: tuple[float, ...]
) -> None:
    (reading,) = one_split(tmp_path, row(box="0.1,0.5,0.2,0.8"), boxes_on="seen")
    file = tmp_path / reading.made[0].file
    file.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = 5  # mirrored along the diagonal from the top left
    Image.new("RGB", (64, 48)).save(file, exif=exif)
    (reading,) = one_split(tmp_path, row(box="0.1,0.5,0.2,0.8"), boxes_on=boxes_on)
    assert reading.made[0].things[0].box == box


def test_without_the_photograph_its_boxes_cannot_be_turned(tmp_path: Path) -> None:
    (reading,) = one_split(tmp_path, row(), boxes_on="stored")
    assert reasons([reading]) == {"no photograph to turn its boxes by": 1}
