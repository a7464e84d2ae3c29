"""Scores and report are both new or both as they were, whatever ends a command half way."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from avalign.config.recipe_file import read
from avalign.errors import AvalignError
from avalign.system.atomic_write import swapped_in
from avalign.training import run_folder
from avalign.training.score import score
from tests.helpers.run_faults import everything, whole  # noqa: F401 (fixtures)
from tests.helpers.runs import _one_thread, world  # noqa: F401 (fixtures)


def test_scores_and_report_are_both_new_or_both_as_they_were(
    whole: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    from avalign.evaluation import evaluate as module

    score(whole)
    assert {"scores.json", "scores.md", "arig.jsonl", "avfc.jsonl"} <= {
        p.name for p in (whole / "eval").iterdir()
    }
    before = everything(whole)
    few = read(whole / "recipe.yaml", ["evaluation.tasks=[avqa]", "evaluation.figures=0"])
    score(whole, few, out=tmp_path / "out")
    assert everything(whole) == before, "with --out the run is only read"
    assert {p.name for p in (tmp_path / "out" / "eval").iterdir()} == {
        "scores.json",
        "scores.md",
        "avqa.jsonl",
    }
    assert "avqa" in (tmp_path / "out" / "report.html").read_text().lower()
    with monkeypatch.context() as patch:
        patch.setattr(module, "as_markdown", lambda *_: os.kill(os.getpid(), 0) or pytest.fail("a fault"))
        with pytest.raises(pytest.fail.Exception):
            score(whole, few)
    after = everything(whole)
    assert {k: v for k, v in after.items() if k != run_folder.LOCK} == {
        k: v for k, v in before.items() if k != run_folder.LOCK
    }
    score(whole, few)
    assert {p.name for p in (whole / "eval").iterdir()} == {"scores.json", "scores.md", "avqa.jsonl"}
    (tmp_path / "mine" / "eval").mkdir(parents=True)
    (tmp_path / "mine" / "eval" / "thesis.tex").write_text("mine")
    with pytest.raises(AvalignError, match="holds no scores but other files"):
        score(whole, few, out=tmp_path / "mine")
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda *_: False)  # a read-only file system
        with pytest.raises(
            AvalignError, match="cannot be written; name another folder for the scores: --out"
        ):
            score(whole, few)


def test_a_folder_swapped_in_is_the_old_or_the_new(tmp_path: Path) -> None:
    folder = tmp_path / "eval"
    with swapped_in(folder) as beside:
        (beside / "a").write_text("old")
    (tmp_path / ".eval.unfinished").mkdir()  # of a process that was killed
    (tmp_path / ".eval.unfinished" / "b").touch()

    def fail(*_: Any) -> None:
        with swapped_in(folder) as beside:
            (beside / "a").write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert everything(tmp_path) == {"eval/a": b"old"}
    folder.rename(tmp_path / ".eval.before")  # killed between the two renames
    with pytest.raises(ZeroDivisionError):
        fail()
    assert everything(tmp_path) == {"eval/a": b"old"}
    with swapped_in(folder) as beside:
        (beside / "c").write_text("new")
    assert everything(tmp_path) == {"eval/c": b"new"}
