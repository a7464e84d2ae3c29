"""What a checkpoint holds beside weights: the optimizer's state, the schedule's, the random numbers'."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer
from transformers.trainer_pt_utils import safe_globals

from avalign.errors import AvalignError

STATES = ("optimizer.pt", "scheduler.pt")


class StateTrainer(Trainer):
    """transformers' Trainer; of a file of a checkpoint that it cannot go on from, a line that names it."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        folder = None if checkpoint is None else Path(checkpoint)
        for name in STATES if folder is not None else ():  # the Trainer would begin anew without a word
            if not (folder / name).is_file():  # type: ignore[operator]
                raise AvalignError(f"{folder}/{name}: there is no such file, and no going on without it")
        with _told(folder, STATES):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        name = "rng_state.pth" if self.args.world_size == 1 else f"rng_state_{self.args.process_index}.pth"
        with _told(None if checkpoint is None else Path(checkpoint), (name,)):
            super()._load_rng_state(checkpoint)


@contextmanager
def _told(folder: Path | None, names: tuple[str, ...]) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of pickle, zipfile, torch and the optimizer, by where the file is wrong
        if folder is None:
            raise
        for name in names:
            if (why := _unreadable(folder / name)) is not None:
                raise AvalignError(f"{folder / name}: {why}; go on from an earlier checkpoint") from error
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise AvalignError(
            f"{' or '.join(str(folder / name) for name in names)}: is not of this training: {first}"
        ) from error


def _unreadable(file: Path) -> str | None:
    import pickle

    try:
        with safe_globals():
            found: Any = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        return "is refused: it holds more than numbers, and such a file can run code, or it is cut"
    except Exception as error:
        return f"is no complete file of PyTorch's ({(str(error).splitlines() or ['?'])[0]})"
    return None if isinstance(found, dict) else f"holds a {type(found).__name__}, not a state"
