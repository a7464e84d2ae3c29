"""How processes that share work are started: anew, never as copies of this one.

A forked copy has the locks of this process, but not the threads that would release them: with jax loaded,
or after torch has computed on several threads, it may wait for ever. A process started anew imports what
its work names, a fraction of a second as long as that is not torch.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import types
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import TYPE_CHECKING, TypeVar

from avalign.errors import AvalignError

Item = TypeVar("Item")
Made = TypeVar("Made")

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    Loader = TypeVar("Loader", bound=DataLoader)


class _Process(SpawnProcess):
    def start(self) -> None:
        """Without the user's script, which would be run again in each: it needs no __main__ guard."""
        script = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            super().start()
        finally:
            sys.modules["__main__"] = script


class _Context(SpawnContext):
    Process = _Process


UNSAFE = ("av", "jax")  # of which the threads are gone in a fork (av's from its release 19 on)
CONTEXT = _Context()  # of multiprocessing; the work is a function of a module, not of the script


def pool_of(processes: int) -> ProcessPoolExecutor:
    """Of processes that end when this one does, however it ends."""
    return ProcessPoolExecutor(processes, CONTEXT, initializer=_end_with_parent)


def _end_with_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that began this one
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def shared_map(
    work: Callable[[Item], Made], items: Iterable[Item], workers: int, chunk: int = 1
) -> Generator[Made]:
    """What `work` makes of each, in their order. AvalignError if a process dies: none is started for ever."""
    pool = pool_of(workers)
    try:
        yield from pool.map(work, items, chunksize=chunk)
    except BrokenProcessPool as error:
        raise AvalignError(
            "a process that shares the work has died, of memory that ran out perhaps"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def start_anew(loader: Loader) -> Loader:
    """The same, whose workers are no forks where forks have been seen to wait for ever.

    Else torch's default: forks import nothing, and a worker needs torch, which takes seconds.
    """
    if loader.num_workers and any(name in sys.modules for name in UNSAFE):
        for each in (loader, getattr(loader, "base_dataloader", loader)):  # the one that accelerate wraps
            each.multiprocessing_context = CONTEXT
    return loader
