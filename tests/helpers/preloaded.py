"""Processes that need not import torch: forked from one server, started once, that has done so and no more.

A process started anew takes seconds of nothing but imports. What is asked of it is the same in a fork of the
server, which has computed nothing and has no threads; that avalign itself starts its processes anew, and
ends them with itself, is asked of real ones, in tests/system and in tests/bench.
"""

from __future__ import annotations

import multiprocessing
import sys
import types
from multiprocessing.context import ForkServerContext, ForkServerProcess

import pytest

from avalign.bench import workers

IMPORTED = [
    "torch",
    "torch._dynamo",
    "ot",
    "avalign.bench.workers",
    "avalign.bench.ours",
    "tests.helpers.bench_fakes",
]


class _Process(ForkServerProcess):
    def start(self) -> None:
        """Without pytest's own script, as avalign.system.processes does it."""
        script = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            super().start()
        finally:
            sys.modules["__main__"] = script


class _Context(ForkServerContext):
    Process = _Process


CONTEXT = _Context()


@pytest.fixture
def preloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The competitors of bench-loss are measured in such processes."""
    multiprocessing.set_forkserver_preload(IMPORTED)
    monkeypatch.setattr(workers, "CONTEXT", CONTEXT)
