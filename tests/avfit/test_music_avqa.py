"""MUSIC-AVQA: templates are filled as published, and no answer is taken where the records contradict."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from avalign.avfit.datasets.music_avqa import MusicAvqa
from avalign.errors import AvalignError
from tests.helpers.avfit.excerpts import excerpt, reasons, record_counts

GOOD = {
    "video_id": "00000028",
    "question_id": 7,
    "type": '["Audio-Visual", "Counting"]',
    "question_content": "Is the <Object> on the <LR> louder than the <Object>?",
    "templ_values": '["acoustic_guitar", "left", "piano"]',
    "question_deleted": 0,
    "anser": "electric_bass",
}


@pytest.fixture
def published(tmp_path: Path) -> Path:
    for version in ("json", "json_update"):
        (tmp_path / version).mkdir()
        for split in ("val", "test"):
            shutil.copy(excerpt(f"music-avqa/{version}/avqa-{split}.json"), tmp_path / version)
    for name in ("avqa-train_fake.json", "avqa-val.duplicate-ids.json"):
        shutil.copy(excerpt(f"music-avqa/json/{name}"), tmp_path / "json")
    return tmp_path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "json_update").mkdir()
    write(tmp_path, GOOD)
    return tmp_path


def readings(folder: Path, *splits: str, **options: Any) -> list[Any]:
    return list(MusicAvqa(splits=splits or ("val",), **options).read(folder))


@pytest.mark.parametrize(
    ("version", "split", "options", "counts", "problems"),
    [
        ("json_update", "val", {}, (300, 0), {}),
        ("json_update", "test", {}, (300, 0), {}),
        ("json", "val", {}, (298, 2), {"contradictory records of one question": 2}),
        ("json", "test", {}, (294, 6), {"contradictory records of one question": 6}),
        ("json", "train", {"train": "avqa-train_fake.json"}, (0, 300), {"synthetic video": 300}),
        ("json", "train", {"train": "avqa-train_fake.json", "videos": "synthetic"}, (300, 0), {}),
        ("json", "train", {"train": "avqa-train_fake.json", "videos": "all"}, (300, 0), {}),
        (
            *("json", "train", {"train": "avqa-val.duplicate-ids.json", "videos": "all"}, (0, 54)),
            {"contradictory records of one question": 54},
        ),
    ],
)
def test_questions_in_are_questions_used_and_refused(
    published: Path,
    version: str,
    split: str,
    options: dict[str, str],
    counts: tuple[int, int],
    problems: dict[str, int],
) -> None:
    read = readings(published, split, version=version, **options)
    assert record_counts(read) == counts
    assert reasons(read) == problems
    items = json.loads((published / version / options.get("train", f"avqa-{split}.json")).read_text())
    assert [r.item for r in read] == [str(item["question_id"]) for item in items]
    for reading, item in zip(read, items, strict=True):
        for made in reading.made:
            text = item["question_content"]
            for value in json.loads(item["templ_values"]):
                start, end = text.index("<"), text.index(">")
                text = text[:start] + value.replace("_", " ") + text[end + 1 :]
            assert made.instruction == "<image><audio>" + " ".join(text.split())
            assert made.response == item["anser"].replace("_", " ")
            assert made.kind.split(" ") == json.loads(item["type"])
            assert made.image == made.audio == f"videos/{item['video_id']}.mp4"
            assert (made.split, made.frame_times) == (split, (30.0,))


def test_the_update_keeps_of_the_contradictory_questions_one_answer_each(published: Path) -> None:
    """Which is why it is the default: the questions that json must refuse are there, once."""
    for split in ("val", "test"):
        refused = {r.item for r in readings(published, split, version="json") if not r.made}
        used = [r.item for r in readings(published, split) if r.made]
        assert refused
        assert all(used.count(item) <= 1 for item in refused)
        assert any(item in used for item in refused)


def test_words_are_filled_in_their_order_without_underscores(folder: Path) -> None:
    (made,) = readings(folder, seconds=10.0, frames=2)[0].made
    assert made.instruction == "<image><audio>Is the acoustic guitar on the left louder than the piano?"
    assert (made.response, made.kind) == ("electric bass", "Audio-Visual Counting")
    assert made.frame_times == (2.5, 7.5)
    assert made.provenance == {"origins": ["music_avqa:00000028"], "seconds": 10.0}


def test_equal_records_of_one_question_count_once_and_others_not_at_all(folder: Path) -> None:
    write(folder, GOOD, GOOD)
    assert [bool(r.made) for r in readings(folder)] == [True, False]
    assert reasons(readings(folder)) == {"repeated question": 1}
    write(folder, GOOD, GOOD, GOOD | {"anser": "piano"}, GOOD | {"question_id": 8})
    assert [bool(r.made) for r in readings(folder)] == [False, False, False, True]
    assert reasons(readings(folder)) == {"contradictory records of one question": 3}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"templ_values": '["piano"]'}, "slots that cannot be filled"),
        ({"templ_values": '["a", "b", "c", "d"]'}, "slots that cannot be filled"),
        ({"templ_values": '["a", "b", " "]'}, "slots that cannot be filled"),
        ({"templ_values": '["a", "b", 3]'}, "slots that cannot be filled"),
        ({"templ_values": '["a", "b", '}, "slots that cannot be filled"),
        ({"templ_values": "[" * 100_000}, "slots that cannot be filled"),
        ({"templ_values": '["a", "b", "<audio>"]'}, "unsafe name or question"),
        ({"anser": "half a pair: \ud83d"}, "unsafe name or question"),
        ({"video_id": "sa\n1", "type": "[]"}, "synthetic video"),
        ({"type": "Counting"}, "no answer, modality or kind of question"),
        ({"type": '["Counting"]'}, "no answer, modality or kind of question"),
        ({"anser": " "}, "no answer, modality or kind of question"),
        ({"anser": 2}, "record without a field"),
        ({"video_id": 28}, "record without a field"),
        ({"question_id": None}, "record without a field"),
        ({"question_deleted": 1}, "question that its authors deleted"),
        ({"video_id": "sa00005991"}, "synthetic video"),
    ],
)
def test_a_record_that_cannot_be_used_is_refused_by_name(
    folder: Path, change: dict[str, Any], reason: str
) -> None:
    write(folder, GOOD | change, GOOD | {"question_id": 8})
    read = readings(folder)
    assert record_counts(read) == (1, 1)
    assert reasons(read) == {reason: 1}
    assert read[0].where == "json_update/avqa-val.json, record 1"
    assert len(read[0].problems[0].detail) <= 120


def test_names_that_lead_elsewhere_and_what_is_no_record(folder: Path) -> None:
    write(folder, GOOD | {"video_id": "../up"}, "text", None)
    read = readings(folder, videos="all")
    assert reasons(read) == {"unsafe name or question": 1, "record without a field": 2}
    assert reasons(readings(folder, videos="synthetic"))["record without a field"] == 2


def test_real_videos_can_be_left_out(folder: Path) -> None:
    assert reasons(readings(folder, videos="synthetic")) == {"real video": 1}


def test_a_file_or_split_that_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(AvalignError, match=r"avqa-test\.json"):
        readings(folder, "test")
    with pytest.raises(AvalignError, match="Did you mean 'train'"):
        MusicAvqa(splits=("trian",))
    (folder / "json_update" / "avqa-val.json").write_bytes(b'[{"video')
    with pytest.raises(AvalignError, match=r"avqa-val\.json.*JSON"):
        readings(folder)


def write(folder: Path, *items: Any) -> None:
    (folder / "json_update" / "avqa-val.json").write_text(json.dumps(items))
