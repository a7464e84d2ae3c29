"""ESC-50: its table as published; folds are splits, and takes of one Freesound file share their origin."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from avalign.avfit.datasets.esc50 import Esc50
from avalign.errors import AvalignError
from tests.helpers.avfit.excerpts import reasons, record_counts
from tests.helpers.avfit.layouts import lay_out

HEADER = "filename,fold,target,category,esc10,src_file,take\n"
GOOD = "1-100032-A-0.wav,1,0,dog,True,100032,A\n"


def readings(folder: Path, **options: Any) -> list[Any]:
    return list(Esc50(**options).read(folder))


def test_the_whole_table(tmp_path: Path) -> None:
    """2,000 sounds, as many of each class in each fold; two takes of each Freesound file."""
    rows = []
    for fold, target, number in itertools.product(range(1, 6), range(50), range(8)):
        source, take = 1000 * fold + 10 * target + number // 2, "AB"[number % 2]
        name, category = f"{fold}-{source}-{take}-{target}.wav", f"class_{target}"
        rows.append(f"{name},{fold},{target},{category},{target < 10},{source},{take}\n")
    read = readings(lay_out("esc50", tmp_path, esc50=HEADER + "".join(rows)))
    assert record_counts(read) == (2000, 0)
    made = [r.made[0] for r in read]
    assert [sum(m.split == split for m in made) for split in ("train", "val", "test")] == [1200, 400, 400]
    assert all(
        m.split == {"1": "train", "2": "train", "3": "train", "4": "val", "5": "test"}[r.item[0]]
        for m, r in zip(made, read, strict=True)
    )
    assert made[0].file == "audio/1-1000-A-0.wav"
    assert made[0].origin == made[1].origin == "esc50:1000"
    assert len({m.id for m in made}) == 2000
    assert [(e.name, e.interval, e.mid) for e in made[-1].events] == [("class_49", None, "")]
    by_origin = {m.origin: {n.split for n in made if n.origin == m.origin} for m in made[::50]}
    assert all(len(splits) == 1 for splits in by_origin.values()), "no fold leaks into another"


def test_folds_and_files_by_option(tmp_path: Path) -> None:
    lay_out("esc50", tmp_path)
    read = readings(tmp_path, folds={5: "train", 1: "test"}, audio="wav/{file}")
    assert [(r.made[0].split, r.made[0].file) for r in read if r.made] == [
        *(("test", "wav/1-100032-A-0.wav"), ("test", "wav/1-100038-A-14.wav")),
        ("train", "wav/5-9032-A-0.wav"),
    ]
    assert reasons(read) == {"fold not asked for": 1}
    with pytest.raises(AvalignError, match=r"esc50: folds: no split 6 was published.*1, 2, 3, 4, 5"):
        Esc50(folds={6: "train"})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("a.wav,1,0,dog,True,7\n", "row without file, fold, category or src_file"),
        ("a.wav,1,0,,True,7,A\n", "row without file, fold, category or src_file"),
        ("a.wav,1,0,dog,True,,A\n", "row without file, fold, category or src_file"),
        ("a.wav,6,0,dog,True,7,A\n", "unknown fold"),
        ("a.wav,\u0661,0,dog,True,7,A\n", "unknown fold"),
        ("../a.wav,1,0,dog,True,7,A\n", "unsafe name"),
        (GOOD, "repeated sound"),
    ],
)
def test_a_row_that_cannot_be_used_is_refused_by_name(tmp_path: Path, row: str, reason: str) -> None:
    read = readings(lay_out("esc50", tmp_path, esc50=HEADER + GOOD + row))
    assert record_counts(read) == (1, 1)
    assert reasons(read) == {reason: 1}
    assert read[1].where == "esc50.csv:3"


def test_a_table_of_other_columns_is_named(tmp_path: Path) -> None:
    lay_out("esc50", tmp_path, esc50=HEADER.replace("src_file", "source") + GOOD)
    with pytest.raises(AvalignError, match=r"esc50.csv: has no column src_file"):
        readings(tmp_path)
