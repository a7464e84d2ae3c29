"""Stopping and going on."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import avalign
from avalign.config.recipe_file import read
from avalign.errors import AvalignError
from avalign.system.complete import COMPLETE
from avalign.training import checkpoint
from avalign.training import train as training
from avalign.training.train import train
from tests.helpers.finished_runs import (
    finished,  # noqa: F401 (fixtures)
    temperature,
)
from tests.helpers.paths import RECIPE
from tests.helpers.runs import (  # noqa: F401 (fixtures)
    ENVIRONMENT,
    RICH,
    _one_thread,
    log,
    quick,
    settings,
    weights,
    world,
)

# ---- stopping and going on -----------------------------------------------------------------------

KILLED = """
import gc, json, os, signal, sys
from pathlib import Path
from avalign.system import complete
from avalign.training import stage_trainer, train as t
from avalign.config.recipe_file import read

moments, recipe, run, *settings = sys.argv[1:]
t.score = lambda *_: {}
gc.freeze()

def die_at(owner, name, count, when=lambda *a: True):
    kept, seen = getattr(owner, name), 0
    def counted(*a):
        nonlocal seen
        seen += when(*a)
        if seen == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return kept(*a)
    setattr(owner, name, counted)

for place, count in json.loads(moments):  # each in a process of its own, which need not import torch again
    child = os.fork()
    if child == 0:
        if place == "step":
            die_at(stage_trainer.Learner, "forward", count)
        if place == "mark":
            die_at(complete, "atomic_write", count, lambda path, text: path.name == "complete")
        t.train(read(recipe, settings), Path(run), resume=Path(run).exists())
        os._exit(0)
    ended = os.waitpid(child, 0)[1]
    print(place, count, -os.WTERMSIG(ended) if os.WIFSIGNALED(ended) else os.WEXITSTATUS(ended), flush=True)
    if place == "step":
        with open(Path(run) / "log.jsonl", "a") as log:
            log.write('{"stage": "ali')  # the line that was being written
"""
MOMENTS = [
    ("step", 3),  # of align; checkpoint 2 is whole
    ("mark", 1),  # checkpoint 3 is written but not marked: cut short
    ("mark", 2),  # checkpoint 3 is whole, the stage's end is not
    ("step", 2),  # of answer, which has no checkpoint yet
    ("step", 4),  # of answer; checkpoint 2 is whole
    ("mark", 3),  # both stages are done, the model is not marked
    ("never", 0),
]


def test_killed_at_any_moment_it_resumes_to_the_same_weights(
    finished: Path, world: Path, tmp_path: Path
) -> None:
    """SIGKILL six times, then to the end: bit for bit the weights, and the log, of a run never stopped."""
    run = tmp_path / "killed"
    command = [sys.executable, "-c", KILLED, json.dumps(MOMENTS), str(RECIPE), str(run)]
    ended = subprocess.run(
        [*command, *settings(world, *RICH)], capture_output=True, text=True, timeout=1200, env=ENVIRONMENT
    )
    expected = [f"{place} {count} {0 if place == 'never' else -signal.SIGKILL}" for place, count in MOMENTS]
    told = [line for line in ended.stdout.splitlines() if line.split()[0] in ("step", "mark", "never")]
    assert told == expected, ended.stderr[-3000:]
    whole, resumed = weights(finished), weights(run)
    assert whole.keys() == resumed.keys()
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []
    assert temperature(run) == temperature(finished)
    assert log(run) == log(finished)


def test_of_the_checkpoints_the_last_whole_one_counts(tmp_path: Path) -> None:
    for step, marked in ((2, True), (10, True), (9, True), (12, False)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "weights.safetensors").write_bytes(b"some")
        if marked:
            (folder / COMPLETE).touch()
    assert checkpoint.last_complete(tmp_path) == tmp_path / "checkpoint-10"
    assert not (tmp_path / "checkpoint-12").exists()
    assert checkpoint.last_complete(tmp_path / "nowhere") is None


def test_a_run_is_not_overwritten(finished: Path, world: Path) -> None:
    def times() -> dict[Path, int]:  # but for the lock
        return {f: f.stat().st_mtime_ns for f in finished.rglob("[!.]*") if f.is_file()}

    before = times()
    with pytest.raises(AvalignError, match="holds a run already"):
        train(read(RECIPE, settings(world, *RICH)), finished)
    assert times() == before


def test_a_run_is_not_resumed_with_another_recipe(finished: Path, world: Path, tmp_path: Path) -> None:
    other = read(RECIPE, settings(world, *RICH, "train.batch_size=16"))
    with pytest.raises(AvalignError, match=r"was: +batch_size: 8\n +now: +batch_size: 16$"):
        train(other, finished, resume=True)
    swapped = ["train.stages.align.steps=4", "train.stages.answer.steps=3"]  # the same lines, elsewhere
    with pytest.raises(AvalignError, match=r"(was|now): +steps: "):
        train(read(RECIPE, settings(world, *RICH, *swapped)), finished, resume=True)
    with pytest.raises(AvalignError, match=r"no run to resume"):
        train(other, tmp_path / "nothing", resume=True)


def test_a_finished_run_is_scored_anew_and_not_trained(
    finished: Path, world: Path, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evaluation and the place of the data may change; training would."""
    monkeypatch.setattr(training, "_train_stages", lambda *_: pytest.fail("trained again"))
    assert quick(*RICH, "evaluation.samples=9", "data.workers=2", run=finished, resume=True) == finished


def test_a_checkpoint_of_another_recipe_is_refused(finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    text = (copy / "recipe.yaml").read_text()
    (copy / "recipe.yaml").write_text(text.replace("hidden: 16", "hidden: 32"))
    with pytest.raises(
        AvalignError, match=r"another recipe.*image_connector\S+ is \(16, 16\), .* \(32, 16\)"
    ):
        avalign.load(copy)
    (copy / "recipe.yaml").write_text(text)
    file = copy / "model" / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(AvalignError, match=r"weights\.safetensors: not a complete safetensors file"):
        avalign.load(copy)
    file.unlink()
    with pytest.raises(AvalignError, match=r"weights\.safetensors: there is no such file"):
        avalign.load(copy)
    (copy / "model" / "complete").unlink()
    with pytest.raises(AvalignError, match=r"has not finished; go on with --resume"):
        avalign.load(copy)
    with pytest.raises(AvalignError, match=r"not the folder of a run"):
        avalign.load(tmp_path)
