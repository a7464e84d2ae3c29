"""Scenes of photographs with a recording: truth lies where it is said to, and only the sound tells which.

The folder made here has five classes, each a colour to see and a tone to hear, so that every box and interval
can be checked in the pixels and samples themselves.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from avalign.batch import TASKS, Sample
from avalign.data.media import MediaError
from avalign.data.paired_folder import PairedFolder
from avalign.data.paired_folder.composing import PLACES
from avalign.errors import AvalignError
from avalign.grammar import read_boxes, read_intervals

RATE = 8_000
LOOKS = {  # colour of the object, pitch in Hz
    "ant": ((255, 0, 0), 400),
    "bee": ((0, 255, 0), 700),
    "cub": ((0, 0, 255), 1100),
    "doe": ((255, 255, 0), 1700),
    "elk": ((255, 0, 255), 2500),
}
STRANGE = 3300  # Hz, of a sound without a class
SPLITS = ("train", "val", "test")


def tone(hertz: float, seconds: float = 0.7) -> np.ndarray:
    return 0.4 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)


def write_photo(folder: Path, file: str, name: str, split: str, number: int) -> dict[str, Any]:
    """A black photograph with an object in the class's colour, left of the middle."""
    left, top, right, bottom = 6 + number, 10, 20 + number, 34
    pixels = np.zeros((40, 48, 3), np.uint8)
    pixels[top:bottom, left:right] = LOOKS[name][0]
    Image.fromarray(pixels).save(folder / file)
    box = {"class": name, "xyxy": [left, top, right, bottom], "difficult": 0}
    return {"file": file, "width": 48, "height": 40, "split": split, "group": file, "boxes": [box]}


def write_folder(folder: Path) -> Path:
    """2 photographs a class and split; 1 recording, but 6 of the first class in training."""
    (folder / "images").mkdir(parents=True)
    (folder / "audio").mkdir()
    images: list[dict[str, Any]] = []
    audio: list[dict[str, Any]] = []

    def add_sound(sound: str, of: str | None, split: str, number: int, hertz: float) -> None:
        file = f"audio/{sound}_{split}_{number}.wav"
        soundfile.write(folder / file, tone(hertz), RATE)
        audio.append({"file": file, "sound": sound, "class": of, "split": split, "group": file})

    for split in SPLITS:
        for name, (_, hertz) in LOOKS.items():
            images += [
                write_photo(folder, f"images/{name}_{split}_{k}.png", name, split, k) for k in range(2)
            ]
            for k in range(6 if (name, split) == ("ant", "train") else 1):
                add_sound(name, name, split, k, hertz)
        add_sound("siren", None, split, 0, STRANGE)
    (folder / "annotations.json").write_text(json.dumps({"images": images, "audio": audio}))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data") / "zoo")


def prepared(folder: Path, seed: int = 0, on_error: str = "raise", **options: Any) -> PairedFolder:
    defaults = {"classes": list(LOOKS), "seconds": 3.0, "sample_rate": RATE, "canvas": 96}
    source = PairedFolder(**{**defaults, **options})
    source.on_error = on_error  # type: ignore[assignment]
    source.prepare(str(folder), seed=seed, workers=1)
    return source


@pytest.fixture(scope="module")
def source(folder: Path) -> PairedFolder:
    return prepared(folder)


def coloured(image: np.ndarray, name: str) -> np.ndarray:
    """(h, w) bool: pixels in the class's colour, as far as resizing leaves it."""
    return np.abs(image.astype(int) - LOOKS[name][0]).max(axis=2) < 60


def heard_hertz(audio: np.ndarray, interval: tuple[float, float]) -> float:
    clip = audio[round(interval[0] * RATE) : round(interval[1] * RATE)]
    return float(np.argmax(np.abs(np.fft.rfft(clip))) * RATE / len(clip))


