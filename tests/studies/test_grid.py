"""Runs in processes of their own: made once, gone on with, named when they fail, ended with us."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from avalign.cli.app import app
from avalign.config.recipe_file import write
from avalign.errors import AvalignError
from avalign.studies import ablate, grid
from avalign.studies.grid import Run, duration, run_all, runs
from avalign.studies.study import read_study
from tests.helpers.runs import SMALL
from tests.helpers.studies import BASE, STUDY, make_run, share, write_study

# Stands in for `avalign train`: leaves what it was asked, and a finished run if all goes well.
TRAINER = """
import json, os, pathlib, sys, time
recipe, _, folder, *resume = sys.argv[1:]
run = pathlib.Path(folder)
with open(run.parent.parent / "started.txt", "a") as file:
    file.write(f"{run.parent.name}/{run.name} {' '.join(resume)}{os.environ['OMP_NUM_THREADS']}\\n")
(run / "recipe.yaml").write_bytes(pathlib.Path(recipe).read_bytes())
(run / "pid").write_text(str(os.getpid()))
"""
FINISH = """
(run / "model").mkdir(exist_ok=True)
(run / "model" / "complete").touch()
(run / "eval").mkdir(exist_ok=True)
score = {"value": 1.0}
task = {"metrics": {"accuracy": score}, "trivial": {}, "test_list": "x"}
row = {"id": "", "kind": None, "instruction": "", "truth": {}, "parsed": "yes", "values": {"right": 1.0}}
(run / "eval" / "avqa.jsonl").write_text(json.dumps(row) + "\\n")
(run / "eval" / "scores.json").write_text(json.dumps({"tasks": {"avqa": task}}))
(run / "report.html").touch()
"""


@pytest.fixture
def every(tmp_path: Path) -> list[Run]:
    return runs(read_study(write_study(tmp_path), seeds=(0, 1)), tmp_path / "out")


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put these lines in the trainer's place, after it has begun its run."""

    def put(source: str) -> None:
        script = tmp_path / "trainer.py"
        script.write_text(TRAINER + source)
        monkeypatch.setattr(grid, "TRAIN", (sys.executable, "-S", str(script)))

    monkeypatch.setattr(grid, "POLL", 0.01)
    monkeypatch.setattr(grid, "PATIENCE", 5.0)
    return put


def work(chosen: list[Run], jobs: int = 1, **more: float) -> tuple[dict[str, str], list[str]]:
    said: list[str] = []
    failed: dict[str, str] = {}
    run_all(chosen, failed, jobs=jobs, threads=3, say=said.append, done=lambda: None, **more)
    return failed, said


def started(tmp_path: Path) -> list[str]:
    path = tmp_path / "out" / "small" / "started.txt"
    return path.read_text().splitlines() if path.exists() else []


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_every_arm_runs_under_every_seed_seed_by_seed_with_its_threads(every, trainer, tmp_path):
    trainer(FINISH)
    failed, said = work(every)
    assert failed == {}
    assert started(tmp_path) == ["both/seed-0 3", "none/seed-0 3", "both/seed-1 3", "none/seed-1 3"]
    assert all(run.finished for run in every)
    assert said[0] == "4 runs, 0 of them finished; 1 at once, 3 thread(s) each"
    assert "none left" in said[-1]
    (begin, end) = every[0].attempts()
    assert (begin["threads"], begin["jobs"], end["exit"]) == (3, 1, 0)


def test_what_is_finished_is_not_run_again_and_what_was_begun_goes_on(every, trainer, tmp_path):
    trainer(FINISH)
    make_run(every[0], share(5))
    write(every[3].recipe, every[3].folder / "recipe.yaml")
    _, said = work(every)
    assert started(tmp_path) == ["none/seed-0 3", "both/seed-1 3", "none/seed-1 --resume3"]
    assert said[0].startswith("4 runs, 1 of them finished")
    assert work(every)[1] == ["4 runs, 4 of them finished; 1 at once, 3 thread(s) each"]


