"""avalign data stats: every record counted once, beside the paper's numbers where it has them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from avalign.avfit.paper import of_paper
from avalign.cli.app import app
from avalign.data.manifest.record import write
from tests.helpers.avfit.records import RECORDS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    claims = [replace(RECORDS[1], id=f"x{k}", response=str(k % 4 > 0)) for k in range(8)]
    write(
        [*RECORDS, *claims, replace(RECORDS[0], id="vgg", source="vgg_ss", split="test")],
        tmp_path / "m.jsonl",
    )
    return tmp_path


def said(*words: str) -> str:
    result = CliRunner().invoke(app, ["data", "stats", *words])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_tables(folder: Path) -> None:
    lines = [line.split() for line in said(str(folder)).splitlines()]
    for row in (
        "arig vgg_ss test 1 4.38K",
        "avfc made test 10 1",
        "avfc all test 10",
        "type1 7 2 77.8",  # true, false, and the share of true
        "type2 0 1 0.0",
        "together 7 3 70.0",
        "igatl val 0 1 0 0 1 0",
        "avfc test, 1 classes: cat 9",
    ):
        assert row.split() in lines


def test_the_same_as_json(folder: Path) -> None:
    found = json.loads(said(str(folder), "--json"))
    assert found["records"] == 15 == sum(row["records"] for row in found["counts"])
    row = next(row for row in found["counts"] if row["source"] == "vgg_ss")
    assert row["paper"] == "4.38K"
    assert all("paper" not in row for row in found["counts"] if row["source"] != "vgg_ss")
    claims = next(row for row in found["counts"] if row["task"] == "avfc")
    assert claims["verdict"] == {"type1 True": 7, "type1 False": 2, "type2 False": 1}


def test_one_file_is_a_manifest_too_and_none_is_named(folder: Path) -> None:
    assert json.loads(said(str(folder / "m.jsonl"), "--json"))["records"] == 15
    result = CliRunner().invoke(app, ["data", "stats", str(folder / "nothing")])
    assert result.exit_code == 2
    assert "no such manifest" in result.stderr


def test_the_papers_numbers_stand_where_it_has_them() -> None:
    """Of its table: 1.07M of ARIG to train on; no number is made up for what it does not say."""
    assert of_paper("arig", "openimages_audioset", "train") == "1.07M"
    assert of_paper("avfc", "openimages_audioset", "test") == "321K"
    assert of_paper("arig", "openimages_audioset", "test") == ""
    assert of_paper("arig", "vgg_ss", "val") == ""
    assert of_paper("igatl", "ave", "test") == ""
