"""What can go wrong around a run: folder, disk, a second process, signals. A line, and nothing lost."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import get_worker_info

from avalign.config.recipe_file import read
from avalign.data.avworld import AvWorld
from avalign.errors import AvalignError, Stopped
from avalign.system.complete import mark_complete
from avalign.training import checkpoint, run_folder, stage_trainer
from avalign.training import train as training
from avalign.training.run_folder import held
from avalign.training.score import score
from avalign.training.train import train
from tests.helpers.paths import RECIPE
from tests.helpers.run_faults import (
    ODD,
    assert_equal,
    everything,
    whole,  # noqa: F401 (fixtures)
)
from tests.helpers.runs import (  # noqa: F401 (fixtures)
    ENVIRONMENT,
    ONE_STAGE,
    _one_thread,
    quick,
    world,
)


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, happens: Any) -> None:
    forward = stage_trainer.Learner.forward

    def watched(self: Any, batch: Any, at: int) -> Any:
        if at == step:
            happens()
        return forward(self, batch, at)

    monkeypatch.setattr(stage_trainer.Learner, "forward", watched)


# ---- the folder ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["file", "below", "long", "dangling", "here", "empty", "root", "others", "proc"]
)
def test_a_folder_that_cannot_be_a_run_is_named_and_left_as_it_is(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "thesis.tex").write_text("mine")
    monkeypatch.chdir(tmp_path)
    named = {
        "below": "file/run",
        "long": "x" * 300,
        "here": ".",
        "empty": "",
        "root": "/",
        "proc": "/proc/run",
    }
    monkeypatch.setattr(training, "_train_stages", lambda *_: pytest.fail("begun"))
    with pytest.raises(
        AvalignError, match=r"^--run .*(file|long|exist|No such|folder|something else)"
    ) as told:
        train(read(RECIPE, [ONE_STAGE]), Path(named.get(kind, kind)))
    assert "\n" not in str(told.value)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["dangling", "file", "others", "thesis.tex"]


def test_a_name_that_is_no_text_is_told_before_training(quick: Any, tmp_path: Path) -> None:
    with pytest.raises(AvalignError, match="its name is not UTF-8 text"):
        quick(*ODD, run=tmp_path / "bad\udcff")


def test_eval_writes_nothing_into_the_run_it_is_told_to_leave(whole: Path) -> None:
    for inside in ("model", "elsewhere"):
        with pytest.raises(AvalignError, match="lies in the run"):
            score(whole, out=whole / inside)


def test_a_start_that_failed_is_no_obstacle(
    quick: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Path
) -> None:
    """Neither to the corrected command nor, with --resume, to itself; the copy of its file is not kept."""
    loss, run = tmp_path / "mine.py", tmp_path / "run"
    loss.write_text("from avalign.losses import AVOpT as Mine\nclass Other(Mine):\n    '''One.'''\n")
    with monkeypatch.context() as patch:
        patch.setattr(training, "build_model", lambda *_: (_ for _ in ()).throw(AvalignError("no weights")))
        with pytest.raises(AvalignError, match="no weights"):
            quick(*ODD, f"losses.mine={{name: '{loss}:Other'}}")
        with pytest.raises(AvalignError, match="no weights"):
            quick(ONE_STAGE, run=run, resume=True)
    assert not (run / "code" / "mine.py").exists()
    assert_equal(quick(*ODD), whole)


def test_what_has_learnt_is_never_begun_anew(
    quick: Any, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    at_step(monkeypatch, 3, lambda: pytest.fail("a fault"))
    with pytest.raises(pytest.fail.Exception):
        quick(*ODD)
    assert capsys.readouterr().err.endswith("\n"), "the bar leaves the line to what is said of the fault"
    before = everything(tmp_path / "run")
    for resume in (False, True):
        with pytest.raises(AvalignError, match=r"holds a run already|another recipe"):
            quick(ONE_STAGE, resume=resume)
    assert before.items() <= everything(tmp_path / "run").items()


def test_a_marked_model_without_its_weights_is_named(quick: Any, tmp_path: Path, whole: Path) -> None:
    for cut in (None, 100):
        run = tmp_path / f"cut-{cut}"
        for name, content in everything(whole).items():
            (run / name).parent.mkdir(parents=True, exist_ok=True)
            (run / name).write_bytes(content)
        file = run / "model" / "weights.safetensors"
        file.unlink() if cut is None else os.truncate(file, cut)
        with pytest.raises(
            AvalignError, match=r"weights\.safetensors (is missing|has 100 of \d+ bytes): put it"
        ):
            quick(*ODD, run=run, resume=True)
        file.parent.rename(run / "away")  # as the error says
        assert_equal(quick(*ODD, run=run, resume=True), whole)


# ---- one process at a time -----------------------------------------------------------------------

HOLDS = """
import os, sys, time
from pathlib import Path
from avalign.training.run_folder import held
with held(Path(sys.argv[1])):
    if os.fork() == 0:  # as a loader, which outlives its parent
        time.sleep(30)
        os._exit(0)
    print("held", flush=True)
    time.sleep(30)
