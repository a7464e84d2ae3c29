"""A loader's processes, left alone by signals. Without the Trainer, which each started anew would import."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from typing import Any

from torch.utils.data import get_worker_info

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def undisturbed(collate: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """For a loader's processes: signals to the whole group are for their parent, which needs them."""
    return partial(_collate, collate)


def _collate(collate: Callable[[Any], Any], samples: Any) -> Any:
    if get_worker_info() is not None:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
    return collate(samples)