def test_a_run_that_fails_is_named_with_its_last_words_and_stops_no_other(every, trainer, tmp_path):
    trainer(
        "if 'none/seed-0' in folder:\n"
        "    print('error: bad.wav: no sound'); print('and more'); sys.exit(2)\n"
        "if 'both/seed-1' in folder: os.kill(os.getpid(), 9)\n" + FINISH
    )
    failed, said = work(every)
    assert list(failed) == ["none seed 0", "both seed 1"]
    assert failed["none seed 0"] == f"error: bad.wav: no sound ({every[1].folder / 'terminal.log'})"
    assert failed["both seed 1"].startswith("ended by signal 9")
    assert any(line.startswith("FAILED  none seed 0: error: bad.wav") for line in said)
    assert [run.finished for run in every] == [True, False, False, True]


def test_a_run_that_ends_well_without_scores_has_failed(every, trainer):
    trainer("print('nothing to do')")
    assert work(every[:1])[0] == {"both seed 0": f"nothing to do ({every[0].folder / 'terminal.log'})"}


def test_as_many_at_once_as_asked_and_no_more(every, trainer):
    """The first two wait for each other; who was there when is told by when each began and ended."""
    trainer(
        "begin, all_runs = time.time(), run.parent.parent\n"
        "(run / 'began').touch()\n"
        "while len(list(all_runs.glob('*/*/began'))) < 2 and time.time() < begin + 60: time.sleep(0.01)\n"
        "(run / 'there').write_text(f'{begin} {time.time()}')\n" + FINISH
    )
    assert work(every, jobs=2)[0] == {}
    there = [tuple(map(float, (run.folder / "there").read_text().split())) for run in every]
    assert max(sum(begin <= at <= end for begin, end in there) for at, _ in there) == 2


def test_the_lines_tell_where_it_is_and_how_long_it_takes(every, trainer):
    log = "".join(json.dumps({"stage": s, "step": n}) + "\n" for s, n in (("align", 600), ("words", 900)))
    trainer(f"(run / 'log.jsonl').write_text({log!r}); time.sleep(0.3)\n" + FINISH)
    _, said = work(every[:2], every=0.1)
    assert any("running both seed 0 at step 1500 of 5550; 2 of 2 left, about" in line for line in said)
    assert any(line.startswith("done    both seed 0 in ") and "1 of 2 left, about" in line for line in said)


def test_resuming_says_from_where(every, trainer):
    trainer(FINISH)
    write(every[0].recipe, every[0].folder / "recipe.yaml")
    (every[0].folder / "log.jsonl").write_text('{"stage": "align", "step": 40}\n{"stage": "al')
    _, said = work(every[:1])
    assert said[1] == "goes on from step 40 both seed 0; 1 of 1 left"


def test_a_changed_recipe_is_refused_by_name_before_anything_runs(every, trainer, tmp_path):
    trainer(FINISH)
    make_run(every[0], share(5))
    write(every[3].recipe, every[3].folder / "recipe.yaml")
    (every[3].folder / "log.jsonl").write_text('{"stage": "all", "step": 1}\n')  # it has learnt something
    study = write_study(tmp_path, STUDY.replace("losses.avopt.weight: 0", "losses.avopt.weight: 0.5"))
    with pytest.raises(AvalignError, match="made with another recipe") as caught:
        ablate([str(study)], seeds="2", out=tmp_path / "out", say=lambda _: None)
    assert f"{every[3].folder}:" in str(caught.value)
    assert "was: " in str(caught.value)
    assert str(every[0].folder) not in str(caught.value), "that arm is as it was"
    write_study(tmp_path, STUDY.replace("samples: 10", "samples: 20"))
    with pytest.raises(AvalignError, match=r"was:   samples: 10\n    now:   samples: 20|samples: 10"):
        ablate([str(study)], seeds="2", out=tmp_path / "out", report_only=True, say=lambda _: None)
    assert started(tmp_path) == []


