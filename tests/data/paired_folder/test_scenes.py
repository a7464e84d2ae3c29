"""Scenes of photographs with a recording: truth lies where it is said to, and only the sound tells which."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from avalign.answers import read_boxes, read_intervals
from avalign.data.paired_folder import PairedFolder
from avalign.data.paired_folder.composing import POSITIONS
from avalign.errors import AvalignError
from avalign.types import TASKS, Sample
from tests.helpers.paired_folder import (
    LOOKS,
    RATE,
    SPLITS,
    classes_shown,
    coloured,
    edited,
    heard_hertz,
    prepared,
)

# -- what every sample must be -------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("split", SPLITS)
def test_a_sample_is_whole(source: PairedFolder, split: str, task: str) -> None:
    for index in range(12):
        sample = source.sample(split, task, index)
        assert sample.task == task
        assert sample.id == f"zoo/{split}/{task}/{index}"
        assert sample.instruction.startswith("<image><audio>")
        assert sample.image is not None
        assert sample.image.shape == (96, 96, 3)
        assert sample.image.dtype == np.uint8
        assert sample.audio is not None
        assert sample.audio.shape == (3 * RATE,)
        assert sample.audio.dtype == np.float32
        assert np.isfinite(sample.audio).all()
        assert np.abs(sample.audio).max() <= 1
        assert sample.sample_rate == RATE
        for left, top, right, bottom in sample.boxes:
            assert 0 <= left < right <= 1
            assert 0 <= top < bottom <= 1
        for start, end in sample.intervals:
            assert 0 <= start < end <= 3
        assert 2 <= len(classes_shown(sample)) <= 4


@pytest.mark.parametrize("split", ["train", "test"])  # mirrored photographs too, and straight ones
def test_the_box_is_where_the_object_is(source: PairedFolder, split: str) -> None:
    for index in range(40):
        sample = source.sample(split, "arig", index)
        rows, columns = np.nonzero(coloured(sample.image, sample.label))
        found = (columns.min() / 96, rows.min() / 96, (columns.max() + 1) / 96, (rows.max() + 1) / 96)
        np.testing.assert_allclose(sample.boxes[0], found, atol=2.1 / 96)  # two pixels of soft edge
        read = read_boxes(sample.response)
        assert [b.label for b in read] == [sample.label]
        np.testing.assert_allclose(read[0].box, sample.boxes[0], atol=0.0051)


def test_the_interval_is_when_the_sound_is(source: PairedFolder) -> None:
    for index in range(40):
        sample = source.sample("test", "igatl", index)
        (start, end), (read,) = sample.intervals[0], read_intervals(sample.response)
        np.testing.assert_allclose(read, (start, end), atol=0.0051)
        assert heard_hertz(sample.audio, (start, end)) == pytest.approx(LOOKS[sample.label][1], abs=25)
        spectrum_at = LOOKS[sample.label][1]
        power = [
            np.abs(np.fft.rfft(frame * np.hanning(160))[round(spectrum_at * 160 / RATE)]) ** 2
            for frame in sample.audio.reshape(-1, 160)  # 20 ms
        ]
        loud = np.flatnonzero(np.array(power) > 0.1 * np.max(power)) * 0.02
        assert loud.min() == pytest.approx(start, abs=0.03)
        assert loud.max() + 0.02 == pytest.approx(end, abs=0.03)


def test_half_of_the_igatl_scenes_have_something_off_screen(source: PairedFolder) -> None:
    plans = [source.plan("train", "igatl", k) for k in range(400)]
    assert 0.4 < np.mean([len(p.parts) == 2 for p in plans]) < 0.6
    for plan in plans:
        first, *later = plan.parts
        shown = {t.name for t in plan.tiles}
        assert sum(p.name in shown for p in plan.parts) == 1
        for part in later:
            assert part.at >= first.at + first.stop - first.start  # one after the other
    assert 0.4 < np.mean([p.parts[0].name == p.sounding.name for p in plans if len(p.parts) == 2]) < 0.6


# -- the sound decides ---------------------------------------------------------------------------------------


def test_only_the_sound_tells_which_box(source: PairedFolder) -> None:
    """The answer is the box of the class that is heard, and that class is any of those shown, anywhere."""
    places: Counter[tuple[int, int]] = Counter()
    labels: Counter[str] = Counter()
    for index in range(900):
        plan = source.plan("train", "arig", index)
        heard = next(p.name for p in plan.parts)
        tile = next(t for t in plan.tiles if t.name == heard)
        assert plan.sounding is tile
        assert read_boxes(plan.asked.response)[0].label == heard
        places[len(plan.tiles), plan.tiles.index(tile)] += 1
        labels[heard] += 1
    for shown in (2, 3, 4):
        counts = np.array([places[shown, k] for k in range(shown)])
        assert counts.sum() > 240  # of 300 expected
        assert np.all(np.abs(counts / counts.sum() - 1 / shown) < 0.12)
    # "ant" has six times the recordings of the others, and is not heard more often
    assert all(abs(labels[name] / 900 - 1 / 5) < 0.05 for name in LOOKS)


def test_the_loudness_does_not_tell_the_class(source: PairedFolder) -> None:
    level = {}
    for index in range(60):
        sample = source.sample("test", "arig", index)
        start, end = (round(t * RATE) for t in sample.intervals[0])
        level.setdefault(sample.label, []).append(np.sqrt(np.square(sample.audio[start:end]).mean()))
    assert {name: round(float(np.mean(v)), 2) for name, v in level.items()} == dict.fromkeys(LOOKS, 0.1)


def test_splits_share_no_file(source: PairedFolder) -> None:
    used: dict[str, set[str]] = {}
    for split in SPLITS:
        plans = [source.plan(split, task, k) for task in TASKS for k in range(100)]
        used[split] = {t.photo.file for p in plans for t in p.tiles}
        used[split] |= {part.recording.file for p in plans for part in p.parts}
        assert len(used[split]) == 10 + (6 + 5 if split == "train" else 6)  # every file is used
        assert all(f"_{split}_" in file for file in used[split])
    assert not used["train"] & used["val"]
    assert not used["train"] & used["test"]
    assert not used["val"] & used["test"]


@pytest.mark.parametrize("part", ["images", "audio"])
@pytest.mark.parametrize("key", ["file", "group"])
def test_a_file_or_group_in_two_splits_is_refused(tmp_path: Path, part: str, key: str) -> None:
    def leak(annotations: dict) -> None:
        entries = annotations[part]
        test = next(e for e in entries if e["split"] == "test")
        test[key] = next(e for e in entries if e["split"] == "train")[key]

    with pytest.raises(AvalignError, match=f"{key} '.*' is in both train and test"):
        prepared(edited(tmp_path, leak))


def same(a: Sample, b: Sample) -> bool:
    text = (a.instruction, a.response, a.boxes, a.intervals) == (
        b.instruction,
        b.response,
        b.boxes,
        b.intervals,
    )
    return text and np.array_equal(a.image, b.image) and np.array_equal(a.audio, b.audio)


def test_a_sample_is_the_same_whenever_it_is_asked_for(folder: Path, source: PairedFolder) -> None:
    again, other = prepared(folder), prepared(folder, seed=1)
    asked = [(split, task, index) for split in SPLITS for task in TASKS for index in (0, 7)]
    first = {key: source.sample(*key) for key in asked}
    for key in reversed(asked):
        assert same(again.sample(*key), first[key])
        assert not same(other.sample(*key), first[key])
    assert not same(source.sample("test", "arig", 0), source.sample("test", "arig", 1))
    assert not same(source.sample("test", "arig", 0), source.sample("val", "arig", 0))


# -- the tasks -----------------------------------------------------------------------------------------------


def test_true_and_false_are_balanced(source: PairedFolder) -> None:
    exact = Counter((q.kind, q.response) for q in (source.plan("test", "avfc", k).asked for k in range(40)))
    pairs = [(kind, verdict) for kind in ("type1", "type4") for verdict in ("True", "False")]
    assert exact == Counter(dict.fromkeys(pairs, 10))
    drawn = Counter((q.kind, q.response) for q in (source.plan("train", "avfc", k).asked for k in range(800)))
    assert all(abs(drawn[pair] / 800 - 1 / 4) < 0.06 for pair in pairs)


def test_a_claim_is_true_when_it_says(source: PairedFolder) -> None:
    seen: Counter[str] = Counter()
    for index in range(120):
        plan = source.plan("test", "avfc", index)
        shown, heard = {t.name for t in plan.tiles}, plan.parts[0].name
        if plan.asked.kind == "type4":
            assert (heard in shown) == (plan.asked.response == "True")
            assert (plan.sounding is None) == (plan.asked.response == "False")
            seen["siren" if heard == "siren" else "class"] += plan.asked.response == "False"
        else:
            box = read_boxes(plan.asked.instruction)[0].box
            owner = min(plan.tiles, key=lambda t: np.abs(np.subtract(t.boxes[0], box)).max())
            np.testing.assert_allclose(owner.boxes[0], box, atol=0.0051)
            assert (owner.name == heard) == (plan.asked.response == "True")
            assert plan.sounding is not None
            assert plan.sounding.name == heard  # the truth is at hand also when the claim is false
    assert 0 < seen["siren"] < seen["class"]
    stranger = next(
        s
        for s in (source.sample("test", "avfc", k) for k in range(8))
        if (s.kind, s.response) == ("type4", "False")
    )
    assert (stranger.boxes, stranger.intervals, stranger.label) == ((), (), None)


def test_training_asks_questions_in_the_shares_given(folder: Path) -> None:
    source = prepared(folder, questions={"seen": 3.0, "sounding": 1.0, "count": 0.0})
    drawn = Counter(source.plan("train", "avqa", k).asked.kind for k in range(400))
    assert set(drawn) == {"seen", "sounding"}
    assert 260 <= drawn["seen"] <= 340
    assert len({source.plan("test", "avqa", k).asked.kind for k in range(6)}) == 6


def test_unknown_or_absent_questions_are_refused() -> None:
    with pytest.raises(AvalignError, match=r"no AVQA question 'sen'.*seen"):
        PairedFolder(questions={"sen": 1.0})
    with pytest.raises(AvalignError, match="all shares are 0"):
        PairedFolder(questions={"seen": 0.0})


def test_questions_are_answered_by_the_scene(source: PairedFolder) -> None:
    kinds: Counter[str] = Counter()
    for index in range(240):
        plan = source.plan("test", "avqa", index)
        shown, heard = [t.name for t in plan.tiles], plan.parts[0].name
        text, answer, kind = plan.asked.instruction, plan.asked.response, plan.asked.kind
        named = next((name for name in LOOKS if f" {name} " in text.replace("?", " ")), None)
        kinds[f"{kind} {answer}" if kind in ("audible", "visible") else str(kind)] += 1
        if kind == "sounding":
            assert answer == heard
        elif kind == "count":
            assert answer == str(len(shown))
        elif kind == "visible":
            assert (answer == "yes") == (named in shown)
        elif kind == "audible":
            assert (answer == "yes") == (named == heard)
            assert named in shown  # or the picture would tell
        elif kind == "seen":
            cells = next(cells for cells in POSITIONS.values() if plan.sounding.position in cells)
            assert answer == ", ".join(
                t.name for t in sorted(plan.tiles, key=lambda t: cells.index(t.position))
            )
        else:
            left, top, right, bottom = plan.sounding.boxes[0]
            assert not ("left" in answer and right > 0.5)
            assert not ("right" in answer and left < 0.5)
            assert not ("top" in answer and bottom > 0.5)
            assert not ("bottom" in answer and top < 0.5)
            assert answer == plan.sounding.position
    assert kinds["visible yes"] == kinds["visible no"] == kinds["audible yes"] == kinds["audible no"] == 20
    assert kinds["sounding"] == kinds["count"] == kinds["place"] == kinds["seen"] == 40
    assert "an ant" in " ".join(source.corpus())
    assert "a bee" in " ".join(source.corpus())


def test_captions_name_all_that_is_seen_and_what_is_heard(source: PairedFolder) -> None:
    for index in range(30):
        plan = source.plan("test", "avcap", index)
        captions = (plan.asked.response, *plan.asked.references)
        assert len(set(captions)) == 4
        for caption in captions:
            words = caption.replace(",", "").split()
            assert next(w for w in words if w in LOOKS) == plan.parts[0].name
            assert {w for w in words if w in LOOKS} == {t.name for t in plan.tiles}
            assert plan.sounding.position in caption


def test_texts_hold_every_word_that_samples_use(source: PairedFolder) -> None:
    known = set(" ".join(source.corpus()).replace("]", " ").replace(",", " ").split())
    for split in SPLITS:
        for task in TASKS:
            for index in range(1000, 1030):
                asked = source.plan(split, task, index).asked
                text = " ".join((asked.instruction, asked.response, *asked.references))
                words = text.replace("]", " ").replace(",", " ").split()
                assert {w for w in words if not any(c.isdigit() for c in w)} <= known
