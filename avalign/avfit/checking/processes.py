"""Work shared by processes, in order, few tasks under way; a process that dies costs one task."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


def in_processes(
    work: Callable[[Task], Result], tasks: Iterable[Task], processes: int
) -> Iterator[tuple[Task, Result | None]]:
    """Every task and its result, in the order of the tasks; None where the process died of it.

    With one process all is done in this one, which then dies itself of what kills a process.
    """
    if processes == 1:
        for task in tasks:
            yield task, work(task)
        return
    pool = _pool(processes)
    under_way: deque[tuple[Task, Future[Result]]] = deque()
    try:
        for task in tasks:
            try:
                under_way.append((task, pool.submit(work, task)))
            except BrokenProcessPool:
                yield from _one_by_one(work, [*(t for t, _ in under_way), task])
                under_way.clear()
                pool = _pool(processes)
            while len(under_way) >= 3 * processes:
                yield from _next(work, under_way)
        while under_way:
            yield from _next(work, under_way)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _next(
    work: Callable[[Task], Result], under_way: deque[tuple[Task, Future[Result]]]
) -> Iterator[tuple[Task, Result | None]]:
    task, future = under_way[0]
    try:
        result = future.result()
    except BrokenProcessPool:  # all that were under way are lost, whichever of them it was
        lost = [t for t, _ in under_way]
        under_way.clear()
        yield from _one_by_one(work, lost)
    else:
        under_way.popleft()
        yield task, result


def _one_by_one(work: Callable[[Task], Result], tasks: list[Task]) -> Iterator[tuple[Task, Result | None]]:
    pool = _pool(1)
    try:
        for task in tasks:
            try:
                yield task, pool.submit(work, task).result()
            except BrokenProcessPool:
                yield task, None
                pool = _pool(1)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _pool(processes: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))