def test_what_belongs_to_the_machine_may_change(every, trainer, tmp_path):
    trainer(FINISH)
    make_run(every[0], share(5))
    grid.refuse_changed(runs(read_study(tmp_path / "study.yaml", ["data.root=elsewhere"]), tmp_path / "out"))


# ---- ends ----------------------------------------------------------------------------------------

SLEEPER = """
import subprocess
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
(run / "child").write_text(str(child.pid))
time.sleep(60)
"""


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[Run], Callable[[], None]], None]:
    """Call something once all these runs have started what they start."""

    def when(chosen: list[Run], then: Callable[[], None]) -> None:
        def sleep(seconds: float) -> None:
            time.sleep(seconds)
            if all((run.folder / "child").exists() and (run.folder / "child").read_text() for run in chosen):
                then()

        monkeypatch.setattr(grid, "time", SimpleNamespace(**{**vars(time), "sleep": sleep}))

    return when


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A process that was started in the background ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_ends_what_runs_and_what_that_started(every, trainer, begun, how):
    trainer(SLEEPER)
    begun(every[:2], lambda: os.kill(os.getpid(), how))
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        work(every, jobs=2)
    for run in every[:2]:
        assert not alive(int((run.folder / "pid").read_text()))
        deadline = time.time() + 5
        while alive(int((run.folder / "child").read_text())) and time.time() < deadline:
            time.sleep(0.01)  # an orphan is gone once init has seen to it
        assert not alive(int((run.folder / "child").read_text()))
        assert run.attempts()[-1]["exit"] == -signal.SIGTERM
    assert not every[2].begun
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_run_that_another_process_works_on_is_left_to_it_even_if_its_starter_was_killed(
    every, trainer, tmp_path
):
    trainer("import signal\n(run / 'child').touch()\nsignal.pause()")
    code = f"""
import sys
from avalign.studies import grid
from avalign.config.recipe import Recipe
from pathlib import Path
grid.TRAIN = {grid.TRAIN!r}
run = grid.Run("both", 0, Recipe("small-both"), Path({str(every[0].folder)!r}))
grid.run_all([run], {{}}, jobs=1, threads=1, say=print, done=print)
"""
    starter = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    deadline = time.time() + 60
    while not (every[0].folder / "child").exists() and time.time() < deadline:
        time.sleep(0.02)
    starter.kill()
    starter.wait()
    trained = int((every[0].folder / "pid").read_text())
    trainer(FINISH)
    try:
        assert alive(trained)
        failed, _ = work(every[:2])
        assert failed == {"both seed 0": f"{every[0].folder} is being worked on by another process"}
        assert every[1].finished
    finally:
        os.kill(trained, signal.SIGKILL)
    deadline = time.time() + 20
    while work(every[:1])[0] and time.time() < deadline:  # the lock goes with the process
        time.sleep(0.02)
    assert every[0].finished


def test_time_counts_attempts_that_nobody_saw_end(every):
    run = every[0]
    run.folder.mkdir(parents=True)
    (run.folder / "attempts.jsonl").write_text('{"started": 1000.0, "threads": 1, "jobs": 1}\n{"star')
    (run.folder / "log.jsonl").write_text("{}\n")
    os.utime(run.folder / "log.jsonl", (1090, 1090))
    grid._close_open_attempts(run)
    grid._close_open_attempts(run)
    ended = [record for record in run.attempts() if "seconds" in record]
    assert ended == [{"started": 1000.0, "seconds": 90.0, "exit": None}]


@pytest.mark.parametrize(("seconds", "said"), [(12.4, "12 s"), (302, "5 min 02 s"), (11_100, "3 h 05 min")])
def test_durations_as_people_say_them(seconds, said):
    assert duration(seconds) == said


# ---- the command ---------------------------------------------------------------------------------


