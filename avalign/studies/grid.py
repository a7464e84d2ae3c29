"""Every arm under every seed: a run folder each, made by `avalign train` in a process of its own.

    runs/ablations/fusion/none/seed-0/       the run, as any other
    runs/ablations/fusion/none/seed-0.yaml   the recipe it was given
    .../seed-0/terminal.log, attempts.jsonl  what it printed; when it was started, and how long it took

A run is finished when it has its scores; one that was cut short goes on from its last checkpoint; one that
another process works on (it holds the folder's lock, to its own end) is left to it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avalign.config.recipe import Recipe
from avalign.config.recipe_file import read, write
from avalign.config.saved_recipe import differing
from avalign.errors import AvalignError, Stopped
from avalign.local_components import trust
from avalign.studies.study import Study
from avalign.training.run_folder import has_learnt

POLL = 0.2  # seconds between two looks at the processes
PATIENCE = 20.0  # seconds that a process is given to end by itself
TRAIN = (sys.executable, "-m", "avalign", "train")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Run:
    """One arm under one seed."""

    arm: str
    seed: int
    recipe: Recipe
    folder: Path

    @property
    def label(self) -> str:
        return f"{self.arm} seed {self.seed}"

    @property
    def begun(self) -> bool:
        return (self.folder / "recipe.yaml").is_file()

    @property
    def finished(self) -> bool:
        """Whether it has a model, and scores of all its tasks, written to their end."""
        if not (self.begun and (self.folder / "model" / "complete").exists()):
            return False
        try:
            scores = json.loads((self.folder / "eval" / "scores.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        tasks = set(self.recipe.evaluation.tasks)
        return tasks <= set(scores["tasks"]) and (self.folder / "report.html").is_file()

    @property
    def steps(self) -> int:
        return sum(stage.steps for stage in self.recipe.train.stages)

    def steps_done(self) -> int:
        """By its log, whose lines count anew in every stage."""
        last: dict[str, int] = {}
        with contextlib.suppress(OSError):
            for line in (self.folder / "log.jsonl").read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError, KeyError):  # half a line
                    record = json.loads(line)
                    last[record["stage"]] = record["step"]
        return sum(last.values())

    def attempts(self) -> list[dict[str, Any]]:
        """Every time it was started ("started", s since 1970); again with "seconds" and "exit" at its end."""
        found = []
        with contextlib.suppress(OSError):
            for line in (self.folder / "attempts.jsonl").read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError):
                    found.append(json.loads(line))
        return found


def runs(study: Study, out: Path) -> list[Run]:
    """All runs of a study, seed by seed: with the first seed done, all arms can be compared."""
    return [
        Run(arm, seed, study.recipe(arm, seed), out / study.name / arm / f"seed-{seed}")
        for seed in study.seeds
        for arm in study.arms
    ]


def refuse_changed(all_runs: list[Run]) -> None:
    """Runs that are there but of another recipe are not this study's, and are named."""
    problems = []
    for run in all_runs:
        if run.begun and has_learnt(run.folder):  # a start that failed is begun anew
            changed = differing(read(run.folder / "recipe.yaml"), run.recipe, evaluation=True)
            if changed:
                problems.append("\n".join([f"{run.folder}:", *(f"  {line}" for line in changed)]))
    if problems:
        raise AvalignError(
            "these runs were made with another recipe than the study gives them now. Remove or move them, or "
            "write elsewhere (--out):\n" + "\n".join(problems)
        )


def run_all(
    all_runs: list[Run],
    failed: dict[str, str],
    *,
    jobs: int,
    threads: int,
    say: Say,
    every: float = 60.0,
    done: Callable[[], None],
) -> None:
    """Make the runs that are not finished, `jobs` at once.

    failed:  gets label -> why, of each run that fails
    threads: of each process
    every:   seconds between two lines about what is running
    done:    called after each run that finishes
    """
    grid = _Grid(all_runs, failed, jobs, threads, say, done)
    try:
        with _handled(signal.SIGTERM, _interrupt):
            grid.work(every)
    finally:
        with _handled(signal.SIGINT, signal.SIG_IGN):  # a second Ctrl-C would leave processes behind
            grid.stop()


def _interrupt(number: int, _: object) -> None:
    raise Stopped(number, "stopped; the same command goes on")


