"""Competitors measured in processes of their own, which may hang, die or be stopped without harm to the rest.

Those of one `Competitor.process` share a process, as all of torch does, so that they meet the same threads
and the same warm memory. When one of them is stopped or dies, the others are made ready again in a new
process, each when its turn comes.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avalign.bench.competitor import Competitor, Settings
from avalign.bench.inputs import Features
from avalign.bench.limits import Limits, bound_jax, gib, tells_of_memory
from avalign.bench.machine import all_cores
from avalign.bench.measure import Sample
from avalign.bench.trial import LONGEST, Lost, Part, Trial, no
from avalign.bench.truth import Truth
from avalign.system import processes
from avalign.system.escape import visible

_TELLS = re.compile(r"\w(Error|Exception|Interrupt)\b|what\(\)|terminate called|libgomp:", re.ASCII)
BOOT = 300.0  # seconds for an interpreter with torch, however busy the machine
ENDING = 5.0  # seconds for a process that has closed its pipe
LAST_WORDS = 20_000  # bytes, a stack among them
PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass
class _Worker:
    process: Any  # multiprocessing's
    pipe: Connection
    log: Path  # what is written to its standard output and error
    begun: bool = False  # with the problem of now
    ready: set[str] = field(default_factory=set)


class Workers:
    """A Trial in each of several processes. Used as a context: at its end none of them is left."""

    def __init__(self, device: torch.device, limits: Limits, threads: int) -> None:
        self.device, self.limits, self.threads = device, limits, threads
        self._folder = tempfile.TemporaryDirectory(prefix="avalign-bench-")
        self._problem: tuple[Any, ...] = ()
        self._started = 0
        self._workers: dict[str, _Worker] = {}

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *error: object) -> None:
        for name in list(self._workers):
            self._end(name)
        self._folder.cleanup()

    def begin(self, features: Features, settings: Settings, truth: Truth) -> None:
        """From now on this is the problem, and nobody is ready for it."""
        self._problem = _packed(features), settings, _packed(truth)
        for worker in self._workers.values():
            worker.begun, worker.ready = False, set()

    def prepare(self, competitor: Competitor) -> dict[str, Any]:
        """The row as Trial.prepare gives it, also where it had to be stopped."""
        try:
            row: dict[str, Any] = self._ask(competitor, "prepare", competitor)
        except Lost as lost:
            return no(lost.status, lost.why)
        if row["status"] == "measured":
            self._workers[competitor.process].ready.add(competitor.name)
        return row

    def time(self, competitor: Competitor, part: Part) -> Sample:
        self._make_ready(competitor)
        sample: Sample = self._ask(competitor, "time", competitor.name, part)
        return sample

    def device_seconds(self, competitor: Competitor) -> float | None:
        self._make_ready(competitor)
        seconds: float | None = self._ask(competitor, "device_seconds", competitor.name)
        return seconds

    def _make_ready(self, competitor: Competitor) -> None:
        worker = self._workers.get(competitor.process)
        if worker is None or competitor.name not in worker.ready:
            row = self.prepare(competitor)
            if row["status"] != "measured":
                raise Lost(row["status"], row["note"])

    def _ask(self, competitor: Competitor, *request: Any) -> Any:
        name = competitor.process
        worker = self._workers.get(name) or self._start(name)
        if not worker.begun:
            self._exchange(name, ("begin", *self._problem), BOOT)
            worker.begun = True
        return self._exchange(name, request, self.limits.seconds)

    def _exchange(self, name: str, request: tuple[Any, ...], seconds: float) -> Any:
        """One request and its answer. The process ends with whatever else than an answer comes of it."""
        worker, usable = self._workers[name], False
        try:
            with contextlib.suppress(BrokenPipeError):  # it has died, and is asked below for its answer
                worker.pipe.send(request)
            if not worker.pipe.poll(seconds):
                raise Lost("stopped", f"over the time limit of {seconds:g} s")
            try:
                status, found, usable = worker.pipe.recv()
            except Exception as error:  # the end of a process, or what is left of its last word
                raise self._ended(worker) from error
        finally:
            if not usable:
                self._end(name)
        if status == "ok":
            return found
        raise Lost(status, found)

    def _start(self, name: str) -> _Worker:
        """It tells by itself when it has begun."""
        ours, theirs = processes.CONTEXT.Pipe()
        self._started += 1
        log = Path(self._folder.name) / f"log-{self._started}"
        words = (theirs, log, str(self.device), self.limits, self.threads)
        process = processes.CONTEXT.Process(target=_serve, args=words, daemon=True)
        with all_cores(), _no_interrupt():  # until it is known here, and has said that it will not hear one
            process.start()
            worker = self._workers[name] = _Worker(process, ours, log)
        theirs.close()
        try:
            why = None if ours.poll(BOOT) and ours.recv() else f"no start within {BOOT:g} s"
        except (EOFError, OSError):
            why, _ = _how_it_ended(worker)
        if why is not None:
            self._end(name)
            raise Lost("failed", f"its process: {why}")
        return worker

    def _ended(self, worker: _Worker) -> Lost:
        how, said = _how_it_ended(worker)
        if self.limits.bytes is not None and tells_of_memory(said):
            return Lost("stopped", f"over the memory limit of {gib(self.limits.bytes)}; {how}")
        return Lost("failed", how)

    def _end(self, name: str) -> None:
        worker = self._workers.pop(name, None)
        if worker is None:
            return
        worker.pipe.close()
        if worker.process.exitcode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(worker.process.pid, signal.SIGKILL)  # with whatever it started
            worker.process.kill()
        worker.process.join()


def _serve(pipe: Connection, log: Path, device_name: str, limits: Limits, threads: int) -> None:
    """Answer requests, one at a time, until the other end is closed."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started this
    _die_with_the_parent()
    with log.open("wb", buffering=0) as file:  # a library's own words are no part of the table
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    device = torch.device(device_name)
    torch.set_num_threads(threads)
    bound_jax(limits, device)
    trial: Trial | None = None
    found: Any = None
    pipe.send("begun")
    while True:
        try:
            method, *words = pipe.recv()
        except EOFError:
            return
        try:
            if method == "begin":
                trial = found = None  # their memory is free before the next problem takes its own
                features, settings, truth = words
                trial = _begin(features, settings, truth, device, limits)
            else:
                found = getattr(trial, method)(*words)
            answer = ("ok", found)
        except Lost as lost:
            answer = (lost.status, lost.why)
        pipe.send((*answer, trial is None or not trial.broken))


