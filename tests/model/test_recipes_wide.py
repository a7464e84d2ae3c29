"""The shipped recipe, cut to a fifth of its steps, learns: what no test of a part can show."""

from __future__ import annotations

import json

import pytest

from avalign.config.recipe_file import read
from avalign.training.train import train
from tests.helpers.paths import RECIPE

SHORT = (
    "[{name: align, steps: 200, learning_rate: 2.0e-3, weights: {language_modelling: 0, avace: 1.0}},"
    " {name: answer, steps: 800}]"
)


@pytest.mark.wide
@pytest.mark.timeout(1200)
def test_a_fifth_of_the_recipe_looks_and_listens_where_it_should(tmp_path, monkeypatch):
    """Attention by chance has 0.1 of its mass inside the box, and 0.4 inside the interval."""
    monkeypatch.setenv("AVALIGN_CACHE", str(tmp_path / "cache"))
    settings = [f"train.stages={SHORT}", "evaluation.tasks=[igatl, avqa]", "train.report_to=[]"]
    run = train(read(RECIPE, settings), tmp_path / "run")
    last = json.loads((run / "log.jsonl").read_text().splitlines()[-1])
    assert last["avace/inside"] > 0.5
    assert last["avace/inside_time"] > 0.8
    tasks = json.loads((run / "eval" / "scores.json").read_text())["tasks"]
    for task in ("igatl", "avqa"):
        scores = tasks[task]
        assert scores["clear_of_trivial"]
        metric = scores["metrics"][scores["headline"]]["value"]
        assert metric > scores["without_audio"]["metrics"][scores["headline"]]["high"]
