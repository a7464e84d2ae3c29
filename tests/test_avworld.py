"""The built-in world: what a sample says of its picture and sound is so, and only the sound tells which.

Pictures and sounds are looked at here by other means than those that made them.
"""

from __future__ import annotations

import json
import multiprocessing
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import rgb_to_hsv
from scipy.stats import chisquare

from avalign.batch import TASKS, Sample
from avalign.collate import check
from avalign.data.avworld import AvWorld, pictures, questions, scenes, sounds
from avalign.data.avworld.scenes import RATE, SECONDS, SIZE, Event, Scene, Thing
from avalign.data.avworld.sounds import CLASSES
from avalign.errors import AvalignError
from avalign.grammar import read_boxes, read_intervals, read_verdict
from tests.strategies import quick, seeds

SPLITS = ("train", "val", "test")
CENT = 0.005 + 1e-9  # what rounding to two decimals moves a number by, at most
BY_CHANCE = 1e-3  # a fair draw fails a test at this level for one seed in a thousand; the seeds are fixed


def prepared(root: Path, seed: int = 0, workers: int = 1, **counts: int) -> AvWorld:
    source = AvWorld(**{"train": 20, "val": 20, "test": 20, **counts})
    source.prepare(str(root), seed=seed, workers=workers)
    return source


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("worlds")


@pytest.fixture(scope="module")
def source(root: Path) -> AvWorld:
    return prepared(root, train=120, val=40, test=40)


def scene_of(root: Path, split: str, sample: Sample) -> dict[str, Any]:
    """The scene as it stands in the cache."""
    (folder,) = root.glob(f"avworld-{split}-*")
    return json.loads((folder / "scenes.jsonl").read_text().splitlines()[sample.provenance["scene"]])


def drawn(
    source: AvWorld, root: Path, task: str, count: int = 160
) -> Iterator[tuple[Sample, dict[str, Any]]]:
    for split in ("train", "test"):
        for index in range(count):
            sample = source.sample(split, task, index)
            yield sample, scene_of(root, split, sample)


def alike(a: Sample, b: Sample) -> bool:
    media = np.array_equal(a.image, b.image) and np.array_equal(a.audio, b.audio)
    return media and replace(a, image=None, audio=None) == replace(b, image=None, audio=None)


def near(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return len(a) == len(b) and all(abs(x - y) <= CENT for x, y in zip(a, b, strict=True))


def files(root: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(root)): file.read_bytes() for file in sorted(root.rglob("*.*")) if file.is_file()
    }


# -- the same whenever it is asked for -----------------------------------------------------------------------


