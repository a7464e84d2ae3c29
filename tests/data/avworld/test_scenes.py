"""The built-in world: what a sample says of its picture and sound is so, and only the sound tells which.

Pictures and sounds are looked at here by other means than those that made them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import rgb_to_hsv
from scipy.stats import chisquare

from avalign.data.avworld import AvWorld, questions, scenes
from avalign.data.avworld import audio as audio_synthesis
from avalign.data.avworld import images as image_synthesis
from avalign.data.avworld.audio import CLASSES
from avalign.data.avworld.scenes import RATE, SECONDS, SIZE, Event, Scene, Thing
from avalign.types import TASKS
from tests.helpers.avworld import BY_CHANCE, SPLITS, alike, prepared
from tests.helpers.strategies import quick, seeds

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


def test_splits_share_no_image_and_no_sound(source: AvWorld, root: Path) -> None:
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
    places = image_synthesis.sample_boxes(2, SIZE, np.random.default_rng(seed))
    with_it, boxes = image_synthesis.render(
        [(behind, places[0]), (name, places[1])], SIZE, Still(np.random.PCG64(seed))
    )
    without, _ = image_synthesis.render([(behind, places[0])], SIZE, Still(np.random.PCG64(seed)))
    rows, columns = np.nonzero((with_it != without).any(2))
    extent = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert boxes[1] == pytest.approx([edge / SIZE for edge in extent])
    assert min(boxes[1]) >= 0
    assert max(boxes[1]) <= 1


def hued(image: np.ndarray, name: str) -> np.ndarray:
    """(h, w) bool: pixels in the hue of a class, more saturated than the ground mostly is."""
    hue, saturation, _ = np.moveaxis(rgb_to_hsv(image / 255), 2, 0)
    away = np.abs((hue - image_synthesis.LOOKS[name].hue + 0.5) % 1 - 0.5)
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
            [timbre(32767 * audio_synthesis.render([(name, 0, 1.2)], 1.2, RATE, rng)) for _ in range(12)],
            axis=0,
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
        render = image_synthesis.render

        def watched(objects: list[Any], size: int, rng: np.random.Generator) -> Any:
            order.append([name for name, _ in objects])
            return render(objects, size, rng)

        patch.setattr(image_synthesis, "render", watched)
        patch.setattr(
            audio_synthesis, "render", lambda events, seconds, rate, rng: np.zeros(1)
        )  # the slow half
        indices = scenes.indices_with(("solo", "offscreen"), 2_860)[:2_000]
        made = [scenes.make(int(index), (9, 0))[0] for index in indices]
    return list(zip(made, order, strict=True))


def test_which_thing_sounds_cannot_be_told_from_the_image(sounding: list[tuple[Scene, list[str]]]) -> None:
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


def test_what_sounds_off_screen_is_not_in_the_image(source: AvWorld, root: Path) -> None:
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
def test_another_sound_over_the_same_image_has_another_answer(task: str) -> None:
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
