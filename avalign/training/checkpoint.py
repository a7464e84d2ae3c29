"""Checkpoints: what is written of a model in training, and which of them can be gone on from."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file

from avalign.errors import AvalignError
from avalign.losses.objective import Objective
from avalign.model.model import AudioVisualLM
from avalign.system.complete import COMPLETE, damage, is_complete
from avalign.system.terminal import warn
from avalign.weights.strict import load_exactly

# torch.save says of a full disk "unexpected pos 557952 vs 557840", or nothing but "iostream error"
OF_WRITING = ("iostream", "inline_container", "StreamWriter", "unexpected pos", "No space left")
LOSSES = "losses.safetensors"  # what the losses themselves have learnt: a temperature


def save(folder: Path, model: AudioVisualLM, objective: Objective, trained: set[str]) -> None:
    model.save(folder, trained)
    weights = {name: weight.detach().cpu().contiguous() for name, weight in objective.state_dict().items()}
    if weights:
        save_file(weights, folder / LOSSES, metadata={"format": "pt"})


def load(folder: Path, model: AudioVisualLM, objective: Objective, trained: set[str]) -> None:
    model.load(folder, trained)
    expected = objective.state_dict()
    if expected or (folder / LOSSES).exists():
        load_exactly(objective, folder / LOSSES, expected)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """AvalignError if the folder cannot be written to its end; what there is of it is removed."""
    try:
        yield
    except Exception as error:  # tokenizers raises nothing narrower than that
        if not isinstance(error, OSError | SafetensorError) and not any(
            word in str(error) for word in OF_WRITING
        ):
            raise
        free = shutil.disk_usage(folder.parent).free / 2**20
        if not (folder / COMPLETE).exists():
            shutil.rmtree(folder, ignore_errors=True)  # it may be what fills the disk
        why = error.strerror if isinstance(error, OSError) else str(error).partition("\n")[0]
        raise AvalignError(
            f"{folder}: cannot be written: {why} ({free:.1f} MiB are free). What was written before is "
            "whole: make room, and go on with --resume"
        ) from error


def last_complete(folder: Path) -> Path | None:
    """The latest checkpoint that was written to its end; those cut short are removed."""
    complete = []
    for checkpoint in by_step(folder):
        if not (checkpoint / COMPLETE).exists():
            shutil.rmtree(checkpoint, ignore_errors=True)
        elif (what := damage(checkpoint)) is not None:
            warn(f"{what}; an earlier checkpoint counts")
        else:
            complete.append(checkpoint)
    return complete[-1] if complete else None


def by_step(folder: Path) -> list[Path]:
    """Of a stage, from the first to the last. Not by their times: clocks jump, and copies are all new."""
    found = [path for path in folder.glob("checkpoint-*") if path.name.rpartition("-")[2].isdecimal()]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path | None) -> int:
    return 0 if checkpoint is None else int(checkpoint.name.rpartition("-")[2])


def forget_old(folder: Path, keep: int) -> None:
    """Only those before `keep` whole ones: one that was just begun is no reason to drop another."""
    for checkpoint in [one for one in by_step(folder) if is_complete(one)][:-keep]:
        shutil.rmtree(checkpoint)
