"""Which photographs and recordings of a folder are used, how, and what is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from avalign.answers import read_boxes
from avalign.data.paired_folder import PairedFolder
from avalign.errors import AvalignError
from avalign.media.file import MediaError
from avalign.types import TASKS
from tests.helpers.paired_folder import LOOKS, RATE, SPLITS, coloured, edited, prepared, tone, write_photo
from tests.helpers.real_data import REAL_DATA

# -- sounds --------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_on_stored_pixels_are_turned_with_their_photograph(tmp_path: Path, orientation: int) -> None:
    folder = edited(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for entry in json.loads((folder / "annotations.json").read_text())["images"]:
        stored = Image.open(folder / entry["file"])
        stored.load()
        stored.save(folder / entry["file"], exif=exif)
    photos = prepared(folder).pool("test").photos
    for name, photo in ((name, photo) for name, several in photos.items() for photo in several):
        height, width, _ = photo.pixels.shape
        rows, columns = np.nonzero(coloured(photo.pixels, name))
        found = (columns.min() / width, rows.min() / height)
        found += ((columns.max() + 1) / width, (rows.max() + 1) / height)
        np.testing.assert_allclose(photo.boxes[0], found, atol=1.1 / 40)


def test_boxes_on_pixels_as_seen_stay_where_the_size_says_so(tmp_path: Path) -> None:
    folder = edited(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    for entry in json.loads((folder / "annotations.json").read_text())["images"]:
        seen = Image.open(folder / entry["file"])
        seen.transpose(Image.Transpose.ROTATE_90).save(folder / entry["file"], exif=exif)
    photo = prepared(folder).pool("test").photos["ant"][0]
    rows, columns = np.nonzero(coloured(photo.pixels, "ant"))
    found = (columns.min() / 48, rows.min() / 40, (columns.max() + 1) / 48, (rows.max() + 1) / 40)
    np.testing.assert_allclose(photo.boxes[0], found, atol=1.1 / 40)


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
    (PHOTO, lambda folder: (folder / PHOTO).write_bytes(b"no picture"), "not an image"),
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


@pytest.mark.skipif(
    not any((REAL_DATA / f).is_file() for f in ("annotations.json", "avmini/annotations.json")),
    reason="needs the avmini folder of photographs and recordings: set AVALIGN_DATA to it",
)
def test_real_photographs_and_recordings_make_scenes() -> None:
    source = PairedFolder()
    source.prepare(str(REAL_DATA), seed=0, workers=2)
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
