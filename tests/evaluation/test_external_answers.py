"""Heat maps, lengths of clips and units in predictions from a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avalign.data.manifest import Manifest
from avalign.data.manifest.record import Record, write
from avalign.errors import AvalignError
from avalign.evaluation.evaluate import evaluate
from avalign.evaluation.external import score
from tests.helpers.predictions import boxes, said, scored, value

# ---- heat maps ----


def test_heat_maps_are_scored_apart_from_boxes(tmp_path: Path) -> None:
    """The left half as a map is the truth; the right half is not; one is missing, one is a file."""
    records = boxes()
    left, right = [[1, 0], [1, 0]], [[0, 1], [0, 1]]
    (tmp_path / "p" / "maps").mkdir(parents=True)
    np.save(tmp_path / "p" / "maps" / "-x_2.npy", np.array(left, dtype=np.float16))
    lines = [
        said(records[0], "[0, 0, 1, 1]", heat_map=left),
        said(records[1], heat_map=right),
        said(records[2], heat_map="maps/-x_2.npy"),
        said(records[3]),
    ]
    scores = scored(tmp_path, records, lines)
    assert value(scores, "cIoU@0.5") == 1
    assert value(scores, "mean map cIoU") == 0.5
    assert value(scores, "map cIoU@0.5") == 0.5
    assert value(scores, "map AUC") == pytest.approx((1 + 0.025 + 1 + 0.025) / 4)
    assert scores["tasks"]["arig"]["maps"] == 3
    trivial = scores["tasks"]["arig"]["trivial"]
    assert (
        trivial["whole image"]["metrics"]["mean map cIoU"]["value"] == 0.5
    )  # everything, of which half is right
    assert 0.3 < trivial["centre box"]["metrics"]["mean map cIoU"]["value"] < 0.4  # half a disc of half: 1/3
    assert "3 of 4 answers; the others' count as 0" in (tmp_path / "out" / "scores.md").read_text()


def test_without_any_map_there_is_no_score_of_maps(tmp_path: Path) -> None:
    scores = scored(tmp_path, boxes(), [said(r) for r in boxes()])
    assert not any("map" in name for name in scores["tasks"]["arig"]["metrics"])


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("../secret.npy", "is not the path of a .npy file below the folder of maps"),
        ("/etc/passwd.npy", "is not the path of a .npy file"),
        ("maps/a.txt", "is not the path of a .npy file"),
        ("nowhere.npy", "is no .npy file that can be read"),
        ("pickled.npy", "is no .npy file that can be read"),
        ("empty.npy", "is no .npy file that can be read"),
        ("link.npy", "leads out of the folder of maps"),
        ("cube.npy", r"has the shape (2, 2, 2)"),
        ("words.npy", "not numbers"),
        ([[1, 2], [3]], "has rows of different lengths"),
        ([[1, float("nan")]], "NaN or infinite"),
        ([["a", "b"]], "not numbers"),
        ([], "has the shape (0,)"),
        ([1, 2], "has the shape (2,)"),
        ([[10**400, 1]], "not numbers"),
    ],
)
def test_a_map_that_cannot_be_used_is_named_and_counts_as_nothing(
    tmp_path: Path, given: Any, why: str
) -> None:
    maps = tmp_path / "p"
    maps.mkdir()
    np.save(tmp_path / "secret.npy", np.ones((2, 2)))
    (maps / "link.npy").symlink_to(tmp_path / "secret.npy")
    np.save(maps / "pickled.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (maps / "empty.npy").touch()
    np.save(maps / "cube.npy", np.ones((2, 2, 2)))
    np.save(maps / "words.npy", np.array([["a", "b"]]))
    records = boxes(2)
    lines = [said(records[0], heat_map=given), said(records[1], heat_map=[[1, 0], [1, 0]])]
    scores = scored(tmp_path, records, lines)
    found = scores["predictions"]["unusable heat map"]
    assert found["count"] == 1
    assert found["first"][0].startswith("vgg_ss/-x_0: heat map ")
    assert why in found["first"][0]
    assert value(scores, "mean map cIoU") == 0.5
    assert value(scores, "mean IoU") == 1


# ---- lengths of clips, units of boxes, answers that are not read ----


class Says:
    """A model that answers by the sample's id."""

    def __init__(self, answers: dict[str, str]) -> None:
        self.answers = answers

    def answer(self, samples: Any) -> list[str]:
        return [self.answers[sample.id] for sample in samples]


