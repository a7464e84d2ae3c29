"""Pairing: every answer is what the annotations say, whoever makes the record and whenever."""

from __future__ import annotations

import contextlib
import pickle
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avalign.answers import Box, Interval, read_boxes, read_intervals
from avalign.avfit.annotation import AudioAnnotation, ImageAnnotation
from avalign.avfit.datasets.intervals import covered
from avalign.avfit.pairing.claims import NEGATIVES, TYPES, iou, kinds_of
from avalign.avfit.pairing.pairing import Pairing
from avalign.avfit.pairing.pools import ImagePool, RecordingPool
from avalign.data.manifest.record import Record, from_json, to_json
from avalign.errors import AvalignError
from tests.helpers.avfit.pairing import BELOW, LEFT, RIGHT, dogs
from tests.helpers.avfit.pairs import CLASSES, World, is_a, may_be, picture, recording, world

SEEDS = st.integers(0, 2**32 - 1)
SOUNDING = {name for name, own in CLASSES.entries.items() if not own.silent}
thorough = settings(deadline=None, max_examples=8)


def made(pairing: Pairing, split: str, task: str, count: int) -> list[Record]:
    """The first records, or none where the task cannot be made or no pair is sure."""
    if not pairing.possible(split)[task].pairs:
        return []
    with contextlib.suppress(AvalignError):  # no pair is sure
        return [pairing.record(split, task, number) for number in range(count)]
    return []


def seen(shown: ImageAnnotation) -> set[str]:
    return {thing.name for thing in shown.things if thing.name in CLASSES.numbers}


def heard(sound: AudioAnnotation) -> set[str]:
    return {event.name for event in sound.events if event.name in SOUNDING}


def boxes_of(shown: ImageAnnotation, c: str) -> list[Box]:
    return list(dict.fromkeys(t.box for t in shown.things if t.name in CLASSES.numbers and is_a(t.name, c)))


def times_of(sound: AudioAnnotation, c: str) -> list[Interval]:
    own = [event.interval for event in sound.events if event.name in SOUNDING and is_a(event.name, c)]
    assert all(interval is not None for interval in own)
    return list(covered([interval for interval in own if interval is not None]))


def only_one_answer(shown: ImageAnnotation, sound: AudioAnnotation, c: str) -> bool:
    """Whether nothing that is seen may be heard, but for the class itself."""
    return not any(may_be(s, h) for s in seen(shown) for h in heard(sound) if not may_be(h, c))


def check(record: Record, made_of: World) -> None:
    """The answer of a record, from the annotations alone."""
    assert from_json(to_json(record)) == record
    shown, sound = made_of.of(record)
    assert shown.split == sound.split == record.split
    assert (record.image, record.audio) == (f"photos/{shown.file}", f"sounds/{sound.file}")
    assert record.provenance["origins"] == [shown.origin, sound.origin]
    c = record.label or ""
    assert c in seen(shown)
    {"arig": check_arig, "igatl": check_igatl, "avfc": check_fact}[record.task](record, shown, sound, c)


def check_arig(record: Record, shown: ImageAnnotation, sound: AudioAnnotation, c: str) -> None:
    assert c in heard(sound)
    assert list(record.boxes) == boxes_of(shown, c)
    assert [found.label for found in read_boxes(record.response)] == [c] * len(record.boxes)
    assert only_one_answer(shown, sound, c)
    assert not any(s != c and is_a(c, s) for s in seen(shown))  # nothing that might be one more


def check_igatl(record: Record, shown: ImageAnnotation, sound: AudioAnnotation, c: str) -> None:
    assert record.slots == {"class": c}
    assert list(record.intervals) == times_of(sound, c)
    assert len(read_intervals(record.response)) == len(record.intervals)
    maybe = [event.interval for event in sound.events if event.name in heard(sound) and may_be(event.name, c)]
    assert list(covered([time for time in maybe if time])) == list(
        record.intervals
    )  # "animal": a dog once more?
    assert only_one_answer(shown, sound, c)