def classes_shown(sample: Sample) -> list[str]:
    return list(sample.provenance["photos"].values())


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
            cells = next(cells for cells in PLACES.values() if plan.sounding.place in cells)
            assert answer == ", ".join(t.name for t in sorted(plan.tiles, key=lambda t: cells.index(t.place)))
        else:
            left, top, right, bottom = plan.sounding.boxes[0]
            assert not ("left" in answer and right > 0.5)
            assert not ("right" in answer and left < 0.5)
            assert not ("top" in answer and bottom > 0.5)
            assert not ("bottom" in answer and top < 0.5)
            assert answer == plan.sounding.place
    assert kinds["visible yes"] == kinds["visible no"] == kinds["audible yes"] == kinds["audible no"] == 20
    assert kinds["sounding"] == kinds["count"] == kinds["place"] == kinds["seen"] == 40
    assert "an ant" in " ".join(source.texts())
    assert "a bee" in " ".join(source.texts())


def test_captions_name_all_that_is_seen_and_what_is_heard(source: PairedFolder) -> None:
    for index in range(30):
        plan = source.plan("test", "avcap", index)
        captions = (plan.asked.response, *plan.asked.references)
        assert len(set(captions)) == 4
        for caption in captions:
            words = caption.replace(",", "").split()
            assert next(w for w in words if w in LOOKS) == plan.parts[0].name
            assert {w for w in words if w in LOOKS} == {t.name for t in plan.tiles}
            assert plan.sounding.place in caption


def test_texts_hold_every_word_that_samples_use(source: PairedFolder) -> None:
    known = set(" ".join(source.texts()).replace("]", " ").replace(",", " ").split())
    for split in SPLITS:
        for task in TASKS:
            for index in range(1000, 1030):
                asked = source.plan(split, task, index).asked
                text = " ".join((asked.instruction, asked.response, *asked.references))
                words = text.replace("]", " ").replace(",", " ").split()
                assert {w for w in words if not any(c.isdigit() for c in w)} <= known


# -- sounds --------------------------------------------------------------------------------------------------


def edited(tmp_path: Path, change: Callable[[dict], None] | None = None) -> Path:
    """A fresh folder whose annotations `change` was let at."""
    folder = write_folder(tmp_path / "zoo")
    file = folder / "annotations.json"
    annotations = json.loads(file.read_text())
    if change is not None:
        change(annotations)
    file.write_text(json.dumps(annotations))
    return folder


def test_digital_silence_around_a_recording_does_not_count(tmp_path: Path) -> None:
    folder = edited(tmp_path)
    silence = np.zeros(RATE)
    for name, (_, hertz) in LOOKS.items():
        padded = np.concatenate([silence, tone(hertz, 0.3), silence])
        soundfile.write(folder / f"audio/{name}_test_0.wav", padded, RATE)
    source = prepared(folder, offscreen=0.0)
    lengths = [np.diff(source.sample("test", "igatl", k).intervals[0])[0] for k in range(10)]
    np.testing.assert_allclose(lengths, 0.3, atol=0.021)  # a frame of 20 ms


def test_long_recordings_are_cut_where_they_are_loud(tmp_path: Path) -> None:
    folder = edited(tmp_path)
    for name, (_, hertz) in LOOKS.items():
        faint, loud = 0.1 * tone(hertz, 4), tone(hertz, 2)
        soundfile.write(folder / f"audio/{name}_test_0.wav", np.concatenate([faint, loud]), RATE)
    source = prepared(folder)
    lengths = []
    for index in range(30):
        plan = source.plan("test", "arig", index)
        part = plan.parts[0]
        lengths.append((part.stop - part.start) / RATE)
        clip = part.recording.samples[part.start : part.stop].astype(float) / 32767
        assert np.square(clip).mean() > 0.4 * np.square(tone(500)).mean()
        assert part.at + part.stop - part.start <= 3 * RATE
    assert 0.15 * 3 < min(lengths) < 0.3 * 3
    assert 0.45 * 3 < max(lengths) <= 0.6 * 3
    for index in range(30):  # two of them still fit, one after the other
        parts = source.plan("test", "igatl", index).parts
        assert all(p.stop - p.start <= 0.6 * 3 * RATE / len(parts) for p in parts)
        assert parts[-1].at + parts[-1].stop - parts[-1].start <= 3 * RATE


def share_above(audio: np.ndarray, hertz: float) -> float:
    power = np.square(np.abs(np.fft.rfft(audio)))
    return float(power[round(hertz * len(audio) / 16_000) :].sum() / power.sum())


