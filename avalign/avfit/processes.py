"""Work shared out among processes that end when the one that began them does."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from avalign.errors import AvalignError
from avalign.system.processes import pool_of

Task = TypeVar("Task")
Result = TypeVar("Result")


def shared_out(
    work: Callable[[Task], Any], units: Sequence[Task], jobs: int, name: Callable[[Task], str] = str
) -> Iterator[Task]:
    """Each unit when it is done, in any order. With one job, in this process.

    work: a function of a module, so that a process that is started anew finds it
    """
    if jobs == 1 or len(units) <= 1:
        for unit in units:
            work(unit)
            yield unit
        return
    with pool_of(min(jobs, len(units))) as pool:
        pending = {pool.submit(_told, work, unit): unit for unit in units}
        try:
            for future in as_completed(pending):
                problem = future.result()
                if problem is not None:
                    raise AvalignError(problem)
                yield pending[future]
        except BrokenProcessPool:
            raise AvalignError(
                "a process of the build was killed, by the system for want of memory perhaps: the same "
                "command goes on; give it fewer --jobs"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _told(work: Callable[[Task], Any], unit: Task) -> str | None:
    """What an AvalignError said; some of its kinds cannot be sent from one process to another."""
    try:
        work(unit)
    except AvalignError as error:
        return str(error)
    return None


def in_processes(
    work: Callable[[Task], Result], tasks: Iterable[Task], processes: int
) -> Iterator[tuple[Task, Result | None]]:
    """Every task and its result, in the order of the tasks; None where the process died of it.

    Few tasks are under way at a time, and a process that dies costs no other task than its own.
    With one process all is done in this one, which then dies itself of what kills a process.
    """
    if processes == 1:
        for task in tasks:
            yield task, work(task)
        return
    pool = pool_of(processes)
    under_way: deque[tuple[Task, Future[Result]]] = deque()
    try:
        for task in tasks:
            try:
                under_way.append((task, pool.submit(work, task)))
            except BrokenProcessPool:
                yield from _one_by_one(work, [*(t for t, _ in under_way), task])
                under_way.clear()
                pool = pool_of(processes)
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
    pool = pool_of(1)
    try:
        for task in tasks:
            try:
                yield task, pool.submit(work, task).result()
            except BrokenProcessPool:
                yield task, None
                pool = pool_of(1)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
