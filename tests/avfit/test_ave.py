"""AVE: every row of Annotations.txt becomes a question or is refused by name, in the split that lists it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from avalign.answers import read_intervals
from avalign.avfit.datasets.ave import LISTS, Ave
from avalign.errors import AvalignError
from tests.helpers.avfit.excerpts import excerpt, reasons, record_counts

DOG = "Bark&-x_cdefghij&good&2&9\n"


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """The real rows; the lists, which could not be had, are dealt from them."""
    rows = excerpt("ave/Annotations.txt").read_text().splitlines(keepends=True)
    (tmp_path / "Annotations.txt").write_text("".join(rows))
    for number, name in enumerate(LISTS.values()):
        (tmp_path / name).write_text("".join(rows[number::3]))
    return tmp_path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("Annotations.txt", *LISTS.values()):
        (tmp_path / name).write_text(DOG if name in ("Annotations.txt", "valSet.txt") else "")
    return tmp_path


def readings(folder: Path, **options: Any) -> list[Any]:
    return list(Ave(**options).read(folder))


def test_the_published_rows_all_come_out(published: Path) -> None:
    rows = [line.split("&") for line in (published / "Annotations.txt").read_text().splitlines()]
    read = readings(published)
    assert [r.item for r in read] == [row[1] for row in rows]
    assert record_counts(read) == (4142, 1)
    assert [(r.item, r.where, r.problems[0].reason) for r in read if r.problems] == [
        ("VWi2ENBuTbw", "Annotations.txt:27", "event without duration")
    ]
    for number, (reading, row) in enumerate(zip(read, rows, strict=True)):
        for made in reading.made:
            assert made.split == list(LISTS)[number % 3]
            assert (made.label, made.provenance["origins"]) == (row[0], [row[1]])
            assert made.intervals == ((int(row[3]), int(row[4])),) == tuple(read_intervals(made.response))
    made = [m for r in read for m in r.made]
    assert len({m.id for m in made}) == 4142
    assert len({m.image for m in made}) == 4096  # of 4097 clips; one has the row without duration alone


def test_a_clip_may_have_events_of_two_categories(published: Path) -> None:
    banjo = [m for r in readings(published) for m in r.made if m.label in ("Banjo", "Mandolin")]
    clips = [m.image for m in banjo]
    both = [m for m in banjo if clips.count(m.image) == 2]
    assert both
    assert {m.label for m in both} == {"Banjo", "Mandolin"}


def test_a_question_has_its_class_and_its_media(folder: Path) -> None:
    (made,) = readings(folder, image="AVE/{clip}.mp4", frames=2)[0].made
    assert (made.split, made.task, made.kind, made.slots) == (
        *("val", "igatl", "audio-visual", {"class": "Bark"}),
    )
    assert (made.image, made.audio) == ("AVE/-x_cdefghij.mp4", "AVE/-x_cdefghij.mp4")
    assert made.frame_times == (2.5, 7.5)
    assert made.response == "[2.00, 9.00]"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("Bark&y&good&0\n", "no row of five with times in whole seconds"),
        ("Bark&y&good&0&x\n", "no row of five with times in whole seconds"),
        ("Bark&&good&0&3\n", "no row of five with times in whole seconds"),
        ("Bark&y&good&5&3\n", "event without duration"),
        ("Bark&y&good&5&11\n", "event beyond the clip's end"),
        ("Bark&y&good&5&9\n", "in no list"),
        (DOG, "repeated event"),
    ],
)
def test_a_row_that_cannot_be_used_is_refused_by_name(folder: Path, row: str, reason: str) -> None:
    (folder / "Annotations.txt").write_text(DOG + row)
    read = readings(folder)
    assert record_counts(read) == (1, 1)
    assert reasons(read) == {reason: 1}
    assert read[1].where == "Annotations.txt:2"


def test_lists_and_annotations_that_disagree_are_told(folder: Path) -> None:
    (folder / "testSet.txt").write_text(DOG + "Cat&z&good&0&3\n")
    read = readings(folder)
    assert [(r.where, r.problems[0].reason, r.problems[0].detail) for r in read] == [
        ("Annotations.txt:1", "in several lists", "val, test"),
        ("testSet.txt:2", "listed, but not annotated", ""),
    ]


def test_a_copy_with_a_header_is_read_alike(folder: Path) -> None:
    header = "Category&VideoID&Quality&StartTime&EndTime\n"
    for name in ("Annotations.txt", *LISTS.values()):
        (folder / name).write_text(header + (folder / name).read_text())
    assert record_counts(readings(folder)) == (1, 0)


def test_names_that_lead_elsewhere_are_refused(folder: Path) -> None:
    for name in ("Annotations.txt", "valSet.txt"):
        (folder / name).write_text("Bark&../../etc&good&2&9\nBark&..&good&2&9\n12&y&good&2&9\n")
    assert reasons(readings(folder)) == {"unsafe name": 3}


@pytest.mark.parametrize("name", ["Annotations.txt", *LISTS.values()])
@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00\n"])
def test_a_file_that_cannot_be_read_is_named(folder: Path, name: str, content: bytes | None) -> None:
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(AvalignError, match=name):
        readings(folder)
