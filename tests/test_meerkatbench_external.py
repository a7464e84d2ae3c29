"""Scores of predictions from a file: joined by id, every mismatch named, and equal to a model's own path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from avalign.batch import TASKS
from avalign.cli import app
from avalign.data.manifest import Manifest
from avalign.data.manifest.record import Record, write
from avalign.errors import AvalignError
from avalign.meerkatbench.evaluate import evaluate
from avalign.meerkatbench.external import score
from tests.test_manifest import write_manifest

WHOLE, LEFT = (0.0, 0.0, 1.0, 1.0), (0.0, 0.0, 0.5, 1.0)


def boxes(count: int = 4, **changes: Any) -> list[Record]:
    """ARIG records whose truth is the left half; no media exist."""
    return [
        Record(
            id=f"vgg_ss/-x_{k}", task="arig", split="test", source="vgg_ss", response="[dog, 0, 0, 0.5, 1]",
            image=f"{k}.jpg", audio=f"{k}.wav", boxes=(LEFT,), label="dog", **changes,
        )
        for k in range(count)
    ]  # fmt: skip


def scored(folder: Path, records: list[Record], lines: list[Any], **options: Any) -> dict[str, Any]:
    """lines: predictions as objects, or as they stand in the file"""
    folder.mkdir(exist_ok=True)
    write(records, folder / "m.jsonl")
    text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / "p").mkdir(exist_ok=True)
    (folder / "p" / "said.jsonl").write_text("\n".join(text) + "\n")
    options = {"bootstrap": 0} | options
    return score(folder / "m.jsonl", folder / "p" / "said.jsonl", folder / "out", **options)


def said(record: Record, answer: str = "[dog, 0, 0, 0.5, 1]", **more: Any) -> dict[str, Any]:
    return {"id": record.id, "answer": answer} | more


def value(scores: dict[str, Any], metric: str, task: str = "arig") -> float | None:
    found = scores["tasks"][task]["metrics"][metric]["value"]
    return None if found is None else float(found)


# ---- joining ----


def test_answers_are_joined_by_id_in_any_order(tmp_path: Path) -> None:
    records = boxes()
    lines = [said(r) for r in reversed(records)]
    lines[0]["answer"] = "[cat, 0, 0, 1, 1]"  # of the last record
    scores = scored(tmp_path, records, lines)
    assert value(scores, "mean IoU") == 0.875
    assert value(scores, "class accuracy") == 0.75
    rows = [json.loads(line) for line in (tmp_path / "out" / "arig.jsonl").read_text().splitlines()]
    assert [row["values"]["IoU"] for row in rows] == [1, 1, 1, 0.5]
    assert scores["predictions"]["missing"] == {"count": 0, "first": []}


def test_what_does_not_match_is_counted_and_named(tmp_path: Path) -> None:
    records = [*boxes(), Record(id="other", task="avfc", split="val", source="x", response="True")]
    lines = [
        said(records[0]),
        said(records[0], "[0, 0, 0.1, 0.1]"),
        {"id": "vgg_ss/nobody", "answer": "x"},
        said(records[4], "True"),
        '{"id": "vgg_ss/-x_1", "answer": ',
        '["vgg_ss/-x_1"]',
        {"id": "vgg_ss/-x_1"},
        {"id": "vgg_ss/-x_2", "answer": None},
        {"id": "vgg_ss/-x_2", "anser": "x", "answer": "x"},
        "[" * 100_000,
    ]
    scores = scored(tmp_path, records, lines)
    joined = scores["predictions"]
    assert value(scores, "mean IoU") == 0.25  # the first line of the one answered; three missing are wrong
    assert scores["tasks"]["arig"]["parse_failures"] == 0.75
    assert (joined["lines"], joined["records"]) == (10, 4)
    assert joined["missing"] == {"count": 3, "first": [f"vgg_ss/-x_{k}" for k in (1, 2, 3)]}
    assert joined["unknown"]["first"] == ["vgg_ss/nobody", "other (a record of split val, task avfc)"]
    assert joined["repeated"] == {"count": 1, "first": ["said.jsonl:2: vgg_ss/-x_0"]}
    why = joined["unreadable"]["first"]
    assert [line.split(": ", 1)[0] for line in why] == [f"said.jsonl:{n}" for n in range(5, 11)]
    for line, part in zip(
        why,
        (
            "is not JSON",
            "but a list",
            "answer is null",
            "answer is null",
            "no field 'anser'. Did you mean",
            "",
        ),
        strict=True,
    ):
        assert part in line
        assert "\n" not in line
    all_of_them = [
        json.loads(line) for line in (tmp_path / "out" / "unmatched.jsonl").read_text().splitlines()
    ]
    assert [row["problem"] for row in all_of_them].count("missing") == 3
    assert len(all_of_them) == 3 + 2 + 1 + 6
    for name in ("scores.md", "report.html"):
        text = (tmp_path / "out" / name).read_text()
        assert "1 of 4 records were answered" in text
        assert "the 3 others count as wrong and unparsed" in text
        assert "said.jsonl:2: vgg_ss/-x_0" in text


def test_a_part_alone_is_scored_on_request_and_says_so(tmp_path: Path) -> None:
    records = boxes()
    lines = [said(r) for r in records[1:3]]
    whole = scored(tmp_path / "whole", records, lines)
    part = scored(tmp_path / "part", records, lines, allow_partial=True)
    assert (value(whole, "mean IoU"), value(part, "mean IoU")) == (0.5, 1)
    assert [s["tasks"]["arig"]["n"] for s in (whole, part)] == [4, 2]
    assert whole["tasks"]["arig"]["test_list"] != part["tasks"]["arig"]["test_list"]
    assert "ONLY THESE ARE SCORED" in (tmp_path / "part" / "out" / "scores.md").read_text()
    assert "ONLY THESE ARE SCORED" in (tmp_path / "part" / "out" / "report.html").read_text()
    assert "ONLY" not in (tmp_path / "whole" / "out" / "scores.md").read_text()


@pytest.mark.parametrize(
    ("lines", "options", "why"),
    [
        (["{}"], {}, r"said.jsonl: holds no prediction: said.jsonl:1: id is null"),
        ([], {}, "said.jsonl: holds no prediction"),
        ([{"id": "a", "answer": "x"}], {}, r"none of its 1 ids, such as 'a', .* such as 'vgg_ss/-x_0'"),
        ([{"id": "a", "answer": "x"}], {"tasks": ["arigg"]}, r"no task 'arigg'. Did you mean 'arig'"),
        ([{"id": "a", "answer": "x"}], {"tasks": ["avqa"]}, "has no record of avqa. It has: arig"),
        ([{"id": "a", "answer": "x"}], {"split": "val"}, "split 'val' has no record of any task"),
    ],
)
def test_what_cannot_be_scored_is_one_line(tmp_path: Path, lines: Any, options: Any, why: str) -> None:
    with pytest.raises(AvalignError, match=why) as caught:
        scored(tmp_path, boxes(), lines, **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_predictions_that_are_no_file_or_no_text(tmp_path: Path) -> None:
    write(boxes(1), tmp_path / "m.jsonl")
    with pytest.raises(AvalignError, match=r"nowhere.jsonl: cannot be read: No such file"):
        score(tmp_path / "m.jsonl", tmp_path / "nowhere.jsonl", tmp_path / "out")
    (tmp_path / "p.jsonl").write_bytes(b'{"id": "a", "answer": "\xff"}\n')
    with pytest.raises(AvalignError, match="is not UTF-8 text: byte 23"):
        score(tmp_path / "m.jsonl", tmp_path / "p.jsonl", tmp_path / "out")


def test_the_command(tmp_path: Path) -> None:
    scored(tmp_path, boxes(), [said(r) for r in boxes()])
    files = [str(tmp_path / "m.jsonl"), str(tmp_path / "p" / "said.jsonl"), "--out", str(tmp_path / "again")]
    done = CliRunner().invoke(app, ["score", *files, "--bootstrap", "20", "--tasks", "arig"])
    assert done.exit_code == 0, done.output
    assert "| arig | mean IoU | 1.000 [1.000, 1.000] |" in done.output
    assert (tmp_path / "again" / "report.html").is_file()
    wrong = CliRunner().invoke(app, ["score", *files, "--split", "tset"])
    assert wrong.exit_code == 2
    assert "no split is named 'tset'" in wrong.output


# ---- the same as a model's own path ----


def test_predictions_score_as_the_model_that_made_them(tmp_path: Path) -> None:
    """A model answers over media; its answers, taken from what was written, score the same without media."""

    class Mixed:
        def answer(self, samples: Any) -> list[str]:
            return [s.response if int(s.id.rpartition("-")[2]) % 3 else "[0.1, 0.2]" for s in samples]

        def answer_with_maps(self, samples: Any) -> Any:
            return [(text, np.eye(3)) for text in self.answer(samples)]

    folder = write_manifest(tmp_path / "manifest")
    source = Manifest()
    source.prepare(str(folder), seed=0)
    own = evaluate(
        Mixed(), source, tasks=TASKS, samples="all", batch_size=3, bootstrap=30, seed=0,
        modality_check=False, out=tmp_path / "own",
    )  # fmt: skip
    rows = [
        json.loads(line)
        for task in TASKS
        for line in (tmp_path / "own" / f"{task}.jsonl").read_text().splitlines()
    ]
    lines = [
        {"id": r["id"], "answer": r["answer"]}
        | ({"heat_map": np.eye(3).tolist()} if "arig" in r["id"] else {})
        for r in rows
    ]
    (tmp_path / "said.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "bare").mkdir()
    (folder / "made.jsonl").rename(tmp_path / "bare" / "made.jsonl")  # away from its media
    given = score(tmp_path / "bare" / "made.jsonl", tmp_path / "said.jsonl", tmp_path / "out", bootstrap=30)
    assert own["tasks"].keys() == given["tasks"].keys() == set(TASKS)
    assert own["tasks"]["igatl"]["n"] == 8
    assert own["tasks"]["arig"]["maps"] == 8
    assert given["tasks"] == own["tasks"]


# ---- clips' lengths ----


def clip(name: str, **changes: Any) -> Record:
    return Record(
        id=name, task="igatl", split="test", source="x", response="[1, 3]", audio="a.wav",
        intervals=((1.0, 3.0),),
        label="dog", **changes,
    )  # fmt: skip


def test_a_clip_is_as_long_as_its_span_its_provenance_its_file_or_ten_seconds(tmp_path: Path) -> None:
    import soundfile

    soundfile.write(tmp_path / "b.wav", np.zeros(16_000 * 7), 16_000)
    records = [
        clip("span", audio_start=2.0, audio_end=6.0, provenance={"seconds": 9}),
        clip("said", provenance={"seconds": 5}),
        clip("unknown"),
        clip("strange", provenance={"seconds": "5"}),
    ]
    records.append(
        Record(
            id="file",
            task="igatl",
            split="test",
            source="x",
            response="never",
            audio="b.wav",
            audio_start=1.0,
        )
    )
    scores = scored(tmp_path, records, [{"id": r.id, "answer": "[0, 60]"} for r in records])
    assert scores["clip_lengths"] == {
        "span": 1, "provenance": 1, "file": 1, "unknown": 2, "unknown_taken_as": 10.0
    }  # fmt: skip
    rows = [json.loads(line) for line in (tmp_path / "out" / "igatl.jsonl").read_text().splitlines()]
    segments = {row["id"]: row["values"]["segment IoU"] for row in rows}
    # truth 1 2 3; the answer fills the clip
    assert segments == pytest.approx(
        {"span": 3 / 4, "said": 3 / 5, "unknown": 0.3, "strange": 0.3, "file": 0}
    )
    text = (tmp_path / "out" / "scores.md").read_text()
    assert "1 by the record's span, 1 by its provenance, 1 by the file's header" in text
    assert "not known: 2, taken as 10 s" in text


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
