"""SIGINT and SIGTERM: the step under way is ended and saved; a second signal ends at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import TrainerCallback

from avalign.errors import Stopped
from avalign.training.undisturbed import SIGNALS


class Stop:
    """What was asked for by a signal, and whether a step is under way that should be ended first."""

    def __init__(self, go_on: str) -> None:
        self.go_on = go_on  # the command that goes on, to be told
        self.number: int | None = None
        self.in_steps = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Outside the main thread signals are somebody else's."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        owner = os.getpid()
        before = {number: signal.getsignal(number) for number in SIGNALS}

        def asked(number: int, frame: Any) -> None:
            if os.getpid() != owner:  # a process that was forked: its parent decides
                if number == signal.SIGTERM:
                    signal.signal(number, signal.SIG_DFL)
                    os.kill(os.getpid(), number)
                return
            self.number = number
            for one in SIGNALS:  # a second one ends at once
                signal.signal(one, signal.SIG_DFL)
            if not self.in_steps:
                self.end()
            os.write(2, b"\nstopping after this step; once more stops at once\n")

        for number in SIGNALS:
            if before[number] is not signal.SIG_IGN:  # as nohup and some shells want it
                signal.signal(number, asked)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def end(self) -> None:
        """Raise Stopped if it was asked for."""
        if self.number is not None:
            raise Stopped(self.number, f"stopped; go on: {self.go_on}")


class StopAfterStep(TrainerCallback):
    """Ends a training after the step in which a signal came, with a checkpoint; all processes together."""

    def __init__(self, stop: Stop) -> None:
        self.stop = stop

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.stop.in_steps = True

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.world_size > 1:  # a signal reaches them in different steps
            asked = torch.tensor(self.stop.number or 0, device=args.device)
            torch.distributed.all_reduce(asked, op=torch.distributed.ReduceOp.MAX)
            self.stop.number = int(asked) or None
        if self.stop.number is not None:
            control.should_save = control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.stop.in_steps = False
