"""LLP: every listed clip comes out, its intervals are those of the published rows, second for second."""

from __future__ import annotations

import csv
import shutil
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avalign.answers import read_intervals
from avalign.avfit.datasets.intervals import covered, in_both
from avalign.avfit.datasets.llp import CLASSES, EVENTS, LISTS, Llp
from avalign.errors import AvalignError
from tests.helpers.avfit.excerpts import excerpt, reasons, record_counts

LISTED = "filename\tevent_labels\n"
ROWS = "filename\tonset\toffset\tevent_labels\n"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llp")
    for name in (*LISTS.values(), *EVENTS.values()):
        shutil.copy(excerpt(f"llp/{name}"), folder)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A val clip, a test clip, no events."""
    (tmp_path / LISTS["val"]).write_text(LISTED + "-x_cdefghij_10_20\tDog,Speech\n")
    (tmp_path / LISTS["test"]).write_text(LISTED + "short_0_10\tFrying_(food)\n")
    for name in EVENTS.values():
        (tmp_path / name).write_text(ROWS)
    return tmp_path


def readings(folder: Path, **options: Any) -> list[Any]:
    return list(Llp(**options).read(folder))


def rows(file: Path) -> list[dict[str, str]]:
    with open(file, newline="") as opened:
        return list(csv.DictReader(opened, delimiter="\t"))


def seconds(intervals: Any) -> set[int]:
    return {second for start, end in intervals for second in range(int(start), int(end))}


def published_seconds(folder: Path, modality: str) -> dict[tuple[str, str], set[int]]:
    """Clip and class -> the seconds that its rows cover, as AVVP's evaluation marks them."""
    found: dict[tuple[str, str], set[int]] = defaultdict(set)
    for row in rows(folder / EVENTS[modality]):
        found[row["filename"], row["event_labels"]] |= set(range(int(row["onset"]), int(row["offset"])))
    return found


@pytest.mark.parametrize("modality", ["audio", "visual", "audio-visual"])
def test_every_second_of_the_published_rows_comes_out(published: Path, modality: str) -> None:
    clips = {row["filename"]: split for split in LISTS for row in rows(published / LISTS[split])}
    truths = [published_seconds(published, kind) for kind in EVENTS if kind in modality]
    truth = {key: set.intersection(*(t[key] for t in truths)) for key in truths[0]}
    expected = {key: marked for key, marked in truth.items() if marked and key[0] in clips}
    read = readings(published, modality=modality)
    made = {(m.provenance["clip"], m.label): m for reading in read for m in reading.made}
    assert {key: seconds(m.intervals) for key, m in made.items()} == expected
    for (clip, name), m in made.items():
        assert tuple(read_intervals(m.response)) == m.intervals
        assert all(end < start for (_, end), (start, _) in pairwise(m.intervals))
        assert (m.split, m.kind, m.provenance["seconds"]) == (clips[clip], modality, 10)
        assert m.provenance["origins"] == ["_".join(clip.split("_")[:-2])]
        assert m.slots["class"].translate(str.maketrans(" ", "_")) == name.replace("(", "").replace(")", "")
    assert len({m.id for m in made.values()}) == len(made)


@pytest.mark.parametrize(
    ("modality", "counts", "problems"),
    [
        ("audio", (1839, 18), {"no audio event": 10, "events of a clip in no list": 8}),
        ("visual", (1658, 198), {"no visual event": 191, "events of a clip in no list": 7}),
        ("audio-visual", (1582, 275), {"no audio-visual event": 267, "events of a clip in no list": 8}),
    ],
)
def test_clips_in_are_clips_used_and_clips_refused(
    published: Path, modality: str, counts: tuple[int, int], problems: dict[str, int]
) -> None:
    read = readings(published, modality=modality)
    assert record_counts(read) == counts
    odd = {"event without duration": 5, "event that ends before it begins": 1}
    assert reasons(read) == problems | (odd if modality != "visual" else {})
    listed = [row["filename"] for name in LISTS.values() for row in rows(published / name)]
    assert [r.item for r in read[: len(listed)]] == listed
    named = {row["filename"] for k in EVENTS if k in modality for row in rows(published / EVENTS[k])}
    assert {r.item for r in read[len(listed) :]} == named - set(listed)


def test_the_inverted_event_and_the_shortened_name(published: Path) -> None:
    read = {r.item: r for r in readings(published)}
    assert "9 to 0, Cheering" in read["8DF2PxdT5tE_390_400"].problems[0].detail
    assert "AVVP_eval_audio.csv:" in read["8DF2PxdT5tE_390_400"].problems[0].detail
    assert [p.reason for p in read["CSWQ_HzQ_10_20"].problems] == [
        "event without duration",
        "events of a clip in no list",
    ]


