"""AVQA: the choice that is right is the answer, and the clip is the one that the map knows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from avalign.avfit.datasets.avqa import Avqa
from avalign.errors import AvalignError
from tests.helpers.avfit.excerpts import excerpt, reasons, record_counts

GOOD = {
    "id": 7,
    "video_name": "-x_cdefghij_000030",
    "video_id": 3,
    "question_text": "What sounds?",
    "multi_choice": ["dog", "a cat", "rain", "bell"],
    "answer": 2,
    "question_relation": "Sound",
    "question_type": "Which",
}


@pytest.fixture
def published(tmp_path: Path) -> Path:
    shutil.copy(excerpt("avqa/video_map.json"), tmp_path)
    shutil.copy(excerpt("avqa/train_qa.one-record.json"), tmp_path / "train_qa.json")
    shutil.copy(excerpt("avqa/train_qa.one-record.json"), tmp_path / "val_qa.json")
    return tmp_path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, GOOD)
    return tmp_path


def readings(folder: Path, **options: Any) -> list[Any]:
    return list(Avqa(**options).read(folder))


def test_the_published_record(published: Path) -> None:
    read = readings(published)
    assert record_counts(read) == (2, 0)
    train, test = (r.made[0] for r in read)
    assert train.instruction == (
        "<image><audio>What happened in the video? "
        "Choose one: motorboat; Yacht consignment; Sailboat set sail; Consignment car."
    )
    assert (train.response, train.kind) == ("Yacht consignment", "Happening")
    assert train.image == train.audio == "videos/-HG3Omg_89c_000030.mp4"
    assert train.frame_times == (5.0,)
    assert train.provenance["origins"] == ["-HG3Omg_89c"]
    assert (train.split, test.split) == ("train", "test")
    assert train.id != test.id


def test_every_name_of_the_published_map_has_its_video(published: Path) -> None:
    videos = json.loads((published / "video_map.json").read_text())
    items = [GOOD | {"id": n, "video_name": clip, "video_id": n} for clip, n in videos.items()]
    (published / "train_qa.json").write_text(json.dumps(items))
    read = readings(published)
    assert record_counts(read) == (len(videos) + 1, 0)
    for reading, clip in zip(read, videos, strict=False):
        assert reading.made[0].provenance["origins"] == [clip[:11]]
        assert reading.made[0].image == f"videos/{clip}.mp4"


def test_what_the_options_choose(folder: Path) -> None:
    (made,) = readings(folder, choices=False, kind="both", val_as="val", frames=2)[0].made
    assert made.instruction == "<image><audio>What sounds?"
    assert (made.kind, made.split, made.frame_times) == ("Sound Which", "val", (2.5, 7.5))
    assert readings(folder, kind="relation")[0].made[0].kind == "Sound"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"answer": 4}, "answer is none of the choices"),
        ({"answer": -1}, "answer is none of the choices"),
        ({"answer": True}, "record without a field"),
        ({"answer": "2"}, "record without a field"),
        ({"id": None}, "record without a field"),
        ({"question_type": None}, "record without a field"),
        ({"multi_choice": ["dog", "dog", "cat"]}, "choices that are no different texts"),
        ({"multi_choice": ["dog", " ", "cat"]}, "choices that are no different texts"),
        ({"multi_choice": ["dog", 3, "cat"]}, "choices that are no different texts"),
        ({"multi_choice": ["dog"], "answer": 0}, "choices that are no different texts"),
        ({"video_name": "../../etc/passwd"}, "unsafe name or question"),
        ({"question_text": "What is <audio>?"}, "unsafe name or question"),
        ({"multi_choice": ["<IMAGE>", "dog", "cat"]}, "unsafe name or question"),
        ({"question_text": "half a pair: \ud83d"}, "unsafe name or question"),
        ({"video_name": "half_\ud83d_000030"}, "unsafe name or question"),
        ({"question_type": "\ud83d"}, "unsafe name or question"),
    ],
)
def test_a_record_that_cannot_be_used_is_refused_by_name(
    folder: Path, change: dict[str, Any], reason: str
) -> None:
    write(folder, GOOD | change, GOOD | {"id": 8})
    read = readings(folder)
    assert record_counts(read) == (1, 1)
    assert reasons(read) == {reason: 1}
    assert read[0].where == "val_qa.json, record 1"


def test_a_question_without_words_is_refused_when_it_is_all_there_is(folder: Path) -> None:
    write(folder, GOOD | {"question_text": " "}, "text")
    assert reasons(readings(folder, choices=False)) == {"unsafe name or question": 1, "no object": 1}


def test_a_map_that_disagrees_refuses_the_record(folder: Path) -> None:
    (folder / "video_map.json").write_text(json.dumps({GOOD["video_name"]: 4}))
    assert reasons(readings(folder)) == {"video_id is not that of video_map.json": 1}
    (folder / "video_map.json").write_text(json.dumps({"other_000001": 3}))
    assert reasons(readings(folder)) == {"clip is not in video_map.json": 1}


def test_a_repeated_id_counts_once(folder: Path) -> None:
    write(folder, GOOD, GOOD)
    assert reasons(readings(folder)) == {"repeated question id": 1}


@pytest.mark.parametrize("name", ["train_qa.json", "val_qa.json", "video_map.json"])
@pytest.mark.parametrize("content", [b'[{"id', b"\xff\xfe", b"3"])
def test_a_file_that_cannot_be_read_is_named(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(AvalignError, match=name):
        readings(folder)


def write(folder: Path, *items: Any) -> None:
    (folder / "train_qa.json").write_text("[]")
    (folder / "val_qa.json").write_text(json.dumps(items))
