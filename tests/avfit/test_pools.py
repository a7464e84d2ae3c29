"""Pools of pictures and recordings hold what was read, before and after a stay on the disk."""

from __future__ import annotations

import json
import pickle
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avalign.avfit.annotation import AudioAnnotation, Event, ImageAnnotation, Problem, Reading, Thing
from avalign.avfit.datasets.audioset import AudioSet
from avalign.avfit.pairing.classes import NOTHING, Classes
from avalign.avfit.pairing.pools import ImagePool, RecordingPool
from avalign.avfit.pairing.sampling import Pairs, SplitMix64, Turns, dealt
from avalign.errors import AvalignError
from tests.helpers.avfit.excerpts import excerpt
from tests.helpers.avfit.pairs import CLASSES, TABLE, World, picture, readings, recording, world

SEEDS = st.integers(0, 2**32 - 1)
WHOLE = (0.0, 0.0, 1.0, 1.0)


@given(SEEDS)
@settings(deadline=None, max_examples=8)
def test_pools_hold_what_was_read(seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check_pools(world(seed), Path(folder))


def check_pools(made_of: World, folder: Path) -> None:
    images, recordings = made_of.pools()
    images.save(folder / "p")
    recordings.save(folder / "r")
    mapped = ImagePool.open(folder / "p", CLASSES), RecordingPool.open(folder / "r", CLASSES)
    for shown, heard in ((images, recordings), mapped, pickle.loads(pickle.dumps(mapped))):
        for number in range(len(shown)):
            item = made_of.images[shown.image(number)[0]]
            kept = [thing for thing in item.things if CLASSES.of_image(thing.name) != NOTHING]
            assert shown.image(number) == (item.id, f"photos/{item.file}", item.origin, item.frame_time)
            assert [CLASSES.names[c] for c in shown.classes_of(number)] == [thing.name for thing in kept]
            assert shown.boxes(number) == [thing.box for thing in kept]
        for number in range(len(heard)):
            sound = made_of.recordings[heard.recording(number)[0]]
            events = [event for event in sound.events if CLASSES.of_audio(event.name) != NOTHING]
            assert heard.recording(number)[1:3] == (f"sounds/{sound.file}", sound.origin)
            assert [CLASSES.names[c] for c in heard.classes_of(number)] == [event.name for event in events]
            assert heard.intervals(number) == [event.interval for event in events]
        for split in ("train", "val", "test"):
            dogs = [shown.image(n)[0] for n in shown.showing(split, CLASSES.numbers["dog"])]
            assert dogs == [
                p.id
                for p in made_of.images.values()
                if p.split == split and "dog" in {t.name for t in p.things}
            ]
            birds = [heard.recording(n)[0] for n in heard.timed(split, CLASSES.numbers["bird"])]
            assert birds == [
                r.id
                for r in made_of.recordings.values()
                if r.split == split
                and "bird" in {e.name for e in r.events}
                and all(e.interval for e in r.events if e.name in ("bird", "owl"))  # an owl is a bird
            ]
    for pool, items in ((images, made_of.images), (recordings, made_of.recordings)):
        assert (
            pool.counts["items"] == len(items) == pool.counts["kept"] + pool.counts.get("without a class", 0)
        )


def test_what_has_no_class_is_counted_by_its_name() -> None:
    things = (Thing("dog", WHOLE), Thing("gnu", WHOLE), Thing("gnu", WHOLE))
    read = [
        Reading("a", "", (ImageAnnotation("a", "train", "a.jpg", things),)),
        Reading("b", "", (ImageAnnotation("b", "train", "b.jpg", (Thing("yak", WHOLE),)),)),
        Reading("c", "", problems=(Problem("no box"),)),
    ]
    pool = ImagePool.build(read, CLASSES)
    assert len(pool) == 1
    assert pool.counts == {
        "items": 3,
        "items refused": 1,
        "without a class": 1,
        "kept": 1,
        "things": 1,
        "unknown": {"gnu": 2, "yak": 1},
        "problems": {"no box": 1},
    }


def test_things_and_events_are_found_by_their_mids() -> None:
    classes = Classes.read()
    shown = ImageAnnotation("p", "train", "p.jpg", (Thing("Hund", WHOLE, "/m/0bt9lr"),))
    sound = AudioAnnotation("r", "train", "r.wav", (Event("Gebell", None, "/m/05tny_"),))
    dog = classes.numbers["dog"]
    assert ImagePool.build(readings([shown]), classes).classes_of(0) == [dog]
    assert RecordingPool.build(readings([sound]), classes).classes_of(0) == [dog]


def test_a_frame_of_a_video_and_a_part_of_a_file() -> None:
    frame = ImageAnnotation("f", "test", "f.mp4", (Thing("dog", WHOLE),), frame_time=4.7)
    assert ImagePool.build(readings([frame]), CLASSES).image(0) == ("f", "f.mp4", "", 4.7)
    dog = (Event("dog", (1.5, 2.0)),)
    for given_span, kept in (
        ((None, None), (None, None)),
        ((30.0, 40.0), (30.0, 40.0)),
        ((None, 10.0), (0.0, 10.0)),
        ((30.5, None), (30.5, None)),
    ):
        pool = RecordingPool.build(
            readings([AudioAnnotation("r", "test", "r.wav", dog, *given_span)]), CLASSES
        )
        assert pool.recording(0) == ("r", "r.wav", "", *kept)
        assert pool.length(0) == (10.0 if given_span[1] is not None else 2.0)


def test_events_end_with_their_recording() -> None:
    sound = recording("r", ("dog", (9.0, 12.0)), ("car", (10.0, 11.0)), ("train", None))
    pool = RecordingPool.build(readings([sound]), CLASSES)
    assert pool.intervals(0) == [(9.0, 10.0), None]
    assert [CLASSES.names[c] for c in pool.classes_of(0)] == ["dog", "train"]
    assert pool.counts["problems"] == {
        "event beyond the recording's end, clipped": 1,
        "event beyond the recording's end, dropped": 1,
    }


def test_what_is_heard_all_along_and_what_now_and_then() -> None:
    sounds = [
        recording("along", ("dog", (0.0, 6.0)), ("dog", (5.0, 9.6))),
        recording("now", ("dog", (0.0, 6.0))),
        recording("unknown", ("dog", (0.0, 6.0)), ("dog", None)),
        recording("open", ("dog", (0.0, 6.0)), end=None),  # lasts as long as it is known to
    ]
    pool = RecordingPool.build(readings(sounds), CLASSES)

    def ids(numbers: memoryview) -> list[str]:
        return [pool.recording(n)[0] for n in numbers]

    dog = CLASSES.numbers["dog"]
    assert ids(pool.heard("train", dog)) == ["along", "now", "unknown", "open"]
    assert ids(pool.timed("train", dog)) == ["along", "now", "open"]
    assert ids(pool.now_and_then("train", dog)) == ["now"]


def test_images_that_show_something_else_that_could_sound() -> None:
    shown = {"car": ["dog", "car"], "chair": ["dog", "chair"], "bird": ["bird", "owl"], "two": ["dog", "dog"]}
    items = [picture(id, *((name, WHOLE) for name in names)) for id, names in shown.items()]
    pool = ImagePool.build(readings(items), CLASSES)

    def ids(c: str) -> list[str]:
        return [pool.image(n)[0] for n in pool.showing_others("train", CLASSES.numbers[c])]

    assert (ids("dog"), ids("car"), ids("bird"), ids("owl")) == (["car"], ["car"], [], [])


def test_boxes_and_events_are_never_closed_by_rounding() -> None:
    narrow = ImagePool.build(readings([picture("p", ("dog", (0.5, 0.5, 0.5000001, 0.5000001)))]), CLASSES)
    assert narrow.boxes(0) == [(0.5, 0.5, 0.500001, 0.500001)]
    short = RecordingPool.build(readings([recording("r", ("dog", (1.0, 1.00001)))]), CLASSES)
    assert short.intervals(0) == [(1.0, 1.0001)]


def test_a_pool_of_another_table_or_kind_or_broken_is_refused(tmp_path: Path) -> None:
    pool = ImagePool.build(readings([picture("p", ("dog", WHOLE))]), CLASSES)
    pool.save(tmp_path / "p")
    pool.save(tmp_path / "p")  # in place of the one before
    with pytest.raises(AvalignError, match=r"p: these pictures were sorted by another table of classes"):
        ImagePool.open(tmp_path / "p", Classes({own.name: own for own in TABLE[4:] if own.name != "owl"}))
    with pytest.raises(AvalignError, match=r"cannot be read as a pool: No such file"):
        RecordingPool.open(tmp_path / "p", CLASSES)
    (tmp_path / "p" / "boxes.npy").write_bytes(b"")
    with pytest.raises(AvalignError, match=r"is no pool, or a broken one"):
        ImagePool.open(tmp_path / "p", CLASSES)
    (tmp_path / "p" / "pool.json").write_text(json.dumps({"kind": "pictures"})[:-3])
    with pytest.raises(AvalignError, match=r"is no pool, or a broken one"):
        ImagePool.open(tmp_path / "p", CLASSES)
    with pytest.raises(AvalignError, match=r"none: cannot be read as a pool"):
        ImagePool.open(tmp_path / "none", CLASSES)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "notes.txt").write_text("mine")
    with pytest.raises(AvalignError, match=r"kept: cannot be written"):
        pool.save(tmp_path / "kept")
    assert [file.name for file in (tmp_path / "kept").iterdir()] == ["notes.txt"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["kept", "p"]


@given(st.integers(1, 40), st.integers(1, 40), SEEDS)
@settings(deadline=None, max_examples=30)
def test_pairs_come_each_once_and_their_halves_equally_often(first: int, second: int, key: int) -> None:
    pairs = Pairs(first, second, key)
    drawn = [pairs.at(place) for place in range(len(pairs))]
    assert set(drawn) == {(i, j) for i in range(first) for j in range(second)}
    assert pairs.at(len(pairs)) == drawn[0]
    for most in (first, second, len(drawn) // 2):
        for half, count in ((0, first), (1, second)):
            uses = Counter(pair[half] for pair in drawn[:most])
            assert max(uses.values(), default=0) <= -(-most // count)


@given(st.dictionaries(st.integers(0, 9), st.integers(1, 30), min_size=1), SEEDS)
@settings(deadline=None, max_examples=30)
def test_turns_are_equal_until_one_has_had_all(most: dict[int, int], key: int) -> None:
    turns = Turns(most, dict.fromkeys(most, 1), key)
    drawn = [turns.at(number) for number in range(turns.total)]
    assert sorted(drawn) == sorted((name, nth) for name, count in most.items() for nth in range(count))
    had = Counter[int]()
    for name, nth in drawn:
        assert nth == had[name]
        had[name] += 1
        assert all(had[name] - had[other] <= 1 for other in most if had[other] < most[other])
    assert turns.at(turns.total) == drawn[0]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=5).filter(any), st.integers(0, 300))
@settings(deadline=None, max_examples=40)
def test_shares_are_dealt_without_a_gap(weights: list[int], count: int) -> None:
    shares = {f"k{n}": float(weight) for n, weight in enumerate(weights)}
    had = Counter[str]()
    for number in range(count):
        name, before = dealt(number, shares)
        assert before == had[name]
        had[name] += 1
    for name, weight in shares.items():
        assert abs(had[name] - count * weight / sum(weights)) <= len(weights)


def test_dice_fall_evenly() -> None:
    rng = SplitMix64(7, 0)
    falls = Counter(rng.below(6) for _ in range(6000))
    assert set(falls) == set(range(6))
    assert max(falls.values()) < 1150
    firsts = Counter(SplitMix64(7, number).below(6) for number in range(6000))
    assert max(firsts.values()) < 1150
    assert all(2.0 <= rng.between(2.0, 3.0) < 3.0 for _ in range(100))


def test_published_recordings_are_all_accounted_for(tmp_path: Path) -> None:
    for name in ("class_labels_indices.csv", "balanced_train_segments.csv"):
        shutil.copy(excerpt(f"audioset/{name}"), tmp_path)
    read = AudioSet(splits={"balanced_train": "train"}).read(tmp_path)
    pool = RecordingPool.build(read, Classes.read(), below="audioset/")
    counts = pool.counts
    assert counts["items"] == counts["items refused"] + counts["without a class"] + counts["kept"] == 400
    assert len(pool) > 350
    assert "Wind" in counts["unknown"]
    assert not {"Dog", "Speech", "Car", "Music"} & counts["unknown"].keys()