def _begin(
    features: Features, settings: Settings, truth: Truth, device: torch.device, limits: Limits
) -> Trial:
    gc.unfreeze()  # of the problem before
    gc.collect()
    gc.freeze()  # what is there already is no garbage, and would be walked through before every run
    return Trial(_unpacked(features, device), settings, _unpacked(truth, device), limits)


@dataclass(frozen=True)
class _Packed:
    """A tensor on its way to another process, as numbers alone: torch would share memory instead."""

    array: np.ndarray
    dtype: torch.dtype


def _packed(value: Any) -> Any:
    """A dataclass of tensors and dataclasses, its tensors packed."""
    if isinstance(value, torch.Tensor):
        wide = torch.float64 if value.dtype == torch.float64 else torch.float32  # numpy has no bfloat16
        return _Packed(value.detach().to("cpu", wide).numpy(), value.dtype)
    return _with(_packed, value)


def _unpacked(value: Any, device: torch.device) -> Any:
    if isinstance(value, _Packed):
        return torch.from_numpy(value.array).to(device, value.dtype)
    return _with(lambda each: _unpacked(each, device), value)


def _with(change: Callable[[Any], Any], value: Any) -> Any:
    if not is_dataclass(value):
        return value
    return replace(value, **{each.name: change(getattr(value, each.name)) for each in fields(value)})  # type: ignore[type-var]


@contextlib.contextmanager
def _no_interrupt() -> Iterator[None]:
    """Ctrl-C waits until this is over; a process begun within never gets one."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _die_with_the_parent() -> None:
    """Also when that is killed and can end nothing itself. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _how_it_ended(worker: _Worker) -> tuple[str, str]:
    """In a line; and the last of what it said."""
    worker.process.join(ENDING)
    code = worker.process.exitcode
    if code is None:
        how = "closed its pipe"
    elif code < 0:
        how = f"ended by signal {-code} ({signal.strsignal(-code)})"
        if -code == signal.SIGKILL:
            how += ", as Linux ends a process when memory runs out"
    else:
        how = f"ended by itself with exit status {code}"
    said = worker.log.read_bytes()[-LAST_WORDS:].decode(errors="replace") if worker.log.exists() else ""
    lines = [line.strip() for line in said.split("\n") if line.strip()]
    last = next((line for line in reversed(lines) if _TELLS.search(line)), lines[-1] if lines else "")
    return (f"{how}: {visible(last)[:LONGEST]}" if last else how), said