def command(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["ablate", *words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_the_command_s_status_says_whether_all_is_finished(tmp_path, trainer):
    study = str(write_study(tmp_path))
    words = [study, "--seeds", "1", "--out", str(tmp_path / "out"), "--jobs", "2", "--threads", "1"]
    trainer("if 'none' in folder: sys.exit('error: no')\n" + FINISH)
    code, output = command(*words)
    assert code == 1
    assert "small: 1 of 2 runs failed: none seed 0" in output
    assert "- none seed 0: failed: error: no" in output
    assert "| both | 1.000 |" in output
    assert command(*words, "--report-only")[0] == 1
    trainer(FINISH)
    assert command(*words)[0] == 0
    assert command(*words, "--report-only")[0] == 0
    assert (tmp_path / "out" / "small" / "report.html").exists()


def test_the_command_takes_settings_of_every_arm_and_names_mistakes(tmp_path, trainer):
    trainer(FINISH)
    study = str(write_study(tmp_path))
    assert command(study, "model.widht=8", "--out", str(tmp_path))[1].startswith(
        "error: command line  model.widht: unknown key 'widht'. Did you mean 'width'?"
    )
    assert "error: name a study: avalign ablate" in command("model.width=8")[1]
    assert command(study, "model.width=64", "--seeds", "1", "--out", str(tmp_path / "o"))[0] == 0
    assert "width: 64" in (tmp_path / "o" / "small" / "none" / "seed-0" / "recipe.yaml").read_text()


# ---- for real ------------------------------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PYTHONPATH", str(BASE.parents[1]))
    text = STUDY.replace("  evaluation: {tasks: [avqa], samples: 10}\n", "  model.width: 16\n")
    return write_study(tmp_path, text)


@pytest.mark.timeout(600)
def test_a_real_grid_that_is_stopped_and_gone_on_with(tiny, tmp_path, monkeypatch):
    """Two arms, a seed. Stopped when the first run has a checkpoint; then that one is not begun anew."""
    small = [word for word in SMALL if not word.startswith("losses.")]  # those are the arms'
    settings = [*small, "evaluation.samples=3", f"data.root={tmp_path / 'world'}"]
    first = tmp_path / "out" / "small" / "both" / "seed-0"

    def sleep(seconds: float) -> None:
        """Looks more often than the grid does: a checkpoint is gone when its run is done."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if list(first.glob("checkpoints/*/checkpoint-*/complete")):
                raise KeyboardInterrupt
            time.sleep(0.005)

    said: list[str] = []

    def go() -> bool:
        out = tmp_path / "out"
        return ablate([str(tiny)], settings, seeds="1", jobs=1, threads=1, out=out, say=said.append)

    with monkeypatch.context() as patch:
        patch.setattr(grid, "time", SimpleNamespace(**{**vars(time), "sleep": sleep}))
        try:
            go()
        except KeyboardInterrupt:
            pass
        else:
            logs = {str(log): log.read_text()[-2000:] for log in tmp_path.rglob("terminal.log")}
            pytest.fail(f"no run was stopped: {said}, {logs}")
    assert "stopped; the same command goes on" in said[-1]
    assert not (first / "report.html").exists()
    said.clear()
    assert go(), said
    assert "both seed 0" in said[1]
    attempts = {run: len((tmp_path / "out" / "small" / run / "attempts.jsonl").read_text().splitlines()) // 2
                for run in ("both/seed-0", "none/seed-0")}  # fmt: skip
    assert attempts == {"both/seed-0": 2, "none/seed-0": 1}
    table = json.loads((tmp_path / "out" / "small" / "table.json").read_text())
    assert table["warnings"] == []
    for arm in ("both", "none"):
        assert table["arms"][arm]["scores"]["arig/mean IoU"]["n"] == 1
        assert table["arms"][arm]["seconds"]["mean"] > 0
    assert table["arms"]["none"]["scores"]["avfc/accuracy"]["difference"]["n"] == 1
    logs = {
        arm: (tmp_path / "out" / "small" / arm / "seed-0" / "log.jsonl").read_text()
        for arm in ("both", "none")
    }
    assert '"avopt"' in logs["both"]
    assert '"avopt"' not in logs["none"]
    assert [json.loads(line)["step"] for line in logs["both"].splitlines()] == [1, 2, 3, 1, 2, 3, 4]