def test_bandwidth_does_not_betray_the_source(tmp_path: Path) -> None:
    """All recordings are white noise: in test they end at 4 kHz, in training anywhere from 2 to 8."""
    folder = edited(tmp_path)
    rng = np.random.default_rng(0)
    for file in (folder / "audio").iterdir():
        soundfile.write(file, 0.1 * rng.standard_normal(16_000), 16_000)
    on = prepared(folder, sample_rate=16_000)
    off = prepared(folder, sample_rate=16_000, lowpass=False, augment=False)
    # white noise: half of the power lies above 4 kHz; what is left is the faint noise under every scene
    assert max(share_above(on.sample("test", "arig", k).audio, 4000) for k in range(8)) < 0.03
    assert min(share_above(off.sample("test", "arig", k).audio, 4000) for k in range(8)) > 0.4
    drawn = [share_above(on.sample("train", "arig", k).audio, 4000) for k in range(24)]
    assert min(drawn) < 0.03
    assert max(drawn) > 0.3


def test_other_rates_are_resampled(tmp_path: Path, folder: Path) -> None:
    source = prepared(folder, sample_rate=16_000)  # the files are at 8 kHz
    sample = source.sample("test", "arig", 0)
    clip = sample.audio[round(sample.intervals[0][0] * 16_000) : round(sample.intervals[0][1] * 16_000)]
    hertz = np.argmax(np.abs(np.fft.rfft(clip))) * 16_000 / len(clip)
    assert hertz == pytest.approx(LOOKS[sample.label][1], abs=25)


# -- what photographs are used -------------------------------------------------------------------------------


def test_unusable_photographs_are_left_out(tmp_path: Path) -> None:
    """Two classes on it, only a crowd, or too small to point at."""

    def change(annotations: dict) -> None:
        two, crowd, small = annotations["images"][:3]
        two["boxes"].append({"class": "elk", "xyxy": [30, 0, 48, 40]})
        crowd["boxes"][0]["difficult"] = 1
        small["boxes"][0]["xyxy"] = [0, 0, 6, 6]  # 1.9 %

    source = prepared(edited(tmp_path, change), photos=(2,))
    counts = {name: len(photos) for name, photos in source.pool("train").photos.items()}
    assert counts == {"bee": 1, "cub": 2, "doe": 2, "elk": 2}  # both of ant, one of bee
    assert "ant" not in source.pool("train").classes


def test_several_boxes_of_one_class_are_all_the_answer(tmp_path: Path) -> None:
    def change(annotations: dict) -> None:
        for image in annotations["images"]:
            second = {"class": image["boxes"][0]["class"], "xyxy": [24, 10, 40, 34]}
            image["boxes"].append(second)

    sample = prepared(edited(tmp_path, change)).sample("test", "arig", 0)
    assert len(sample.boxes) == 2
    assert [b.label for b in read_boxes(sample.response)] == [sample.label] * 2


def test_classes_default_to_those_with_twenty_photographs(tmp_path: Path) -> None:
    folder = edited(tmp_path)
    with pytest.raises(AvalignError, match="no class has a sound and 20 training photographs"):
        prepared(folder, classes=None)
    file = folder / "annotations.json"
    annotations = json.loads(file.read_text())
    for name in ("ant", "bee", "doe"):
        annotations["images"] += [
            write_photo(folder, f"images/{name}_more_{k}.png", name, "train", k % 5) for k in range(18)
        ]
    file.write_text(json.dumps(annotations))
    assert prepared(folder, classes=None, photos=(2,)).pool("train").classes == ["ant", "bee", "doe"]


def test_large_photographs_are_shrunk_and_their_boxes_stay(tmp_path: Path) -> None:
    folder = edited(tmp_path)
    file = folder / "annotations.json"
    annotations = json.loads(file.read_text())
    for image in annotations["images"]:
        big = Image.open(folder / image["file"]).resize((480, 400), Image.Resampling.NEAREST)
        big.save(folder / image["file"])
        image["width"], image["height"] = 480, 400
        image["boxes"][0]["xyxy"] = [10 * x for x in image["boxes"][0]["xyxy"]]
    file.write_text(json.dumps(annotations))
    source = prepared(folder)
    assert source.pool("test").photos["ant"][0].pixels.shape == (160, 192, 3)
    sample = source.sample("test", "arig", 3)
    rows, columns = np.nonzero(coloured(sample.image, sample.label))
    found = (columns.min() / 96, rows.min() / 96, (columns.max() + 1) / 96, (rows.max() + 1) / 96)
    np.testing.assert_allclose(sample.boxes[0], found, atol=2.1 / 96)


