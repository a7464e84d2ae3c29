"""Work shared out among processes that end when the one that began them does."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import Any, TypeVar

from avalign.errors import AvalignError

Unit = TypeVar("Unit")


def shared_out(
    work: Callable[[Unit], Any], units: Sequence[Unit], jobs: int, name: Callable[[Unit], str] = str
) -> Iterator[Unit]:
    """Each unit when it is done, in any order. With one job, in this process.

    work: a function of a module, so that a process that is started anew finds it
    """
    if jobs == 1 or len(units) <= 1:
        for unit in units:
            work(unit)
            yield unit
        return
    # forked where that can be done: what is in memory is then shared, and nothing is imported again
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(min(jobs, len(units)), context, initializer=_end_with_parent) as pool:
        places = {pool.submit(_told, work, unit): unit for unit in units}
        try:
            for future in as_completed(places):
                problem = future.result()
                if problem is not None:
                    raise AvalignError(problem)
                yield places[future]
        except BrokenProcessPool:
            raise AvalignError(
                "a process of the build was killed, by the system for want of memory perhaps: the same "
                "command goes on; give it fewer --jobs"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _told(work: Callable[[Unit], Any], unit: Unit) -> str | None:
    """What an AvalignError said; some of its kinds cannot be sent from one process to another."""
    try:
        work(unit)
    except AvalignError as error:
        return str(error)
    return None


def _end_with_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that began this one
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