def test_a_seed_decides_every_sample(tmp_path: Path) -> None:
    one, same, other = (prepared(tmp_path / name, seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    for task in TASKS:
        for index in (7, 3, 7, 0):
            assert alike(one.sample("train", task, index), same.sample("train", task, index))
        assert not alike(one.sample("train", task, 3), other.sample("train", task, 3))
    seen = {file.parent.parent.name: np.load(file) for file in tmp_path.glob("*/avworld-train-*/images.npy")}
    assert (seen["a"] != seen["c"]).any(axis=(1, 2, 3)).all()


def test_a_draw_does_not_depend_on_the_draws_before_it(source: AvWorld) -> None:
    forwards = [source.sample("train", "avqa", k) for k in range(6)]
    backwards = [source.sample("train", "avqa", k) for k in reversed(range(6))]
    assert all(map(alike, forwards, reversed(backwards)))
    assert len({(s.instruction, s.provenance["scene"]) for s in forwards}) > 3


def test_splits_share_no_picture_and_no_sound(source: AvWorld, root: Path) -> None:
    for media in ("images.npy", "audio.npy"):
        every = [
            row.tobytes()
            for split in SPLITS
            for row in np.load(next(root.glob(f"avworld-{split}-*/{media}")))
        ]
        assert len(every) == 200
        assert len(set(every)) == 200


# -- what is seen --------------------------------------------------------------------------------------------


class Still(np.random.Generator):
    """Draws as ever, but no pixel noise: pictures with and without a thing differ by that thing alone."""

    def normal(self, loc: Any = 0.0, scale: Any = 1.0, size: Any = None) -> Any:
        return np.zeros(size)


@quick
@given(seeds, st.sampled_from(CLASSES), st.sampled_from(CLASSES))
def test_a_box_holds_the_pixels_of_its_thing_exactly(seed: int, name: str, behind: str) -> None:
    places = pictures.place(2, SIZE, np.random.default_rng(seed))
    with_it, boxes = pictures.render(
        [(behind, places[0]), (name, places[1])], SIZE, Still(np.random.PCG64(seed))
    )
    without, _ = pictures.render([(behind, places[0])], SIZE, Still(np.random.PCG64(seed)))
    rows, columns = np.nonzero((with_it != without).any(2))
    extent = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert boxes[1] == pytest.approx([edge / SIZE for edge in extent])
    assert min(boxes[1]) >= 0
    assert max(boxes[1]) <= 1


def hued(image: np.ndarray, name: str) -> np.ndarray:
    """(h, w) bool: pixels in the hue of a class, more saturated than the ground mostly is."""
    hue, saturation, _ = np.moveaxis(rgb_to_hsv(image / 255), 2, 0)
    away = np.abs((hue - pictures.LOOKS[name].hue + 0.5) % 1 - 0.5)
    return (away < 0.07) & (saturation > 0.5)


def test_every_box_of_a_scene_is_that_of_its_own_thing() -> None:
    own, other = [], []
    for index in range(100):
        scene, image, _ = scenes.make(index, (0, 0))
        for thing in scene.things:
            marked = hued(image, thing.name)
            for box in scene.things:
                left, top, right, bottom = (round(edge * SIZE) for edge in box.box)
                share = marked[top:bottom, left:right].mean()
                (own if box is thing else other).append(share)
    assert np.mean(own) > 0.4  # the least shape fills half of its box, and some of it may be hidden
    assert np.mean(np.array(own) > 0.2) > 0.95
    assert np.mean(other) < 0.15


def test_things_are_two_to_four_of_different_classes_and_none_is_hidden() -> None:
    counts = Counter()
    for index in range(60):
        scene, _, _ = scenes.make(index, (3, 0))
        counts[len(scene.things)] += 1
        assert len({thing.name for thing in scene.things}) == len(scene.things)
        for k, a in enumerate(scene.things):
            for b in scene.things[k + 1 :]:
                width = min(a.box[2], b.box[2]) - max(a.box[0], b.box[0])
                height = min(a.box[3], b.box[3]) - max(a.box[1], b.box[1])
                areas = [(t.box[2] - t.box[0]) * (t.box[3] - t.box[1]) for t in (a, b)]
                # 0.25 of the place; the drawn extent may be a pixel narrower on each side
                assert max(0, width) * max(0, height) < 0.3 * min(areas)
    assert set(counts) == {2, 3, 4}


# -- what is heard -------------------------------------------------------------------------------------------


def loudness(wave: np.ndarray) -> float:
    return float(np.sqrt(np.mean((wave / 32767) ** 2)))


def between(wave: np.ndarray, start: float, end: float) -> np.ndarray:
    return wave[max(0, round(start * RATE)) : max(0, round(end * RATE))]


@pytest.fixture(scope="module")
def heard() -> list[tuple[Scene, np.ndarray]]:
    made = [scenes.make(index, (5, 0)) for index in range(120)]
    return [(scene, wave) for scene, _, wave in made]


def test_the_sound_is_within_its_interval_and_nowhere_else(heard: list[tuple[Scene, np.ndarray]]) -> None:
    for scene, wave in heard:
        assert wave.shape == (round(SECONDS * RATE),)
        outside = np.ones(len(wave), bool)
        for event in scene.events:
            assert 0 <= event.start < event.end <= SECONDS
            outside[round(event.start * RATE) : round(event.end * RATE)] = False
        for event in scene.events:  # 14 dB below the usual level, 6 dB for the quietest event: 2.5 times
            assert loudness(between(wave, event.start, event.end)) > 1.8 * loudness(wave[outside])


def test_the_sound_begins_and_ends_with_its_interval(heard: list[tuple[Scene, np.ndarray]]) -> None:
    """A tenth of a second on either side of the edges: quiet, loud; loud, quiet."""
    parts: dict[str, list[float]] = {"before": [], "first": [], "last": [], "after": []}
    for scene, wave in heard:
        for event in scene.events:
            if event.start > 0.1 and event.end < SECONDS - 0.1:
                edges = (event.start - 0.1, event.start, event.end - 0.1, event.end)
                for part, edge in zip(parts, edges, strict=True):
                    parts[part].append(loudness(between(wave, edge, edge + 0.1)))
    before, first, last, after = (np.median(values) for values in parts.values())
    assert first > 3 * before
    assert last > 2 * after  # drums and the like may be silent just then


def timbre(wave: np.ndarray) -> np.ndarray:
    """Mean and spread over time of the log power in 32 bands."""
    frames = np.lib.stride_tricks.sliding_window_view(wave / 32767, 256)[::128]
    power = np.abs(np.fft.rfft(frames * np.hanning(256)))[:, 1:] ** 2
    bands = np.log(power.reshape(len(frames), 32, 4).sum(2) + 1e-4)
    return np.concatenate([bands.mean(0), bands.std(0)])


def test_every_event_has_the_voice_of_its_class(heard: list[tuple[Scene, np.ndarray]]) -> None:
    """Told by the nearest mean timbre, of other draws: chance would be right once in fourteen."""
    rng = np.random.default_rng(11)
    means = {
        name: np.mean(
            [timbre(32767 * sounds.render([(name, 0, 1.2)], 1.2, RATE, rng)) for _ in range(12)], axis=0
        )
        for name in CLASSES
    }
    right = []
    for scene, wave in heard:
        for event in scene.events:
            heard_as = timbre(between(wave, event.start, event.end))
            right.append(event.name == min(means, key=lambda name: np.abs(means[name] - heard_as).mean()))
    assert np.mean(right) > 0.7


# -- the sound is needed -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sounding() -> list[tuple[Scene, list[str]]]:
    """2,000 scenes in which one thing seen is heard, with their things from back to front."""
    order: list[list[str]] = []
    with pytest.MonkeyPatch.context() as patch:
        render = pictures.render

        def watched(objects: list[Any], size: int, rng: np.random.Generator) -> Any:
            order.append([name for name, _ in objects])
            return render(objects, size, rng)

        patch.setattr(pictures, "render", watched)
        patch.setattr(sounds, "render", lambda events, seconds, rate, rng: np.zeros(1))  # the slow half
        indices = scenes.indices_with(("solo", "offscreen"), 2_860)[:2_000]
        made = [scenes.make(int(index), (9, 0))[0] for index in indices]
    return list(zip(made, order, strict=True))


def test_which_thing_sounds_cannot_be_told_from_the_picture(sounding: list[tuple[Scene, list[str]]]) -> None:
    """Neither from left to right, nor top to bottom, nor by size, nor front to back, nor by class."""
    traits: dict[str, Callable[[Thing, list[str]], float]] = {
        "across": lambda thing, _: thing.box[0] + thing.box[2],
        "down": lambda thing, _: thing.box[1] + thing.box[3],
        "size": lambda thing, _: (thing.box[2] - thing.box[0]) * (thing.box[3] - thing.box[1]),
        "depth": lambda thing, order: order.index(thing.name),
        "class": lambda thing, _: CLASSES.index(thing.name),
    }
    for trait, value in traits.items():
        for count in (2, 3, 4):
            ranks = Counter(
                sorted(value(thing, order) for thing in scene.things).index(
                    value(next(t for t in scene.things if t.name == scene.events[0].name), order)
                )
                for scene, order in sounding
                if len(scene.things) == count
            )
            assert chisquare([ranks[k] for k in range(count)]).pvalue > BY_CHANCE, (trait, count, ranks)


def test_what_sounds_off_screen_is_not_in_the_picture(source: AvWorld, root: Path) -> None:
    lines = next(root.glob("avworld-train-*/scenes.jsonl")).read_text().splitlines()
    plots = Counter()
    for scene in map(json.loads, lines):
        seen = [thing["name"] for thing in scene["things"]]
        hidden = [event["name"] not in seen for event in scene["events"]]
        plots[scene["plot"]] += 1
        expected = {"solo": [False], "offscreen": [False, True], "duet": [False, False], "stranger": [True]}
        assert hidden == expected[scene["plot"]]
        spans = sorted((event["start"], event["end"]) for event in scene["events"])
        assert all(a[1] + 0.19 < b[0] for a, b in pairwise(spans))
    assert plots == {"solo": 48, "offscreen": 36, "duet": 18, "stranger": 18}


@pytest.mark.parametrize("task", ["arig", "avqa", "avcap", "avfc"])
def test_another_sound_over_the_same_picture_has_another_answer(task: str) -> None:
    things = (Thing("bell", (0.1, 0.1, 0.4, 0.4)), Thing("drum", (0.6, 0.5, 0.9, 0.9)))
    answers = []
    for name in ("bell", "drum"):
        scene = Scene("solo", things, (Event(name, 1.0, 2.5),))
        for seed in range(40):
            rng = np.random.default_rng(seed)
            if task == "avfc":
                answer = questions.avfc(scene, rng, "type1", True)
                answers.append((name, answer.thing.name))
            elif task == "avqa":
                for kind in ("sounding", "side"):
                    answers.append((name, questions.avqa(scene, rng, kind, True).response))
            else:
                answers.append((name, questions.ASK[task](scene, rng).response))
    by_sound = {name: {response for sound, response in answers if sound == name} for name in ("bell", "drum")}
    assert by_sound["bell"]
    assert by_sound["bell"].isdisjoint(by_sound["drum"])


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
    assert len(set(pictures.LOOKS.values())) == len(CLASSES)
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
    words = {word for text in source.texts() for word in re.findall(r"[A-Za-z]+", text)}
    asked = {w for p in questions.PHRASINGS.values() for t in p for w in re.findall(r"[A-Za-z]+", t)}
    assert set(CLASSES) | asked - {"box", "interval", "name"} | {"True", "False", "yes", "no"} <= words


def test_a_world_too_small_for_a_task_is_named(tmp_path: Path) -> None:
    """Strangers come last in the cycle of plots: 17 scenes hold none."""
    small = prepared(tmp_path, val=17)
    false_type4 = 7
    assert small.sample("test", "avfc", false_type4).response == "False"
    with pytest.raises(AvalignError, match=r"17 val scenes.*stranger"):
        small.sample("val", "avfc", false_type4)


# -- the cache -----------------------------------------------------------------------------------------------


def test_what_was_made_before_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = prepared(tmp_path).sample("train", "arig", 5)
    monkeypatch.setattr(scenes, "make", lambda *_, **__: pytest.fail("made again"))
    assert alike(prepared(tmp_path).sample("train", "arig", 5), before)


def test_other_seeds_and_counts_have_caches_of_their_own(tmp_path: Path) -> None:
    prepared(tmp_path)
    written = files(tmp_path)
    prepared(tmp_path, seed=1)
    assert len(list(tmp_path.iterdir())) == 6
    prepared(tmp_path, val=21)
    assert len(list(tmp_path.iterdir())) == 7
    assert files(tmp_path).items() >= written.items()


def test_without_a_root_the_cache_is_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AVALIGN_CACHE", str(tmp_path))
    AvWorld(train=1, val=1, test=1).prepare(None, seed=0)
    assert {folder.name.rpartition("-")[0] for folder in tmp_path.iterdir()} == {
        f"avworld-{split}" for split in SPLITS
    }


def stop_at(monkeypatch: pytest.MonkeyPatch, last: int) -> None:
    make = scenes.make

    def stopped(index: int, seed: tuple[int, ...]) -> Any:
        if index == last:
            raise KeyboardInterrupt
        return make(index, seed)

    monkeypatch.setattr(scenes, "make", stopped)


@pytest.mark.parametrize("how", ["interrupted", "killed"])
def test_a_cache_cut_short_is_not_taken_for_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A killed process cleans nothing up, and the next may well have its number (in a container, say)."""
    with monkeypatch.context() as patch:
        stop_at(patch, 10)
        if how == "killed":
            patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            prepared(tmp_path / "a")
    assert bool(list((tmp_path / "a").iterdir())) == (how == "killed")
    again, fresh = prepared(tmp_path / "a"), prepared(tmp_path / "b")
    for index in range(30):
        assert alike(again.sample("train", "arig", index), fresh.sample("train", "arig", index))


def _prepare(root: Path, gate: Any) -> None:
    gate.wait()
    prepared(root)


def test_two_processes_may_prepare_at_once(tmp_path: Path) -> None:
    processes = multiprocessing.get_context("fork")
    gate = processes.Barrier(2)
    both = [processes.Process(target=_prepare, args=(tmp_path / "a", gate)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    prepared(tmp_path / "b")
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert len(list((tmp_path / "a").iterdir())) == 3


def test_a_cache_that_another_process_just_finished_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look whether it exists and the move into place."""
    prepared(tmp_path / "b")
    rename = Path.rename

    def late(self: Path, target: Path) -> Any:
        shutil.copytree(self, target)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", late)
    prepared(tmp_path / "a")
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_any_number_of_workers_makes_the_same_world(tmp_path: Path) -> None:
    for workers in (1, 2):
        prepared(tmp_path / str(workers), workers=workers, train=70)  # a worker is given 64 at a time
    assert files(tmp_path / "1") == files(tmp_path / "2")
