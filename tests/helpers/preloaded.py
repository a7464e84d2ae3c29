"""Processes that need not import torch: forked from one server, started once, that has done so and no more.

A process started anew takes seconds of nothing but imports. What is asked of it is the same in a fork of the
server, which has computed nothing. That avalign starts its processes anew, and that none
outlives it, is asked of real ones: in tests/system/test_processes.py, tests/data/test_loader_processes.py
and tests/bench/test_limits.py.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import types
from multiprocessing.context import ForkServerContext, ForkServerProcess

import pytest

from avalign.system import processes

IMPORTED = [
    *("torch", "torch._dynamo", "torch.utils.data", "ot", "transformers.tokenization_utils_tokenizers"),
    *("avalign.llm", "avalign.encoders.clips", "avalign.data.avworld", "avalign.data.manifest"),
    *("avalign.bench.workers", "avalign.bench.ours", "tests.helpers.bench_fakes", "tests.helpers.tiny"),
]


class _Process(ForkServerProcess):
    def start(self) -> None:
        """With today's environment, not the server's; without pytest's own script, as avalign does it."""
        self._environment = dict(os.environ)
        script = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            super().start()
        finally:
            sys.modules["__main__"] = script

    def run(self) -> None:
        os.environ.clear()
        os.environ.update(self._environment)
        super().run()


class _Context(ForkServerContext):
    Process = _Process


CONTEXT = _Context()


def preload(patch: pytest.MonkeyPatch) -> None:
    multiprocessing.set_forkserver_preload(IMPORTED)
    patch.setattr(processes, "CONTEXT", CONTEXT)


@pytest.fixture
def preloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loaders, competitors and shared work are such processes."""
    preload(monkeypatch)