def check_fact(record: Record, shown: ImageAnnotation, sound: AudioAnnotation, c: str) -> None:
    has_box, has_time = TYPES[record.kind or ""]
    negative = record.provenance.get("negative")
    box, time = record.slots.get("box"), record.slots.get("time")
    assert record.slots["class"] == c
    assert (box is not None, time is not None) == (has_box, has_time)
    assert (record.response == "True") == (negative is None)
    if box is not None:
        assert 0 <= box[0] < box[2] <= 1
        assert 0 <= box[1] < box[3] <= 1
    if time is not None:
        last = sound.end or max(event.interval[1] for event in sound.events if event.interval)
        assert 0 <= time[0] < time[1] <= last
    right_boxes = [list(b) for b in boxes_of(shown, c)]
    if negative in ("similar", "other_class"):
        assert not any(may_be(s, h) for s in seen(shown) for h in heard(sound))
        near = {CLASSES.names[k] for k in CLASSES.similar[CLASSES.numbers[c]]}
        assert negative != "similar" or heard(sound) & near
        assert (record.boxes, record.intervals) == ((), ())
        assert box is None or box in right_boxes
        return
    assert c in heard(sound)
    assert list(record.boxes) == boxes_of(shown, c)
    known = [thing for thing in shown.things if thing.name in CLASSES.numbers]
    sounding = [thing.box for thing in known if any(may_be(thing.name, h) for h in heard(sound))]
    if negative in ("other_box", "shifted_box"):
        assert box is not None
        assert all(iou(tuple(box), other) <= 0.1 for other in sounding)
        assert (box in [list(thing.box) for thing in known]) == (negative == "other_box")
    elif box is not None:
        assert box in right_boxes
    if negative in ("other_time", "other_event"):
        assert time is not None
        for event in sound.events:
            if event.name in heard(sound) and any(may_be(event.name, s) for s in seen(shown)):
                assert event.interval is not None
                assert time[1] <= event.interval[0] or event.interval[1] <= time[0]
        own = [list(event.interval) for event in sound.events if event.interval]
        assert negative == "other_time" or time in own
        lengths = [end - start for start, end in times_of(sound, c)]
        longest, shortest = max(lengths), min(lengths)
        if negative == "other_time":
            assert max(0.1, shortest / 2) - 2e-3 <= time[1] - time[0] <= max(0.1, 1.5 * longest) + 2e-3
    elif time is not None:
        assert tuple(time) in times_of(sound, c)
    if time is not None:
        assert list(record.intervals) == times_of(sound, c)


@given(SEEDS, st.sampled_from(["even", "frequency"]))
@thorough
def test_every_answer_is_what_the_annotations_say(seed: int, sampling: str) -> None:
    made_of = world(seed)
    pairing = made_of.pairing(seed=seed, sampling=sampling)
    found = [
        record
        for split in ("train", "val")
        for task, count in (("arig", 30), ("igatl", 30), ("avfc", 160))
        for record in made(pairing, split, task, count)
    ]
    for record in found:
        check(record, made_of)
    assert len({record.id for record in found}) == len(found)


def test_every_kind_of_claim_is_among_them() -> None:
    """So that the property above is not true of nothing."""
    records = [r for seed in range(4) for r in made(world(seed, 60).pairing(), "train", "avfc", 400)]
    kinds = Counter((record.kind, record.provenance.get("negative")) for record in records)
    assert set(kinds) == {(t, kind) for t in TYPES for kind in (*kinds_of(t), None)}
    assert min(kinds.values()) >= 10


@given(SEEDS, st.integers(1, 12))
@thorough
def test_true_and_false_are_balanced_by_construction(seed: int, rounds: int) -> None:
    records = made(world(seed, 60).pairing(seed=seed), "train", "avfc", 8 * rounds)
    counts = Counter((record.kind, record.response) for record in records)
    assert set(counts.values()) <= {rounds}
    assert len(counts) in (0, 8)


