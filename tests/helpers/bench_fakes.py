"""Competitors that do what other people's libraries do at their worst, by name; only the good ones are right.

At the top of a module, as they are called in another process.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avalign.bench.competitor import Competitor, Ready, Settings, Unavailable
from avalign.bench.inputs import Features
from avalign.bench.ours import OURS

LARGE = 2**30  # bytes, more than any test allows


class Wordless(Exception):
    def __str__(self) -> str:
        raise ValueError("no word")


def sleep() -> None:
    time.sleep(600)


def tell_and_sleep() -> None:
    """Tells its process, whole or not at all, in the file that the environment names."""
    told = Path(os.environ["BENCH_FAKES_TELL"])
    beside = told.with_suffix(".beside")
    beside.write_text(str(os.getpid()))
    beside.rename(told)
    sleep()


def die() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def unwound() -> None:
    """As XLA's compiler ends its process."""
    print(
        "terminate called after throwing an instance of 'std::bad_alloc'\n@ 0x7f", file=sys.stderr, flush=True
    )
    os.abort()


def abort() -> None:
    print("terminate called: \x1b[31mno way", file=sys.stderr, flush=True)
    os.abort()


def leave() -> None:
    os._exit(0)


def numpy_memory() -> None:
    np.ones(LARGE, dtype=np.uint8)


def torch_memory() -> None:
    torch.ones(LARGE // 4)


def wordless() -> None:
    raise Wordless


def lines() -> None:
    raise RuntimeError("first line\nsecond line")


def cannot() -> None:
    raise Unavailable("no such processor")


def chatter() -> None:
    print("chatter " * 100_000, flush=True)


def exact(given: Features, settings: Settings) -> Ready:
    (found,) = (each for each in OURS if each.name == "exact")
    return found.prepare(given, settings)


def at_once(given: Features, settings: Settings, does: Callable[[], None]) -> Ready:
    does()
    return exact(given, settings)


def when_timed(given: Features, settings: Settings, does: Callable[[], None]) -> Ready:
    """Does it in the second repeat of the interleaved runs."""
    ready, calls = exact(given, settings), [0]

    def forward() -> Any:
        calls[0] += 1
        if calls[0] == 3:  # the first is the warm-up
            does()
        return ready.forward()

    return replace(ready, forward=forward)


def only_once(given: Features, settings: Settings, marks: str) -> Ready:
    """Makes ready, and when it is asked again, raises."""
    if Path(marks).exists():
        raise RuntimeError("not a second time")
    Path(marks).touch()
    return exact(given, settings)


def shape(given: Features, settings: Settings) -> Any:
    """Says by its failure which problem it was given."""
    raise RuntimeError(tuple(given.image.shape))


def garbage(given: Features, settings: Settings) -> Any:
    return {"not": "ready"}


def strange(given: Features, settings: Settings) -> Ready:
    return replace(exact(given, settings), iterations=partial)  # type: ignore[arg-type]


def nan(given: Features, settings: Settings) -> Ready:
    ready = exact(given, settings)

    def answer() -> Any:
        found = ready.answer()
        return replace(found, value=found.value * torch.nan, image=found.image * torch.nan)

    return replace(ready, answer=answer)


def doing(does: Callable[[], None], process: str = "torch") -> Competitor:
    return Competitor(does.__name__, "", partial(at_once, does=does), process=process)