# -- finding the folder --------------------------------------------------------------------------------------


def test_the_folder_is_found(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"classes": list(LOOKS), "sample_rate": RATE}
    monkeypatch.delenv("AVALIGN_DATA", raising=False)
    source = PairedFolder(**options)
    with pytest.raises(AvalignError, match=r"data\.root=FOLDER, or set AVALIGN_DATA"):
        source.prepare(None, seed=0)
    with pytest.raises(AvalignError, match=r"prepare\(\) has to be called first"):
        source.sample("train", "arig", 0)
    monkeypatch.setenv("AVALIGN_DATA", str(folder))
    source.prepare(None, seed=0)
    assert source.sample("train", "arig", 0).id == "zoo/train/arig/0"
    (tmp_path / "avmini").symlink_to(folder)
    monkeypatch.setenv("AVALIGN_DATA", str(tmp_path))
    source.prepare(None, seed=0)
    assert source.pool("train").classes == list(LOOKS)
    with pytest.raises(AvalignError, match=r"data\.root .*images: no annotations\.json"):
        source.prepare(str(folder / "images"), seed=0)
    monkeypatch.setenv("AVALIGN_DATA", str(folder / "audio"))
    with pytest.raises(AvalignError, match=r"AVALIGN_DATA .*audio: no annotations\.json"):
        source.prepare(None, seed=0)


# -- what can be wrong ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a: a.pop("audio"), "has no list 'audio'"),
        (lambda a: a["images"][3].pop("boxes"), r"images\[3\] \(images/.*\) has no 'boxes'"),
        (lambda a: a["audio"][0].pop("class"), r"audio\[0\] \(audio/.*\) has no 'class'"),
        (lambda a: a["audio"][0].update(split="dev"), "of split 'dev'. Known: train, val, test"),
        (lambda a: a["images"][0]["boxes"][0].update(xyxy=[1, 2, 3]), "four 'xyxy'"),
        (lambda a: a["images"].insert(0, "x.png"), r"images\[0\] is not a mapping"),
    ],
)
def test_broken_annotations_are_named(tmp_path: Path, change: Callable[[dict], None], said: str) -> None:
    with pytest.raises(AvalignError, match=said):
        prepared(edited(tmp_path, change))


@pytest.mark.parametrize("content", ["{", "[]", ""])
def test_annotations_that_are_no_mapping_are_refused(tmp_path: Path, content: str) -> None:
    folder = edited(tmp_path)
    (folder / "annotations.json").write_text(content)
    with pytest.raises(AvalignError, match=r"annotations\.json: (cannot be read as JSON|is not a mapping)"):
        prepared(folder)


def box_outside(folder: Path) -> None:
    change_first(folder, "images", boxes=[{"class": "ant", "xyxy": [5, 5, 50, 20]}])


def box_inverted(folder: Path) -> None:
    change_first(folder, "images", boxes=[{"class": "ant", "xyxy": [20, 5, 5, 20]}])


def box_nan(folder: Path) -> None:
    boxes = [{"class": "ant", "xyxy": [5, 5, 20, 20]}, {"class": "ant", "xyxy": [float("nan"), 5, 20, 20]}]
    change_first(folder, "images", boxes=boxes)


def other_size(folder: Path) -> None:
    change_first(folder, "images", width=47)


def change_first(folder: Path, part: str, **values: Any) -> None:
    file = folder / "annotations.json"
    annotations = json.loads(file.read_text())
    annotations[part][0].update(values)
    file.write_text(json.dumps(annotations))


def nan_audio(folder: Path) -> None:
    soundfile.write(folder / "audio/ant_train_0.wav", np.array([0.1, np.nan]), RATE, subtype="FLOAT")