@given(SEEDS)
@thorough
def test_a_record_depends_on_its_arguments_alone(seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check_purity(world(seed), seed, Path(folder))


def check_purity(made_of: World, seed: int, folder: Path) -> None:
    images, recordings = made_of.pools()
    images.save(folder / "p")
    recordings.save(folder / "r")
    mapped = (ImagePool.open(folder / "p", CLASSES), RecordingPool.open(folder / "r", CLASSES))
    one, other = Pairing("x", images, recordings, CLASSES, seed), Pairing("x", *mapped, CLASSES, seed)
    asked = [
        (task, n)
        for task in ("arig", "igatl", "avfc")
        for n in range(24)
        if one.possible("train")[task].pairs
    ]
    for again in (other, pickle.loads(pickle.dumps(other))):
        backwards = {key: outcome(again, *key) for key in reversed(asked)}
        assert [outcome(one, *key) for key in asked] == [backwards[key] for key in asked]
    assert not asked or any(
        outcome(Pairing("x", *mapped, CLASSES, seed + 1), *k) != outcome(one, *k) for k in asked
    )


def outcome(pairing: Pairing, task: str, number: int) -> Record | str:
    try:
        return pairing.record("train", task, number)
    except AvalignError as error:
        return str(error)


@given(SEEDS, st.integers(1, 14), st.integers(1, 14))
@thorough
def test_no_pair_comes_twice_before_all_came(seed: int, images: int, recordings: int) -> None:
    pairing = dogs(images, recordings).pairing(seed=seed, others=0)
    count = images * recordings
    assert pairing.possible("train")["arig"].pairs == count
    drawn = [pairing.record("train", "arig", n).provenance for n in range(2 * count)]
    pairs = [(told["picture"], told["recording"]) for told in drawn]
    assert len(set(pairs[:count])) == count
    assert Counter(pairs) == dict.fromkeys(pairs, 2)
    for place in range(2):  # and until then each picture and recording as often as any other
        uses = Counter(pair[place] for pair in pairs[: count // 2])
        assert not uses or max(uses.values()) <= -(-(count // 2) // (images, recordings)[place])


def test_what_is_not_sure_is_passed_over_and_nothing_comes_twice() -> None:
    """Half of the pictures show some animal too, which may be a dog as well: they answer nothing."""
    things = [[("dog", LEFT), ("animal", RIGHT)], [("dog", LEFT)]]
    made_of = World({f"p{n}": picture(f"p{n}", *things[n % 2]) for n in range(20)}, dogs(0, 10).recordings)
    pairing = made_of.pairing(others=0)
    drawn = [pairing.record("train", "arig", n).provenance for n in range(400)]
    pairs = [(told["picture"], told["recording"]) for told in drawn]
    assert len(set(pairs[:50])) == 50
    assert len(set(pairs[:100])) >= 90
    assert set(pairs) == {(f"p{n}", f"r{m}") for n in range(1, 20, 2) for m in range(10)}


def test_classes_are_drawn_evenly_or_by_their_frequency() -> None:
    images = {f"d{n}": picture(f"d{n}", ("dog", LEFT)) for n in range(30)}
    images |= {f"c{n}": picture(f"c{n}", ("car", LEFT)) for n in range(10)}
    sounds = {f"{c}{n}": recording(f"{c}{n}", (c, None)) for c in ("dog", "car") for n in range(40)}
    for sampling, dogs_of_80 in (("even", 40), ("frequency", 60)):
        pairing = World(images, sounds).pairing(sampling=sampling)
        counts = Counter(pairing.record("train", "arig", n).label for n in range(800))
        assert counts["dog"] == pytest.approx(10 * dogs_of_80, abs=20)


def test_a_class_without_more_pairs_leaves_its_turns_to_others() -> None:
    images = {"d": picture("d", ("dog", LEFT)), "c0": picture("c0", ("car", LEFT))}
    sounds = {"d": recording("d", ("dog", None))} | {
        f"c{n}": recording(f"c{n}", ("car", None)) for n in range(9)
    }
    pairing = World(images, sounds).pairing(others=0)
    drawn = [pairing.record("train", "arig", n) for n in range(10)]
    assert Counter(record.label for record in drawn) == {"dog": 1, "car": 9}


def test_arig_shows_something_else_as_often_as_asked() -> None:
    made_of = dogs(40, 40)
    for n in range(0, 40, 4):
        made_of.images[f"p{n}"] = picture(f"p{n}", ("dog", LEFT), ("car", RIGHT), ("chair", BELOW))
        made_of.images[f"p{n + 1}"] = picture(f"p{n + 1}", ("dog", LEFT), ("chair", BELOW))
    for others, least in ((1.0, 100), (0.5, 50)):
        pairing = made_of.pairing(others=others)
        shown = [made_of.of(pairing.record("train", "arig", n))[0] for n in range(100)]
        assert sum("car" in seen(p) for p in shown) >= least
    assert any("car" not in seen(p) for p in shown)


def test_arig_leaves_images_with_too_many_boxes_alone() -> None:
    many = [("dog", (x / 10, 0.0, x / 10 + 0.05, 0.1)) for x in range(5)]
    made_of = World(
        {"many": picture("many", *many), "two": picture("two", *many[:2])},
        {"r": recording("r", ("dog", None))},
    )
    for most, shown in ((4, {"two"}), (5, {"two", "many"})):
        pairing = made_of.pairing(most_boxes=most)
        assert {pairing.record("train", "arig", n).provenance["picture"] for n in range(6)} == shown


def test_igatl_prefers_what_is_not_heard_all_along() -> None:
    sounds = {f"a{n}": recording(f"a{n}", ("dog", (0.0, 10.0))) for n in range(20)}
    sounds |= {f"n{n}": recording(f"n{n}", ("dog", (1.0, 3.0)), ("dog", (2.5, 4.0))) for n in range(20)}
    pairing = World(dogs(40, 0).images, sounds).pairing(all_along=0.2)
    drawn = [pairing.record("train", "igatl", n) for n in range(200)]
    along = [r for r in drawn if r.intervals == ((0.0, 10.0),)]
    assert 5 <= len(along) <= 40
    assert {r.intervals for r in drawn} == {((0.0, 10.0),), ((1.0, 4.0),)}
    only = World(dogs(5, 0).images, {"a": sounds["a0"]}).pairing(all_along=0)
    assert only.record("train", "igatl", 0).intervals == ((0.0, 10.0),)


def test_igatl_leaves_alone_what_is_heard_of_a_broader_class() -> None:
    sounds = {
        "some animal": recording("some animal", ("dog", (1.0, 2.0)), ("animal", (5.0, 6.0))),
        "the dog": recording("the dog", ("dog", (1.0, 2.0)), ("animal", (1.0, 2.0))),
    }
    pairing = World(dogs(3, 0).images, sounds).pairing()
    assert {r.provenance["recording"] for r in made(pairing, "train", "igatl", 6)} == {"the dog"}


def test_the_kinds_of_false_claim_come_in_their_shares() -> None:
    things = [("dog", LEFT), ("chair", RIGHT)]
    events = [("dog", (1.0, 2.0)), ("train", (4.0, 5.0))]
    made_of = World(
        {f"p{n}": picture(f"p{n}", *things) for n in range(20)} | {"f": picture("f", ("fox", LEFT))},
        {f"r{n}": recording(f"r{n}", *events) for n in range(20)}
        | {f"f{n}": recording(f"f{n}", ("fox", (3.0, 4.0))) for n in range(20)}
        | {f"t{n}": recording(f"t{n}", ("train", (3.0, 4.0))) for n in range(20)},
    )
    records = made(made_of.pairing(), "train", "avfc", 1600)
    dog_ones = [r for r in records if r.kind == "type3" and r.response == "False" and r.label == "dog"]
    counts = Counter(record.provenance["negative"] for record in dog_ones)
    for kind, weight in NEGATIVES.items():
        assert counts[kind] == pytest.approx(len(dog_ones) * weight / 9, abs=4)
    chosen = made_of.pairing(negatives={"similar": 1.0})
    told = [chosen.record("train", "avfc", n).provenance.get("negative") for n in range(400)]
    assert set(told) == {None, "similar"}
