"""What the built-in world asks is answered by its scenes."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from avalign.answers import read_boxes, read_intervals, read_verdict
from avalign.data.avworld import AvWorld, questions, scenes
from avalign.data.avworld import images as image_synthesis
from avalign.data.avworld.audio import CLASSES
from avalign.data.avworld.scenes import RATE, SECONDS, SIZE, Event, Scene
from avalign.data.collate import check
from avalign.errors import AvalignError
from avalign.types import TASKS
from tests.helpers.avworld import BY_CHANCE, SPLITS, drawn, near, prepared
from tests.helpers.strategies import quick, seeds

# -- what every sample must be -------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("split", SPLITS)
def test_a_sample_is_whole(source: AvWorld, split: str, task: str) -> None:
    for index in range(12):
        sample = source.sample(split, task, index)
        check(sample)
        assert (sample.task, sample.id) == (task, f"avworld/{split}/{task}/{index}")
        assert sample.instruction.startswith("<image><audio>")
        assert sample.image.shape == (SIZE, SIZE, 3)
        assert sample.audio.shape == (SECONDS * RATE,)
        assert sample.audio.dtype == np.float32
        assert np.abs(sample.audio).max() <= 1
        assert sample.sample_rate == RATE


def test_a_sample_shows_and_plays_the_scene_that_it_asks_about(source: AvWorld) -> None:
    for number, split in enumerate(SPLITS):
        for index in range(8):
            sample = source.sample(split, "arig", index)
            scene, image, audio = scenes.make(sample.provenance["scene"], (0, number))
            assert sample.boxes[0] in {thing.box for thing in scene.things}
            assert np.array_equal(sample.image, image)
            assert np.array_equal(np.round(sample.audio * 32767), audio)


def test_arig_asks_for_the_box_of_what_sounds(source: AvWorld, root: Path) -> None:
    timed: list[int] = []
    for sample, scene in drawn(source, root, "arig"):
        (event,) = [e for e in scene["events"] if (e["start"], e["end"]) == sample.intervals[0]]
        assert event["name"] == sample.label
        (thing,) = [t for t in scene["things"] if t["name"] == sample.label]
        assert sample.boxes == (tuple(thing["box"]),)
        (read,) = read_boxes(sample.response)
        assert read.label == sample.label
        assert near(read.box, sample.boxes[0])
        asked = read_intervals(sample.instruction)
        assert len(asked) == (scene["plot"] == "duet")  # two sound: the question says which
        assert all(near(interval, sample.intervals[0]) for interval in asked)
        timed += [scene["events"].index(event)] * len(asked)
    assert min(timed.count(0), timed.count(1)) > 10


def test_igatl_asks_when_what_is_seen_sounds(source: AvWorld, root: Path) -> None:
    for sample, scene in drawn(source, root, "igatl"):
        assert near(read_intervals(sample.response)[0], sample.intervals[0])
        seen = {thing["name"] for thing in scene["things"]}
        assert sample.intervals == tuple(
            (event["start"], event["end"]) for event in scene["events"] if event["name"] in seen
        )


def test_avfc_says_true_of_what_is_so_and_false_of_what_is_not(source: AvWorld, root: Path) -> None:
    wrong: Counter[str] = Counter()
    for sample, scene in drawn(source, root, "avfc", 320):
        boxes, intervals = read_boxes(sample.instruction), read_intervals(sample.instruction)
        right_box = [near(box.box, sample.boxes[0]) for box in boxes]
        right_time = [near(interval, sample.intervals[0]) for interval in intervals]
        so = all(right_box + right_time)
        if sample.kind == "type4":
            so = scene["plot"] != "stranger"
            assert (bool(sample.boxes), bool(sample.intervals)) == (so, so)
        assert read_verdict(sample.response) == so, sample
        assert (len(boxes), len(intervals)) == {
            "type1": (1, 0),
            "type2": (0, 1),
            "type3": (1, 1),
            "type4": (0, 0),
        }[sample.kind]
        for box, right in zip(boxes, right_box, strict=True):
            assert any(near(box.box, tuple(thing["box"])) for thing in scene["things"])
            wrong[f"{sample.kind} box"] += not right
        for right in right_time:
            wrong[f"{sample.kind} time"] += not right
    assert set(wrong) == {"type1 box", "type2 time", "type3 box", "type3 time"}
    assert min(wrong.values()) > 20  # each way of being false is learnt


def test_avfc_is_as_often_true_as_false_in_every_type(source: AvWorld) -> None:
    counted = Counter((s.kind, s.response) for s in (source.sample("test", "avfc", k) for k in range(80)))
    assert list(counted.values()) == [10] * 8
    trained = Counter((s.kind, s.response) for s in (source.sample("train", "avfc", k) for k in range(600)))
    assert len(trained) == 8
    assert chisquare(list(trained.values())).pvalue > BY_CHANCE


@quick
@given(st.floats(0, 0.5), st.floats(0.8, 2.4), st.booleans(), seeds)
def test_a_wrong_time_is_one_at_which_nothing_sounds(
    edge: float, length: float, late: bool, seed: int
) -> None:
    """Also where an event leaves next to nothing before or after it."""
    start = SECONDS - length - edge if late else edge
    scene = Scene("solo", (), (Event("bell", start, start + length),))
    rng = np.random.default_rng(seed)
    for _ in range(60):
        begin, end = questions._another_time(scene, rng)
        assert 0 <= begin < end <= SECONDS
        assert end - begin > 0.38
        assert min(end, start + length) - max(begin, start) < 0.011, "both are rounded to 0.01 s"


def test_avqa_answers_are_those_of_the_scene(source: AvWorld, root: Path) -> None:
    said: Counter[tuple[str | None, str]] = Counter()
    for sample, scene in drawn(source, root, "avqa", 320):
        seen = {thing["name"] for thing in scene["things"]}
        sounds_now = {event["name"] for event in scene["events"]}
        left, top, right, bottom = sample.boxes[0]
        named = set(re.findall(r"\w+", sample.instruction)) & set(CLASSES)
        answers = {
            "sounding": sample.label,
            "count": str(len(seen)),
            "side": "left" if left + right < 1 else "right",
            "level": "upper" if top + bottom < 1 else "lower",
            "visible": "yes" if named and named <= seen else "no",
            "audible": "yes" if named and named <= sounds_now else "no",
            "seen": ", ".join(
                thing["name"] for thing in sorted(scene["things"], key=lambda t: t["box"][0] + t["box"][2])
            ),
        }
        assert {sample.label} == seen & sounds_now
        assert sample.response == answers[sample.kind], sample.instruction
        assert len(named) == (sample.kind in ("visible", "audible"))
        said[sample.kind, sample.response] += 1
    for kind in ("visible", "audible"):
        assert chisquare([said[kind, "yes"], said[kind, "no"]]).pvalue > BY_CHANCE
    assert {kind for kind, _ in said} == set(questions.TAUGHT)


def test_avqa_asks_every_kind_as_often_where_it_is_scored(source: AvWorld) -> None:
    for split in ("val", "test"):
        asked = [source.sample(split, "avqa", k) for k in range(100)]
        assert Counter(s.kind for s in asked) == dict.fromkeys(questions.SCORED, 20)
        verdicts = Counter((s.kind, s.response) for s in asked if s.kind in ("visible", "audible"))
        assert list(verdicts.values()) == [10] * 4


def test_training_asks_avqa_in_the_shares_given(root: Path, source: AvWorld) -> None:
    shared = AvWorld(train=120, val=40, test=40, questions={"seen": 3.0, "audible": 1.0, "count": 0.0})
    shared.prepare(str(root), seed=0)
    asked = Counter(shared.sample("train", "avqa", k).kind for k in range(400))
    assert set(asked) == {"seen", "audible"}
    assert chisquare([asked["seen"], asked["audible"]], [300, 100]).pvalue > BY_CHANCE
    equal = Counter(source.sample("train", "avqa", k).kind for k in range(600))
    assert chisquare([equal[kind] for kind in questions.TAUGHT]).pvalue > BY_CHANCE
    before, after = (s.sample("test", "avqa", 7) for s in (source, shared))
    assert (before.instruction, before.response) == (after.instruction, after.response)


def test_unknown_or_absent_questions_are_refused() -> None:
    with pytest.raises(AvalignError, match=r"avworld: no AVQA question 'audibel'\. Did you mean 'audible'"):
        AvWorld(questions={"audibel": 1.0})
    with pytest.raises(AvalignError, match="avworld: questions: all shares are 0"):
        AvWorld(questions={"seen": 0.0})


def test_captions_name_what_sounds_its_side_and_the_rest(source: AvWorld, root: Path) -> None:
    for sample, scene in drawn(source, root, "avcap", 60):
        captions = (sample.response, *sample.references)
        assert len(set(captions)) == 3
        left, _, right, _ = sample.boxes[0]
        for caption in captions:
            words = re.findall(r"\w+", caption)
            assert set(words) & set(CLASSES) == {thing["name"] for thing in scene["things"]}
            assert next(word for word in words if word in CLASSES) == sample.label
            assert ("left" in words, "right" in words) == (left + right < 1, left + right >= 1)


def test_there_are_a_dozen_classes_and_several_phrasings_of_every_question(source: AvWorld) -> None:
    assert len(CLASSES) >= 12
    assert len(set(image_synthesis.LOOKS.values())) == len(CLASSES)
    every = "|".join(CLASSES)
    for task in TASKS:
        phrasings: dict[str | None, set[str]] = {}
        verdicts: dict[tuple[str | None, str], set[str]] = {}
        for index in range(300):
            sample = source.sample("train", task, index)
            words = re.sub(rf"\[[^]]*\]|\b({every})\b", "_", sample.instruction)
            phrasings.setdefault(sample.kind, set()).add(words)
            if task == "avfc":
                verdicts.setdefault((sample.kind, sample.response), set()).add(words)
        assert all(len(found) >= 2 for found in phrasings.values()), (task, phrasings)
        for (kind, _), found in verdicts.items():
            assert found == phrasings[kind], "the wording would tell the verdict"


def test_its_texts_hold_every_word_there_is(source: AvWorld) -> None:
    words = {word for text in source.corpus() for word in re.findall(r"[A-Za-z]+", text)}
    asked = {w for p in questions.PHRASINGS.values() for t in p for w in re.findall(r"[A-Za-z]+", t)}
    assert set(CLASSES) | asked - {"box", "interval", "name"} | {"True", "False", "yes", "no"} <= words


def test_a_world_too_small_for_a_task_is_named(tmp_path: Path) -> None:
    """Strangers come last in the cycle of plots: 17 scenes hold none."""
    small = prepared(tmp_path, val=17)
    false_type4 = 7
    assert small.sample("test", "avfc", false_type4).response == "False"
    with pytest.raises(AvalignError, match=r"17 val scenes.*stranger"):
        small.sample("val", "avfc", false_type4)
