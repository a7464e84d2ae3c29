"""Checking manifests: each defect is found by its name and nothing else is; what is sound passes."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from avalign.answers import write_box
from avalign.avfit.check.check import Options
from avalign.avfit.check.findings import ERROR, EXAMPLES, KINDS
from avalign.avfit.check.report import ALL, checked_and_reported
from avalign.data.manifest.record import Record, to_json, write
from avalign.errors import AvalignError
from tests.helpers.avfit.check_manifests import checked, examples, folder, good, media  # noqa: F401 (fixtures)
from tests.helpers.avfit.checks import BOX, SPAN, counts, noise, picture, sample, sound


def test_a_sound_manifest_has_no_findings(folder: Path) -> None:
    report = checked(folder, good(), contents=True)
    assert counts(report) == {}
    assert (report["records"], report["errors"], report["warnings"]) == (7, 0, 0)
    assert {kind: m["checked"] for kind, m in report["media"].items()} == {
        "picture": 1,
        "video": 1,
        "sound": 3,
    }


# ---- what a record says ----

ONE_RECORD: list[tuple[str, str, dict[str, Any]]] = [
    ("response reads back differently", "arig", {"response": write_box((0.1, 0.2, 0.5, 0.8), "dog")}),
    ("response reads back differently", "arig", {"response": write_box((0.106, 0.2, 0.5, 0.9), "dog")}),
    ("response reads back differently", "arig", {"response": write_box(BOX, "cat")}),
    ("response reads back differently", "arig", {"response": "over there"}),
    ("response reads back differently", "arig", {"boxes": (BOX, (0.0, 0.0, 1.0, 1.0))}),
    ("response reads back differently", "arig", {"response": "x" * 30_000}),
    ("response reads back differently", "igatl", {"response": "[0.25, 0.85]"}),
    ("response reads back differently", "igatl", {"intervals": (SPAN, (1.0, 1.5))}),
    ("response is empty", "avcap", {"response": " \n"}),
    ("verdict is neither true nor false", "avfc", {"response": "perhaps"}),
    ("verdict is neither true nor false", "avfc", {"response": "True and False"}),
    ("box out of range or inverted", "avqa", {"boxes": ((0.5, 0.2, 0.1, 0.9),)}),
    ("box out of range or inverted", "avqa", {"boxes": ((0.5, 0.2, 0.6, 1.1),)}),
    ("box out of range or inverted", "avqa", {"boxes": ((0.5, 0.2, 0.5, 0.9),)}),
    (
        "interval behind its span's end",
        "avqa",
        {"intervals": ((1.2, 1.9),), "audio_start": 1.0, "audio_end": 2.0},
    ),
    ("interval inverted or before 0", "avqa", {"intervals": ((0.5, 0.5),)}),
    ("interval inverted or before 0", "avqa", {"intervals": ((-0.5, 0.5),)}),
    ("ARIG record without a box", "arig", {"boxes": ()}),
    ("IGATL record without an interval", "igatl", {"intervals": ()}),
    ("instruction lacks a place for media", "avqa", {"instruction": "<audio>What?"}),
    ("instruction lacks a place for media", "avqa", {"instruction": "<image>What?"}),
    ("instruction repeats a place for media", "avqa", {"instruction": "<image><audio><image>What?"}),
    ("instruction has a place without media", "avqa", {"image": None}),
    ("instruction has a place without media", "avqa", {"audio": None}),
    ("instruction holds an unfilled token", "avqa", {"instruction": "<image><audio>Where is the <Object>?"}),
    ("instruction holds an unfilled token", "avfc", {"slots": {"class": "dog", "box": list(BOX)}}),
    ("slot cannot be written", "avcap", {"slots": {"box": [0.5, 0.2, 0.1, 0.9]}}),
    ("slot cannot be written", "avcap", {"slots": {"time": [2.0, 1.0]}}),
    ("slot cannot be written", "avcap", {"slots": {"class": ""}}),
    ("slot cannot be written", "avcap", {"slots": {"time": 10**400}}),
    ("slot cannot be written", "avcap", {"slots": {"sort": "dog"}}),
    ("no phrasing fits", "avqa", {"instruction": "", "kind": None}),
    ("no phrasing fits", "avfc", {"instruction": "", "kind": "type5"}),
    ("no phrasing fits", "avfc", {"instruction": "", "slots": {}}),
    ("record has neither picture nor sound", "avcap", {"image": None, "audio": None}),
    ("origins are no list of texts", "avcap", {"provenance": {"origins": "video"}}),
    ("origins are no list of texts", "avcap", {"provenance": {"origins": [["video"]]}}),
    ("sound is shorter than its span", "avqa", {"audio_start": 0.0, "audio_end": 2.1}),
    ("sound is shorter than its span", "avqa", {"audio_start": 3.0}),
    ("interval behind the sound's end", "avqa", {"intervals": ((0.5, 2.1),)}),
    ("interval behind the sound's end", "avqa", {"audio_start": 1.0, "intervals": ((0.5, 1.1),)}),
    ("frame behind the video's end", "avqa", {"image": "a.mp4", "frame_times": (1.0, 4.1)}),
    ("media file is missing", "avqa", {"image": "b.png"}),
    ("media file is missing", "avqa", {"audio": "a\0.wav"}),
    ("media file is missing", "avqa", {"audio": "a" * 300 + ".wav"}),
    ("media cannot be decoded", "avqa", {"image": "a.wav"}),
    ("media cannot be decoded", "avqa", {"image": "a.mp4"}),  # a film needs frame_times
    ("media cannot be decoded", "avqa", {"audio": "a.png"}),
]


def test_a_box_in_pixels_is_named_so(folder: Path) -> None:
    report = checked(folder, [*good(), sample("avqa", id="wrong", boxes=((12.0, 30.0, 200.0, 180.0),))])
    assert [one["detail"] for one in examples(report)] == [
        "box [12, 30, 200, 180]: pixels? they are to be in 0..1"
    ]


@pytest.mark.parametrize(("code", "task", "change"), ONE_RECORD)
def test_a_wrong_record_is_found_by_name(folder: Path, code: str, task: str, change: dict[str, Any]) -> None:
    wrong = sample(task, id="wrong", **change)
    if change.keys() <= {"image", "audio"} and None not in change.values():
        wrong = replace(wrong, task=task)
    report = checked(folder, [*good(), wrong])
    assert counts(report) == {code: 1}
    assert [(one["where"], one["record"]) for one in examples(report)] == [("m.jsonl:8", "wrong")]
    assert report["errors"] == (KINDS[code].severity == ERROR)


@pytest.mark.parametrize(
    ("task", "change"),
    [
        ("arig", {"response": "it is at 0.1, .2, 50%, 0.90", "label": "dog"}),
        ("arig", {"response": write_box((0.104, 0.2, 0.5, 0.9), "dog")}),
        ("arig", {"boxes": (BOX, BOX), "consensus": 2}),  # annotators who agree, written once
        (
            "arig",
            {"boxes": ((0.1, 0.2, 0.1001, 0.9),), "response": write_box((0.1, 0.2, 0.1001, 0.9), "dog")},
        ),
        ("arig", {"label": "police car (siren)", "response": write_box(BOX, "police car siren")}),
        ("avfc", {"response": "No, it does not."}),
        ("avqa", {"audio_start": 0.5, "audio_end": 2.04}),  # within what is let pass
        ("avqa", {"intervals": ((1.5, 2.04),)}),
        ("avqa", {"image": "a.mp4", "frame_times": (4.0,)}),
        ("avcap", {"instruction": "", "slots": {"class": "dog"}}),
    ],
)
def test_what_is_within_the_rules_is_no_finding(folder: Path, task: str, change: dict[str, Any]) -> None:
    assert counts(checked(folder, [*good(), sample(task, id="fine", **change)])) == {}


# ---- lines and files ----


def test_bad_lines_are_named_and_the_others_read_on(folder: Path) -> None:
    lines: list[bytes] = [to_json(record).encode() for record in good()]
    bad = [
        b"{",
        b"\xff\xfe",
        b"[1]",
        b"[" * 100_000,
        b'{"id": "x"}',
        lines[0].replace(b'"a.png"', b'"../a.png"'),
        lines[0].replace(b'"id": "arig"', b'"id": "\\ud800"'),
        lines[0].replace(b"0.9]]", b"1e999]]"),
        lines[0].replace(b"0.9]]", b"1" * 400 + b"]]"),
        lines[0].replace(b"0.9]]", b"1" * 5000 + b"]]"),
        lines[0].replace(b"0.9]]", b"NaN]]"),
        lines[0].replace(b'"{', b'"[{').replace(b'}"', b'}]"'),  # provenance that is a list
    ]
    assert len(set(bad) - set(lines)) == len(bad)
    (folder / "m.jsonl").write_bytes(b"\n".join([lines[0], *bad, b"", *lines[1:]]))
    report = checked(folder)
    assert counts(report) == {"line is no record": len(bad)}
    assert [one["where"] for one in examples(report)] == [f"m.jsonl:{k}" for k in range(2, 2 + len(bad))]
    assert (report["lines"], report["records"]) == (len(lines) + len(bad) + 1, len(lines))


def test_every_bad_line_stands_in_the_report(folder: Path) -> None:
    (folder / "m.jsonl").write_text("{}\n" * 500)
    report = checked(folder)
    assert counts(report) == {"line is no record": 500}
    assert len(examples(report)) == EXAMPLES
    written = (folder / "check" / ALL).read_text().splitlines()
    assert [line.split("\t")[2] for line in written[1:]] == [f"m.jsonl:{k}" for k in range(1, 501)]


def test_pieces_do_not_lose_or_repeat_lines(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from avalign.avfit.check import lines as check_lines
    from avalign.data.manifest import lines as manifest_lines

    records = [sample("avcap", id=f"{k}", response="word " * (k % 40 + 1)) for k in range(200)]
    write(records, folder / "m.jsonl")
    with open(folder / "m.jsonl", "a") as lines:
        lines.write("{\n\n" + "x" * 5000 + "\n" + to_json(sample("avcap", id="last")))
    monkeypatch.setattr(manifest_lines, "LONGEST", 4096)
    for size in (1 << 20, 997, 64):
        monkeypatch.setattr(check_lines, "PIECE", size)
        report = checked(folder, media=False)
        assert (report["lines"], report["records"]) == (204, 201)
        assert [one["where"] for one in examples(report)] == ["m.jsonl:201", "m.jsonl:203"]


@pytest.mark.parametrize("content", ["", "\n", " \n\n"])
def test_a_manifest_without_a_record_is_an_error(folder: Path, content: str) -> None:
    (folder / "m.jsonl").write_text(content)
    report = checked(folder)
    assert counts(report) == {"manifest holds no record": 1}
    assert report["errors"] == 1


def test_a_file_that_is_none_is_named_and_the_others_are_read(folder: Path) -> None:
    (folder / "b.jsonl").mkdir()
    os.mkfifo(folder / "c.jsonl")
    report = checked(folder, good())
    assert counts(report) == {"manifest file cannot be read": 2}
    assert report["records"] == 7


def test_parquet_rows_are_named(folder: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [json.loads(to_json(record)) for record in good()]
    rows[2]["response"] = "perhaps"
    names = {name for row in rows for name in row} - {"slots"}
    for row in rows:
        row["instruction"] = "<image><audio>x"
    table = arrow.table({name: [row.get(name) for row in rows] for name in sorted(names)})
    parquet.write_table(table, folder / "a.parquet")
    (folder / "b.parquet").write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    parquet.write_table(arrow.table({"id": [b"\xff"]}), folder / "c.parquet")
    report = checked(folder)
    assert counts(report) == {"manifest file cannot be read": 2, "verdict is neither true nor false": 1}
    assert [one["where"] for one in examples(report)] == ["b.parquet", "c.parquet", "a.parquet, row 3"]


def test_what_cannot_be_checked_is_one_error(folder: Path) -> None:
    with pytest.raises(AvalignError, match="holds no manifest"):
        checked(folder)
    write(good(), folder / "m.jsonl")
    with pytest.raises(AvalignError, match="nowhere: no such folder of media"):
        checked_and_reported(folder, folder / "nowhere", folder / "check", Options())
    assert not (folder / "check" / "report.json").exists()


# ---- over all records ----


def test_repeated_ids_leaks_and_tasks_without_a_test(folder: Path) -> None:
    for name in ("b", "c"):
        picture(folder / f"{name}.png", seed=1)
        sound(folder / f"{name}.wav", noise(seed=ord(name)))
    train: dict[str, Any] = {"split": "train", "image": "b.png", "audio": "b.wav"}
    apart = {"provenance": {"origins": ["video-2"]}}
    cases: dict[str, list[Record]] = {
        "origin in two splits": [sample("avqa", id="t", **train)],
        "media file in two splits": [sample("avqa", id="t", **(train | apart | {"audio": "a.wav"}))],
        "task without test records": [sample("avcap", id="t", **(train | apart))],
    }
    for code, records in cases.items():
        report = checked(folder, [sample("avqa"), *records], contents=True)
        assert counts(report) == {code: 1}
    fine = [sample("avqa"), sample("avqa", id="t", **(train | apart))]
    assert counts(checked(folder, fine, contents=True)) == {}
    third = sample("avqa", id="v", split="val", image="c.png", audio="c.wav")
    third = replace(third, provenance={"origins": ["video-3"]})
    report = checked(folder, [*fine, third], contents=True)  # b.png and c.png are of the same bytes
    assert counts(report) == {"content in two splits": 1}
    assert counts(checked(folder, [*fine, third])) == {}
    (folder / "n.jsonl").write_text(to_json(sample("avcap", id="avqa")))
    report = checked(folder, fine)
    assert counts(report) == {"id is used twice": 1}
    assert examples(report)[0]["where"] == "n.jsonl:1"
    assert "first used at m.jsonl:1" in examples(report)[0]["detail"]


@pytest.mark.parametrize(
    ("true", "code"),
    [
        (7, {"true and false out of balance": 1}),
        (8, {}),
        (12, {}),
        (13, {"true and false out of balance": 1}),
    ],
)
def test_balance_of_verdicts(folder: Path, true: int, code: dict[str, int]) -> None:
    records = [sample("avfc", id=f"{k}", response=str(k < true)) for k in range(20)]
    report = checked(folder, records, media=False)
    assert counts(report) == code
    assert report["tasks"][0]["most common"] == str(true > 10)


def test_a_class_that_makes_up_a_task(folder: Path) -> None:
    records = [sample("avqa", id=f"{k}", response="yes" if k < 11 else f"{k}") for k in range(20)]
    assert counts(checked(folder, records, media=False)) == {"one answer makes up a task": 1}
    assert counts(checked(folder, records, media=False, share=0.55)) == {}
    assert counts(checked(folder, records[:19], media=False)) == {}  # too few to tell


def test_findings_are_named_across_files_and_pieces(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from avalign.avfit.check import lines as check_lines

    monkeypatch.setattr(check_lines, "PIECE", 300)
    own = {"image": None, "instruction": "<audio>What is it?"}
    write([sample("avqa", id=f"m{k}", **own) for k in range(9)], folder / "m.jsonl")
    train: dict[str, Any] = own | {"split": "train", "audio": "a.ogg"}
    others = [sample("avqa", id=f"n{k}", **train, provenance={"origins": [f"{k}"]}) for k in range(6)]
    others[3] = replace(others[3], audio="none.wav")
    others[4] = replace(others[4], provenance={"origins": ["video-1"]})
    write(others, folder / "n.jsonl")
    report = checked(folder)
    assert counts(report) == {"media file is missing": 1, "origin in two splits": 1}
    missing, leak = examples(report)
    assert (missing["where"], missing["record"]) == ("n.jsonl:4", "n3")
    assert (leak["where"], leak["record"]) == ("n.jsonl:5", "n4")
    assert "test: video-1 in m0 (m.jsonl:1)" in leak["detail"]