"""


def test_a_second_process_is_told_and_a_killed_one_holds_nothing(quick: Any, whole: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(whole)],
        stdout=subprocess.PIPE,
        env=ENVIRONMENT,
        start_new_session=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        try:
            for again in (lambda: quick(*ODD, run=whole, resume=True), lambda: score(whole)):
                with pytest.raises(
                    AvalignError, match=rf"another process \({other.pid} on .*\) is at work in it"
                ):
                    again()
            os.kill(other.pid, signal.SIGKILL)
            other.wait()
            assert quick(*ODD, run=whole, resume=True) == whole
        finally:
            os.killpg(other.pid, signal.SIGKILL)


def test_where_there_are_no_locks_it_is_said(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    def flock(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with held(tmp_path):
        assert "cannot be locked (No locks available)" in capsys.readouterr().err


# ---- signals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_step_keeps_it_and_says_how_to_go_on(
    quick: Any, tmp_path: Path, whole: Path, number: int
) -> None:
    """Also between two lines of the log, whose terms are kept with the checkpoint."""
    before = signal.getsignal(number)
    run, kept = tmp_path / "it's a run", []

    def ask() -> None:
        os.kill(os.getpid(), number)
        kept.append(signal.getsignal(number))

    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, 2, ask)
        with pytest.raises(
            Stopped, match=r"go on: avalign train --resume --run '.*it'\"'\"'s a run'"
        ) as told:
            quick(*ODD, run=run)
    assert told.value.status == 128 + number
    assert kept == [signal.SIG_DFL], "a second signal ends at once"
    assert signal.getsignal(number) == before
    assert (run / "checkpoints" / "1-only" / "checkpoint-3" / "complete").exists()
    assert_equal(quick(*ODD, run=run, resume=True), whole)


def test_a_signal_ends_at_once_where_no_step_is_under_way(quick: Any, monkeypatch: Any, whole: Path) -> None:
    monkeypatch.setattr(training, "build_source", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Stopped, match="go on"):
        quick(*ODD)
    monkeypatch.setattr(training, "score", lambda *_: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(Stopped, match="go on"):
        train(read(whole / "recipe.yaml"), whole, resume=True)


class Disturbed(AvWorld):
    """Its loader's process gets the signal in its second batch."""

    number = signal.SIGTERM

    def sample(self, split: str, task: str, index: int) -> Any:
        if get_worker_info() is not None and index >= 16:
            os.kill(os.getpid(), self.number)
        return super().sample(split, task, index)


class Dying(Disturbed):
    """Killed, as where memory runs out."""

    number = signal.SIGKILL


TASK = "train.stages=[{name: only, steps: 4, tasks: {arig: 1.0}, weights: {language_modelling: 0}}]"


SOURCE = "data.source={{name: '" + __name__ + ":{}', train: 40, val: 20, test: 20}}"


def test_loaders_leave_signals_to_their_parent(quick: Any) -> None:
    quick(TASK, SOURCE.format("Disturbed"), "data.workers=1")


@pytest.mark.wide  # torch raises in whatever code is run as a loader dies, now and then in pytest's own
def test_a_loader_that_is_killed_is_a_line(quick: Any, tmp_path: Path) -> None:
    with pytest.raises(AvalignError, match=r"a process that loads data has died.*--resume"):
        quick(TASK, SOURCE.format("Dying"), "data.workers=1", run=tmp_path / "dying")


# ---- the disk ------------------------------------------------------------------------------------


WRITERS_SAY = (  # of a full disk: torch.save, twice, and the system
    RuntimeError("basic_ios::clear: iostream error"),
    RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 557952 vs 557840"),
    OSError(errno.ENOSPC, "No space left on device"),
)


@pytest.mark.parametrize("failing", range(1, 5))
def test_a_full_disk_leaves_the_earlier_checkpoint(
    quick: Any, tmp_path: Path, monkeypatch: Any, whole: Path, failing: int
) -> None:
    """At any file of the second checkpoint, by whatever error its writer has."""
    kept, seen, run = torch.save, 0, tmp_path / "run"

    def full(*words: Any, **more: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == 3 + failing:  # optimizer, scheduler and random states of the first went before
            raise WRITERS_SAY[failing % len(WRITERS_SAY)]
        kept(*words, **more)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(AvalignError, match=r"checkpoint-\d: cannot be written: .*go on with --resume"):
            quick(*ODD)
    assert [c.name for c in checkpoint.by_step(run / "checkpoints" / "1-only")] == [
        "checkpoint-2", *(["checkpoint-4"] if failing == 4 else [])
    ]  # fmt: skip
    assert_equal(quick(*ODD, resume=True), whole)


def test_a_checkpoint_that_lost_a_file_is_passed_over(
    quick: Any, tmp_path: Path, monkeypatch: Any, whole: Path, capsys: Any
) -> None:
    with monkeypatch.context() as patch:
        at_step(patch, 5, lambda: pytest.fail("a fault"))
        with pytest.raises(pytest.fail.Exception):
            quick(*ODD)
    stage = tmp_path / "run" / "checkpoints" / "1-only"
    os.truncate(stage / "checkpoint-4" / "optimizer.pt", 50)
    os.utime(stage / "checkpoint-2", (1, 1))  # a clock that jumped
    assert_equal(quick(*ODD, resume=True), whole)
    assert "optimizer.pt has 50 of" in capsys.readouterr().err


def test_an_older_checkpoint_goes_only_once_a_newer_is_whole(tmp_path: Path) -> None:
    for step, marked in ((2, True), (4, True), (10, False)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if marked:
            mark_complete(tmp_path / f"checkpoint-{step}")
    os.utime(tmp_path / "checkpoint-4", (1, 1))
    checkpoint.forget_old(tmp_path, keep=1)
    assert [c.name for c in checkpoint.by_step(tmp_path)] == ["checkpoint-4", "checkpoint-10"]


def test_a_log_with_lines_that_are_none_is_gone_on_with(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(b'{"stage": "a", "step": 1}\n[]\n{"step": 2}\n\xff\n{"stage": "a", "step": 3}\n{"sta')
    run_folder.forget_after(log, "a", 2)
    assert log.read_text() == '{"stage": "a", "step": 1}\n'


@pytest.fixture(autouse=True)
def _signals_as_they_were() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
