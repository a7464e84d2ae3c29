"""A build that was stopped goes on; killed, it leaves nothing half."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from avalign.avfit.build import state as build_state
from avalign.data.manifest.table import Table
from avalign.errors import AvalignError
from tests.helpers.avfit.builds import built, contents, records
from tests.helpers.avfit.stopped_builds import small

# ---- going on ----


def test_a_finished_build_is_left_as_it_is(tmp_path: Path) -> None:
    plan, root = small(tmp_path)
    built(plan, root, tmp_path / "out")
    before = {file: file.stat().st_ino for file in (tmp_path / "out").glob("*.jsonl")}
    counts = built(plan, root, tmp_path / "out")
    assert {file: file.stat().st_ino for file in (tmp_path / "out").glob("*.jsonl")} == before
    assert counts == json.loads((tmp_path / "out" / "counts.json").read_text())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda plan, root: plan.write_text(plan.read_text().replace("small", "other")), "plan.name is"),
        (lambda plan, root: (root / "one" / "p" / "new.jpg").touch(), "files.one is"),
        (lambda plan, root: (root / "two" / "items.json").write_text("[]"), "annotations.two.items.json is"),
        (lambda plan, root: (root / "two" / "more.csv").touch(), "annotations.two.more.csv is new"),
    ],
)
def test_a_changed_plan_is_refused_by_name(tmp_path: Path, change: Any, said: str) -> None:
    plan, root = small(tmp_path)
    built(plan, root, tmp_path / "out")
    before = contents(tmp_path / "out")
    change(plan, root)
    with pytest.raises(AvalignError, match=f"{said}.*--overwrite"):
        built(plan, root, tmp_path / "out")
    assert contents(tmp_path / "out") == before


def test_overwrite_replaces_all_that_was_built(tmp_path: Path) -> None:
    plan, root = small(tmp_path)
    built(plan, root, tmp_path / "out")
    built(plan, root, tmp_path / "new", "datasets.one=null")
    built(plan, root, tmp_path / "out", "datasets.one=null", overwrite=True)
    assert contents(tmp_path / "out") == contents(tmp_path / "new")
    assert {record["source"] for record in records(tmp_path / "out")} == {"made"}
    assert all(record["id"].startswith("two/") for record in records(tmp_path / "out"))


def test_a_part_that_was_taken_away_is_made_again(tmp_path: Path) -> None:
    plan, root = small(tmp_path)
    built(plan, root, tmp_path / "out")
    before = contents(tmp_path / "out")
    (tmp_path / "out" / "one-00001.jsonl").unlink()
    built(plan, root, tmp_path / "out")
    assert contents(tmp_path / "out") == before


def test_nothing_is_written_among_somebody_elses_files(tmp_path: Path) -> None:
    plan, root = small(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").touch()
    with pytest.raises(AvalignError, match="holds files of something else"):
        built(plan, root, tmp_path / "out", overwrite=True)
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_a_manifest_that_somebody_put_beside_the_parts_is_named(tmp_path: Path) -> None:
    plan, root = small(tmp_path)
    built(plan, root, tmp_path / "out")
    (tmp_path / "out" / "mine.jsonl").touch()
    with pytest.raises(AvalignError, match=r"holds mine\.jsonl, which this build did not write"):
        built(plan, root, tmp_path / "out")


def test_two_builds_do_not_work_in_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, root = small(tmp_path)
    monkeypatch.setattr(build_state, "PATIENCE", 0.0)
    with (
        build_state.State(tmp_path / "out").locked(),
        pytest.raises(AvalignError, match="another build is at work"),
    ):
        built(plan, root, tmp_path / "out")


# ---- killed ----


BUILD = (
    "import sys; from tests.helpers.avfit.builds import *; "
    "built(*map(Path, sys.argv[1:4]), jobs=int(sys.argv[4]))"
)


@pytest.mark.parametrize(("jobs", "at"), [(1, "one 1 9"), (1, "two 2 25"), (2, "one 2 30")])
def test_a_build_that_is_killed_goes_on_and_ends_alike(tmp_path: Path, jobs: int, at: str) -> None:
    """Each data set is read twice, for origins and for records; killed in the first, and in the last."""
    plan, root = small(tmp_path)

    def run(out: Path, **more: str) -> int:
        words = [sys.executable, "-c", BUILD, str(plan), str(root), str(out), str(jobs)]
        return subprocess.run(words, env={**os.environ, **more}, capture_output=True).returncode

    assert run(tmp_path / "whole") == 0
    (tmp_path / "kill").write_text(at)
    assert run(tmp_path / "killed", KILL=str(tmp_path / "kill")) == -signal.SIGKILL
    assert not (tmp_path / "killed" / "counts.json").exists()
    assert all(not file.name.endswith(".jsonl") or Table(file) for file in (tmp_path / "killed").iterdir())
    assert run(tmp_path / "killed") == 0
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
