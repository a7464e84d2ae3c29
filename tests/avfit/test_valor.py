"""VALOR-32K: both described layouts give the same records, one a clip with all its captions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from avalign.avfit.datasets.valor import Valor
from avalign.errors import AvalignError
from tests.helpers.avfit.excerpts import reasons, record_counts

CLIP = "-x_cdefghij_30.000_40.000"
CAPTIONS = {
    "train": {CLIP: ["A dog  barks.", "A black dog barks at a ball."], "b_0.000_10.000": ["Rain falls."]},
    "val": {"c_cdefghijk_0_10": ["Someone sings."]},
    "test": {"d_cdefghijk_0_10": ["A bell rings.", "A bell rings."]},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, CAPTIONS)
    return tmp_path


def readings(folder: Path, **options: Any) -> list[Any]:
    return list(Valor(**options).read(folder))


def test_one_record_a_clip_with_all_its_captions(folder: Path) -> None:
    read = readings(folder)
    assert record_counts(read) == (4, 0)
    first, _, third, fourth = (r.made[0] for r in read)
    assert (first.split, third.split, fourth.split) == ("train", "val", "test")
    assert (first.response, first.references) == ("A dog barks.", ("A black dog barks at a ball.",))
    assert (fourth.response, fourth.references) == ("A bell rings.", ())
    assert (first.image, first.audio, first.frame_times) == (
        *(f"videos/{CLIP}.mp4", f"videos/{CLIP}.mp4", (5.0,)),
    )
    assert [m.made[0].provenance["origins"] for m in read] == [
        *(["-x_cdefghij"], ["b_0.000_10.000"], ["c_cdefghijk"], ["d_cdefghijk"]),
    ]


def test_the_two_layouts_say_the_same(folder: Path) -> None:
    made = [[r.made for r in readings(folder, layout=layout)] for layout in ("desc", "mapper")]
    assert made[0] == made[1]
    (folder / "txt_mapper_en.json").rename(folder / "txt_mapper.json")
    assert [r.made for r in readings(folder, layout="mapper")] == made[0]


@pytest.mark.parametrize(
    ("captions", "used", "problems"),
    [
        ([" ", "A dog."], 1, {"caption without words": 1}),
        (["..."], 0, {"caption without words": 1}),
        ([None], 0, {"caption without words": 1}),
        (["half a pair: \ud83d", "A dog."], 1, {"caption without words": 1}),
        ([], 0, {"no caption": 1}),
        ("A dog.", 1, {}),
    ],
)
def test_captions_without_words_are_told(
    folder: Path, captions: Any, used: int, problems: dict[str, int]
) -> None:
    write(folder, {"train": {}, "val": {}, "test": {"a": captions}})
    read = readings(folder, layout="mapper")
    assert (record_counts(read), reasons(read)) == ((used, 1 - used), problems)
    if captions not in ([], "A dog."):  # which desc files cannot say
        read = readings(folder)
        assert (record_counts(read), reasons(read)) == ((used, 1 - used), problems)


def test_records_that_cannot_be_used_are_refused_by_name(folder: Path) -> None:
    bad = ["text", {"desc": "x"}, {"video_id": 3, "desc": "x"}, {"video_id": "../up", "desc": "A dog."}]
    (folder / "desc_val.json").write_text(json.dumps([*bad, {"video_id": CLIP, "desc": "Again."}]))
    read = readings(folder)
    assert record_counts(read) == (3, 5)
    assert reasons(read) == {"no video_id": 3, "unsafe name": 1, "repeated clip": 1}
    assert next(r.where for r in read if not r.made) == "desc_val.json, record 1"


def test_lists_and_mapper_that_disagree_are_told(folder: Path) -> None:
    (folder / "val_id.json").write_text(json.dumps(["lacking", 3]))
    read = readings(folder, layout="mapper")
    assert record_counts(read) == (3, 3)
    assert reasons(read) == {"no caption": 1, "no video_id": 1, "captions of a clip in no list": 1}
    assert read[-1].item == "c_cdefghijk_0_10"


@pytest.mark.parametrize("content", [None, b'[{"video_id', b"\xff", b"{}", b"[" * 100_000])
def test_a_file_that_cannot_be_read_is_named(folder: Path, content: bytes | None) -> None:
    for name in ("desc_test.json", "test_id.json"):
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_bytes(content)
    with pytest.raises(AvalignError, match=r"desc_test\.json"):
        readings(folder)
    with pytest.raises(AvalignError, match=r"test_id\.json"):
        readings(folder, layout="mapper")
    (folder / "txt_mapper_en.json").unlink()
    with pytest.raises(AvalignError, match=r"neither txt_mapper_en\.json nor txt_mapper\.json"):
        readings(folder, layout="mapper")


def write(folder: Path, captions: dict[str, dict[str, Any]]) -> None:
    """Both layouts, as described."""
    for split, said in captions.items():
        items = [{"video_id": clip, "desc": text} for clip, texts in said.items() for text in texts]
        (folder / f"desc_{split}.json").write_text(json.dumps(items))
        (folder / f"{split}_id.json").write_text(json.dumps(list(said)))
    mapper = {clip: texts for said in captions.values() for clip, texts in said.items()}
    (folder / "txt_mapper_en.json").write_text(json.dumps(mapper))
