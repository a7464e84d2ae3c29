"""Scores of predictions from a file: joined by id, every mismatch named, and equal to a model's own path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from avalign.cli.app import app
from avalign.data.manifest import Manifest
from avalign.data.manifest.record import Record, write
from avalign.errors import AvalignError
from avalign.evaluation.evaluate import evaluate
from avalign.evaluation.external import score
from avalign.types import TASKS
from tests.helpers.manifests import write_manifest
from tests.helpers.predictions import boxes, said, scored, value

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
        '{"id": "vgg_ss/-x_3", "answer": "\\ud800"}',
    ]
    scores = scored(tmp_path, records, lines)
    joined = scores["predictions"]
    assert value(scores, "mean IoU") == 0.25  # the first line of the one answered; three missing are wrong
    assert scores["tasks"]["arig"]["parse_failures"] == 0.75
    assert (joined["lines"], joined["records"]) == (11, 4)
    assert joined["missing"] == {"count": 3, "first": [f"vgg_ss/-x_{k}" for k in (1, 2, 3)]}
    assert joined["unknown"]["first"] == ["vgg_ss/nobody", "other (a record of split val, task avfc)"]
    assert joined["repeated"] == {"count": 1, "first": ["said.jsonl:2: vgg_ss/-x_0"]}
    why = joined["unreadable"]["first"]
    assert [line.split(": ", 1)[0] for line in why] == [f"said.jsonl:{n}" for n in range(5, 12)]
    for line, part in zip(
        why,
        (
            "is not JSON",
            "but a list",
            "answer is null",
            "answer is null",
            "no field 'anser'. Did you mean",
            "is nested too deeply",
            "half of a surrogate pair",
        ),
        strict=True,
    ):
        assert part in line
        assert "\n" not in line
    all_of_them = [
        json.loads(line) for line in (tmp_path / "out" / "unmatched.jsonl").read_text().splitlines()
    ]
    assert [row["problem"] for row in all_of_them].count("missing") == 3
    assert len(all_of_them) == 3 + 2 + 1 + 7
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
        "span": 1, "provenance": 1, "prediction": 0, "file": 1, "unknown": 2, "unknown_taken_as": 10.0
    }  # fmt: skip
    rows = [json.loads(line) for line in (tmp_path / "out" / "igatl.jsonl").read_text().splitlines()]
    segments = {row["id"]: row["values"]["segment IoU"] for row in rows}
    # truth 1 2 3; the answer fills the clip
    assert segments == pytest.approx(
        {"span": 3 / 4, "said": 3 / 5, "unknown": 0.3, "strange": 0.3, "file": 0}
    )
    text = (tmp_path / "out" / "scores.md").read_text()
    assert "1 by the record's span, 1 by its provenance, 1 by the sound's file" in text
    assert "not known: 2, taken as 10 s" in text
