"""Several processes: of one training, and those that would work on one run at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from avalign.errors import Stopped
from avalign.training import train as training
from avalign.training.score import score
from tests.helpers.paths import RECIPE
from tests.helpers.run_faults import ODD, assert_equal, whole  # noqa: F401 (fixtures)
from tests.helpers.runs import ENVIRONMENT, _one_thread, quick, settings, world  # noqa: F401 (fixtures)

AVALIGN = [sys.executable, "-m", "avalign"]
TORCHRUN = [
    sys.executable,
    "-m",
    "torch.distributed.run",
    "--standalone",
    "--nproc_per_node",
    "2",
    *AVALIGN[1:],
]
LONG = ("train.stages=[{name: only, steps: 24}]", "train.checkpoint_every=50", "model.llm.dropout=0.2")


def started(*words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        list(map(str, words)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=ENVIRONMENT,
        start_new_session=True,
    )


def wait_for(process: subprocess.Popen[str], ready: Callable[[], bool]) -> None:
    while not ready():
        assert process.poll() is None, process.communicate()[0][-3000:]
        time.sleep(0.05)


def lines(run: Path) -> int:
    log = run / "log.jsonl"
    return log.read_text().count("\n") if log.exists() else 0


def test_the_command_that_goes_on_has_as_many_processes(quick: Any, monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setattr(training, "_train_stages", lambda *_: os.kill(os.getpid(), signal.SIGINT))
    for processes, command in (
        ("1", "avalign train --resume --run"),
        ("2", "torchrun --nproc-per-node 2 -m avalign train --resume --run-dir"),
    ):
        monkeypatch.setenv("WORLD_SIZE", processes)
        with pytest.raises(Stopped) as told:
            quick(*ODD, run=tmp_path / "a run")
        assert str(told.value) == f"stopped; go on: {command} '{tmp_path / 'a run'}'"


@pytest.mark.wide  # three times torchrun, which takes its time to start
def test_two_processes_stopped_and_resumed_end_as_if_never_stopped(world: Path, tmp_path: Path) -> None:
    words = [str(RECIPE), *settings(world, *LONG)]
    never, run = tmp_path / "never", tmp_path / "run"
    alone = started(*TORCHRUN, "train", *words, "--run-dir", never)
    said, _ = alone.communicate(timeout=120)
    assert alone.returncode == 0, said[-3000:]
    stopped = started(*TORCHRUN, "train", *words, "--run-dir", run)
    wait_for(stopped, lambda: lines(run) >= 3)
    os.killpg(stopped.pid, signal.SIGINT)
    said, _ = stopped.communicate(timeout=60)
    assert f"torchrun --nproc-per-node 2 -m avalign train --resume --run-dir {run}" in said
    assert "checkpoint-50" not in os.listdir(run / "checkpoints" / "1-only")
    assert 3 <= lines(run) < 24
    resumed = started(*TORCHRUN, "train", "--resume", "--run-dir", run)
    said, _ = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, said[-3000:]
    assert_equal(run, never)


@pytest.mark.wide  # four processes that import torch
def test_of_two_trainings_and_a_scoring_of_one_run_one_is_at_work(
    whole: Path, world: Path, tmp_path: Path
) -> None:
    """The others say who is, at once; what the one writes is as if it had been alone."""
    run = tmp_path / "run"
    words = [*AVALIGN, "train", RECIPE, *settings(world, *ODD), "--run", run]
    first = started(*words)
    wait_for(first, lambda: lines(run) >= 1)
    os.kill(first.pid, signal.SIGSTOP)  # so that it is still at work when the others ask
    others = [started(*words), started(*words, "--resume"), started(*AVALIGN, "eval", run)]
    for other in others[:2]:
        said, _ = other.communicate(timeout=60)
        assert (other.returncode, said) == (
            2,
            f"error: {run}: another process ({first.pid} on {os.uname().nodename}) is at work in it\n",
        )
    said, _ = others[2].communicate(timeout=60)
    assert others[2].returncode == 2
    assert said.startswith(f"error: {run}: ")
    assert said.count("\n") == 1
    assert "go on with --resume" in said or "is at work in it" in said
    os.kill(first.pid, signal.SIGCONT)
    said, _ = first.communicate(timeout=60)
    assert first.returncode == 0, said
    assert_equal(run, whole)
    assert score(run)["tasks"]