def test_a_runs_scores_are_those_of_its_answers_to_the_bit(tmp_path: Path) -> None:
    """Clips called 10 s that last otherwise; their lengths known by span, provenance, file or run."""
    import shutil

    import soundfile

    lengths = {"a": 10.0, "b": 10.031, "c": 9.97, "d": 10.002, "e": 7.3}
    rng = np.random.default_rng(0)
    records, answers = [], {}
    for name, seconds in lengths.items():
        soundfile.write(tmp_path / f"{name}.ogg", 0.1 * rng.standard_normal(round(16_000 * seconds)), 16_000)
        for way, more in (
            ("span", {"audio_start": 0.0, "audio_end": 10.0 if seconds > 9.9 else 7.0}),
            ("said", {"provenance": {"seconds": 10}}),
            ("file", {}),
        ):
            records.append(
                Record(
                    id=f"{name}/{way}", task="igatl", split="test", source="x",
                    response="[1.00, 2.00]", instruction="<audio>When?", audio=f"{name}.ogg",
                    intervals=((1.0, 2.0),), label="dog", **more,
                )
            )  # fmt: skip
            answers[records[-1].id] = f"from {rng.uniform(0, 2):.3f} s to {rng.uniform(8, 12):.3f} s"
    write(records, tmp_path / "m.jsonl")
    source = Manifest()
    source.prepare(str(tmp_path / "m.jsonl"), seed=0)
    own = evaluate(
        Says(answers), source, tasks=["igatl"], samples="all", batch_size=4, bootstrap=50, seed=3,
        modality_check=False, out=tmp_path / "run", figures=0,
    )  # fmt: skip
    for place in ("with media", "without"):
        folder = tmp_path / place
        folder.mkdir()
        shutil.copy(tmp_path / "m.jsonl", folder)
        if place == "with media":
            for name in lengths:
                shutil.copy(tmp_path / f"{name}.ogg", folder)
        found = score(
            folder / "m.jsonl", tmp_path / "run" / "igatl.jsonl", folder / "out", bootstrap=50, seed=3
        )
        assert found["tasks"] == own["tasks"]
    bare = tmp_path / "bare.jsonl"
    lines = [json.dumps({"id": name, "answer": answer}) for name, answer in answers.items()]
    bare.write_text("\n".join(lines))
    found = score(tmp_path / "m.jsonl", bare, tmp_path / "out", bootstrap=50, seed=3)
    assert found["tasks"] == own["tasks"]


@pytest.mark.parametrize(
    ("unit", "answer"),
    [("relative", "[0, 0, 0.5, 1]"), ("percent", "[0, 0, 50, 100]"), ("thousandths", "[0, 0, 500, 1000]"),
     ("pixels", "[0, 0, 320, 480]"), ("relative", "[0, 0, 320, 480] in pixels"),
     ("pixels", "[0, 0, 500, 1000] out of 1000")],
)  # fmt: skip
def test_boxes_in_the_unit_that_is_told(tmp_path: Path, unit: str, answer: str) -> None:
    records = boxes(2, provenance={"image_size": [640, 480]})
    scores = scored(tmp_path, records, [said(r, answer) for r in records], box_unit=unit)
    assert value(scores, "mean IoU") == 1


def test_pixels_need_a_size_by_the_image_or_the_record(tmp_path: Path) -> None:
    from PIL import Image

    with pytest.raises(AvalignError, match=r"record 'vgg_ss/-x_0' has no image_size .* no such file"):
        scored(tmp_path, boxes(1), [said(boxes(1)[0], "[0, 0, 320, 480]")], box_unit="pixels")
    Image.new("RGB", (640, 480)).save(tmp_path / "0.jpg")
    scores = scored(tmp_path, boxes(1), [said(boxes(1)[0], "[0, 0, 320, 480]")], box_unit="pixels")
    assert value(scores, "mean IoU") == 1
    with pytest.raises(AvalignError, match=r"--box-unit: no unit 'pixel'. Did you mean 'pixels'"):
        scored(tmp_path, boxes(1), [said(boxes(1)[0])], box_unit="pixel")


def test_answers_that_cannot_be_read_are_counted_and_shown(tmp_path: Path) -> None:
    records = boxes(4)
    lines = [said(records[0]), *(said(r, "somewhere <b>there</b> | or not") for r in records[1:])]
    scores = scored(tmp_path, records, lines)
    assert scores["tasks"]["arig"]["unparsed"]["count"] == 3
    assert scores["tasks"]["arig"]["unparsed"]["first"] == ["somewhere <b>there</b> | or not"] * 3
    for name in ("scores.md", "report.html"):
        assert "3 of 4 answers could not be read" in (tmp_path / "out" / name).read_text(encoding="utf-8")
    assert "<b>there" not in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