def test_all_classes_are_asked_and_what_is_not_heard_is_never(published: Path) -> None:
    asked = readings(published, ask="all")
    present = {m.id: m for r in readings(published) for m in r.made}
    assert record_counts(asked) == (1849, 8)
    for reading in asked:
        assert [m.label for m in reading.made] == (list(CLASSES) if reading.made else [])
        for m in reading.made:
            assert m == present[m.id] if m.intervals else (m.response, m.id in present) == ("never", False)


def test_rows_that_touch_or_overlap_are_one_interval(folder: Path) -> None:
    events = [(8, 10, "Dog"), (0, 8, "Dog"), (1, 3, "Speech"), (2, 5, "Speech"), (7, 8, "Speech")]
    write_events(folder, "audio", events)
    dog, speech = readings(folder)[0].made
    assert (dog.intervals, dog.response) == (((0, 10),), "[0.00, 10.00]")
    assert (speech.intervals, speech.response) == (((1, 5), (7, 8)), "[1.00, 5.00] [7.00, 8.00]")
    assert (dog.image, dog.audio, dog.frame_times) == (
        *("videos/-x_cdefghij_10_20.mp4", "videos/-x_cdefghij_10_20.mp4"),
        (5.0,),
    )
    assert dog.provenance["origins"] == ["-x_cdefghij"]


def test_frames_spread_over_the_clip_and_images_have_none(folder: Path) -> None:
    write_events(folder, "audio", [(0, 1, "Dog")])
    assert readings(folder, frames=4)[0].made[0].frame_times == (1.25, 3.75, 6.25, 8.75)
    assert readings(folder, image="frames/{clip}.jpg")[0].made[0].frame_times == ()
    with pytest.raises(AvalignError, match=r"frames: 2 cannot be taken from image 'a/\{clip\}.jpg'"):
        Llp(image="a/{clip}.jpg", frames=2)
    with pytest.raises(AvalignError, match=r"llp: audio: .* has no field 'clp'.*Did you mean 'clip'"):
        Llp(audio="a/{clp}.wav")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("-x_cdefghij_10_20\t0\t11\tDog", "event beyond the clip's end"),
        ("-x_cdefghij_10_20\t0\t" + "9" * 400 + "\tDog", "event beyond the clip's end"),
        ("-x_cdefghij_10_20\t-1\t2\tDog", "event without times in whole seconds"),
        ("-x_cdefghij_10_20\tnan\t2\tDog", "event without times in whole seconds"),
        ("-x_cdefghij_10_20\t0\t2\tDgo", "unknown class"),
        ("-x_cdefghij_10_20\t0\t2", "event without a clip"),
    ],
)
def test_a_row_that_is_no_event_is_told(folder: Path, row: str, reason: str) -> None:
    (folder / EVENTS["audio"]).write_text(ROWS + "-x_cdefghij_10_20\t3\t4\tDog\n" + row + "\n")
    read = readings(folder)
    assert reasons(read)[reason] == 1
    assert read[0].made[0].intervals == ((3, 4),)
    assert any("AVVP_eval_audio.csv:3" in f"{r.where} {r.problems}" for r in read)


def test_lists_are_read_as_opaque_names(folder: Path) -> None:
    (folder / LISTS["test"]).write_text(LISTED + "short_0_10\tDog\n../up_0_10\tDog\nshort_0_10\tDog\n\tDog\n")
    write_events(folder, "audio", [(0, 1, "Dog")], clip="short_0_10")
    read = readings(folder)
    assert reasons(read) == {
        **{"no audio event": 1, "unsafe name": 1, "repeated clip": 1, "row without a name": 1},
    }
    assert read[1].made[0].provenance["origins"] == ["short"]


@pytest.mark.parametrize("name", [*LISTS.values(), *EVENTS.values()])
@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"", b"a,b\n"])
def test_a_file_that_is_missing_or_of_another_kind_is_named(
    folder: Path, name: str, content: bytes | None
) -> None:
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(AvalignError, match=name):
        readings(folder, modality="audio-visual")


Spans = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 6)).map(lambda p: (p[0], p[0] + p[1])))


@given(Spans, Spans)
def test_unions_and_intersections_are_those_of_the_seconds(one: Any, other: Any) -> None:
    a, b = covered(one), covered(other)
    assert seconds(a) == seconds(one)
    assert seconds(in_both(a, b)) == seconds(one) & seconds(other)
    for found in (a, in_both(a, b)):
        assert all(end < start for (_, end), (start, _) in pairwise(found))


def write_events(
    folder: Path, modality: str, events: list[tuple[int, int, str]], clip: str = "-x_cdefghij_10_20"
) -> None:
    lines = [f"{clip}\t{start}\t{end}\t{name}\n" for start, end, name in events]
    (folder / EVENTS[modality]).write_text(ROWS + "".join(lines))