PHOTO, SOUND = "images/ant_train_0.png", "audio/ant_train_0.wav"
DAMAGES = [
    (PHOTO, lambda folder: (folder / PHOTO).unlink(), "no such file"),
    (PHOTO, lambda folder: (folder / PHOTO).write_bytes(b""), "the file is empty"),
    (PHOTO, lambda folder: (folder / PHOTO).write_bytes(b"no picture"), "not a picture"),
    (PHOTO, box_outside, r"box \[5, 5, 50, 20\] is empty or outside the 48 x 40 px"),
    (PHOTO, box_inverted, r"box \[20, 5, 5, 20\] is empty or outside"),
    (PHOTO, box_nan, r"box \[nan, 5, 20, 20\] is empty or outside"),
    (PHOTO, other_size, "is 48 x 40 px, annotations.json says 47 x 40"),
    (SOUND, lambda folder: (folder / SOUND).unlink(), "no such file"),
    (SOUND, lambda folder: soundfile.write(folder / SOUND, np.zeros(0), RATE), "no audio samples"),
    (SOUND, lambda folder: soundfile.write(folder / SOUND, np.zeros(900), RATE), "silent from end to end"),
    (SOUND, nan_audio, "1 of 2 audio samples are NaN"),
]


@pytest.mark.parametrize(("file", "damage", "why"), DAMAGES)
def test_a_bad_file_is_an_error_or_is_skipped_and_named(tmp_path: Path, file: str, damage, why: str) -> None:
    folder = edited(tmp_path)
    damage(folder)
    with pytest.raises(MediaError, match=why) as caught:
        prepared(folder)
    assert caught.value.file == str(folder / file)
    source = prepared(folder, on_error="skip")
    assert source.skipped == [str(caught.value)]
    used: set[str] = set()
    for index in range(40):
        used |= source.sample("train", "arig", index).provenance["photos"].keys()
        used |= source.sample("train", "arig", index).provenance["recordings"].keys()
    assert file not in used
    assert file.replace("_0", "_1") in used  # the class is still there


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"classes": ["ant", "bee", "yak"]}, "class 'yak' has no photographs. With both: ant, bee"),
        ({"photos": ()}, "some of 2, 3 and 4 are needed"),
        ({"photos": (1, 2)}, r"photos is \[1, 2\]"),
        ({"seconds": 0.0}, "seconds 0"),
    ],
)
def test_wrong_options_are_named(folder: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(AvalignError, match=said):
        prepared(folder, **options)


def test_too_few_classes_wrong_splits_and_tasks_are_named(folder: Path, source: PairedFolder) -> None:
    with pytest.raises(AvalignError, match=r"2 classes \(ant, bee\); scenes of 3 need one more"):
        prepared(folder, classes=["ant", "bee"], photos=(2, 3)).sample("test", "arig", 0)
    with pytest.raises(AvalignError, match=r"no split 'tset'\. Did you mean 'test'"):
        source.sample("tset", "arig", 0)
    with pytest.raises(AvalignError, match="no task 'agir'"):
        source.sample("test", "agir", 0)


# -- the real folder -----------------------------------------------------------------------------------------


def real_folder() -> Path:
    return Path(os.environ.get("AVALIGN_DATA") or Path(__file__).parents[2] / "shared" / "data")


@pytest.mark.skipif(
    not any((real_folder() / f).is_file() for f in ("annotations.json", "avmini/annotations.json")),
    reason="needs the avmini folder of photographs and recordings: set AVALIGN_DATA to it",
)
def test_real_photographs_and_recordings_make_scenes() -> None:
    source = PairedFolder()
    source.prepare(str(real_folder()), seed=0, workers=2)
    assert source.skipped == []
    assert source.pool("test").classes == ["bird", "cat", "cow", "dog", "frog", "lion", "monkey", "sheep"]
    files = {}
    for split in SPLITS:
        pool = source.pool(split)
        groups = (pool.photos, pool.recordings, pool.strangers)
        files[split] = {x.file for group in groups for of in group.values() for x in of}
    assert sum(map(len, files.values())) == len(set().union(*files.values())) > 4000
    for task in TASKS:
        sample = source.sample("test", task, 1)
        assert sample.image.shape == (128, 128, 3)
        assert sample.audio.shape == (80_000,)
        for start, end in sample.intervals:
            outside = np.concatenate([sample.audio[: int(start * 16_000)], sample.audio[int(end * 16_000) :]])
            inside = sample.audio[int(start * 16_000) : int(end * 16_000)]
            if len(sample.provenance["recordings"]) == 1:
                assert inside.std() > 4 * outside.std()