@contextlib.contextmanager
def _handled(number: signal.Signals, handler: Any) -> Iterator[None]:
    """A signal handled so for a while, where that can be said: in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


@dataclass
class _Process:
    run: Run
    popen: subprocess.Popen[bytes]
    started: float
    steps_before: int


class _Grid:
    def __init__(
        self,
        all_runs: list[Run],
        failed: dict[str, str],
        jobs: int,
        threads: int,
        say: Say,
        done: Callable[[], None],
    ) -> None:
        self.failed = failed
        self.all, self.jobs, self.threads, self.say, self.done = all_runs, jobs, threads, say, done
        self.waiting = deque(run for run in all_runs if not run.finished)
        self.active: list[_Process] = []
        self.steps, self.busy = 0, 0.0  # steps made here, and the seconds that processes took for them

    def work(self, every: float) -> None:
        finished = len(self.all) - len(self.waiting)
        self.say(
            f"{len(self.all)} runs, {finished} of them finished; {self.jobs} at once, "
            f"{self.threads} thread(s) each"
        )
        told = time.monotonic()
        while self.waiting or self.active:
            while self.waiting and len(self.active) < self.jobs:
                self.start(self.waiting.popleft())
            for process in [p for p in self.active if p.popen.poll() is not None]:
                self.end(process)
            if self.active and time.monotonic() - told > every:
                told = time.monotonic()
                self.say(self.status())
            time.sleep(POLL)

    def start(self, run: Run) -> None:
        run.folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(run.folder / ".lock", os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            self.failed[run.label] = f"{run.folder} is being worked on by another process"
            self.say(f"left    {run.label}: {self.failed[run.label]}")
            return
        _close_open_attempts(run)
        recipe_file = run.folder.with_suffix(".yaml")
        write(run.recipe, recipe_file)
        words = [*TRAIN, str(recipe_file), "--run", str(run.folder)]
        if run.begun:
            words.append("--resume")
        if trust.is_asked():
            words.append("--trust-code")
        with open(run.folder / "terminal.log", "ab") as terminal:
            popen = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=terminal,
                stderr=subprocess.STDOUT,
                env={**os.environ, **dict.fromkeys(THREADS, str(self.threads))},
                start_new_session=True,  # Ctrl-C is for us, who end it together with its loaders
                pass_fds=(lock,),  # the lock lasts as long as the process, should we be killed
            )
        os.close(lock)
        process = _Process(run, popen, time.time(), run.steps_done())
        self.active.append(process)
        _add_attempt(run, {"started": process.started, "threads": self.threads, "jobs": self.jobs})
        how = f"goes on from step {process.steps_before}" if run.begun and process.steps_before else "started"
        self.say(f"{how:<7} {run.label}; {self.left()}")

    def end(self, process: _Process) -> None:
        self.active.remove(process)
        run, code = process.run, process.popen.returncode
        seconds = self.note_end(process)
        self.steps += max(0, run.steps_done() - process.steps_before)
        self.busy += seconds
        if code == 0 and run.finished:
            self.say(f"done    {run.label} in {duration(seconds)}; {self.left()}")
            self.done()
        else:
            why = f"ended by signal {-code}" if code < 0 else _last_words(run)
            self.failed[run.label] = f"{why} ({run.folder / 'terminal.log'})"
            self.say(f"FAILED  {run.label}: {self.failed[run.label]}; {self.left()}")

    def note_end(self, process: _Process) -> float:
        seconds = time.time() - process.started
        record = {"started": process.started, "seconds": round(seconds, 1), "exit": process.popen.returncode}
        _add_attempt(process.run, record)
        return seconds

    def left(self) -> str:
        count = len(self.waiting) + len(self.active)
        text = f"{count} of {len(self.all)} left" if count else "none left"
        return f"{text}{self.estimate()}"

    def estimate(self) -> str:
        """Time for the steps that are left, at the rate of those made here; scoring counts in with them."""
        now, steps, busy = time.time(), self.steps, self.busy
        for process in self.active:
            steps += max(0, process.run.steps_done() - process.steps_before)
            busy += now - process.started
        if steps == 0:
            return ""
        ahead = sum(run.steps - run.steps_done() for run in (*self.waiting, *(p.run for p in self.active)))
        return f", about {duration(max(0, ahead) * busy / steps / self.jobs)}" if ahead > 0 else ""

    def status(self) -> str:
        at = ", ".join(f"{p.run.label} at step {p.run.steps_done()} of {p.run.steps}" for p in self.active)
        return f"running {at}; {self.left()}"

    def stop(self) -> None:
        """End every process that is still there, with all that it started. Checkpoints stay."""
        for process in self.active:
            _signal(process.popen, signal.SIGTERM)
        deadline = time.monotonic() + PATIENCE
        for process in self.active:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.popen.wait(max(0.1, deadline - time.monotonic()))
            _signal(process.popen, signal.SIGKILL)
            process.popen.wait()
            self.note_end(process)
        self.active = []


def _signal(popen: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(popen.pid, number)


def _add_attempt(run: Run, record: dict[str, Any]) -> None:
    """A line when it starts, and the same start with its end."""
    with open(run.folder / "attempts.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def _close_open_attempts(run: Run) -> None:
    """An attempt whose end nobody saw, for we were killed too, lasted until it last wrote something."""
    ended = {record["started"] for record in run.attempts() if "seconds" in record}
    for record in run.attempts():
        if record["started"] not in ended:
            wrote = max((path.stat().st_mtime for path in _written(run)), default=record["started"])
            seconds = max(0.0, wrote - record["started"])
            _add_attempt(run, {"started": record["started"], "seconds": round(seconds, 1), "exit": None})
            ended.add(record["started"])


def _written(run: Run) -> Iterator[Path]:
    names = ("log.jsonl", "terminal.log", "report.html")
    return (path for name in names if (path := run.folder / name).is_file())


def _last_words(run: Run) -> str:
    """What a run that failed said last: its `error:` line, or the last line of a traceback."""
    try:
        text = (run.folder / "terminal.log").read_bytes()[-20_000:].decode("utf-8", "replace")
    except OSError:
        return "it printed nothing"
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    return (errors or lines or ["it printed nothing"])[-1]


def duration(seconds: float) -> str:
    """ "3 h 05 min", "5 min 02 s", "12 s" """
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
