"""Resuming from a state that is refused, cut, or another's ends in a line that names the file."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from avalign.config.recipe_file import read
from avalign.errors import AvalignError
from avalign.system.complete import mark_complete
from avalign.training import checkpoint
from avalign.training.train import train
from tests.helpers.paths import RECIPE
from tests.helpers.runs import SMALL

STAGE = "train.stages=[{name: only, steps: 2}]"


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (Path.touch, (self.mark,))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A run that was stopped after its first checkpoint."""
    home = tmp_path_factory.mktemp("stopped")
    recipe = read(RECIPE, [*SMALL, f"data.root={home}", STAGE, "train.checkpoint_every=1"])

    class Stop(Exception):
        pass

    def stop(*_: Any) -> None:
        raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "save", _first_then(checkpoint.save, stop))
        with pytest.raises(Stop):
            train(recipe, home / "run")
    return recipe, home / "run"


def _first_then(first: Any, then: Any) -> Any:
    calls: list[int] = []

    def called(*given: Any) -> Any:
        calls.append(1)
        return (first if len(calls) == 1 else then)(*given)

    return called


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
@pytest.mark.parametrize("how", ["refused", "cut", "empty", "a list", "another's"])
def test_a_state_that_will_not_do_is_named_in_a_line(
    stopped: tuple[Any, Path], tmp_path: Path, name: str, how: str
) -> None:
    recipe, run = stopped[0], Path(shutil.copytree(stopped[1], tmp_path / "run"))
    file = run / "checkpoints" / "1-only" / "checkpoint-1" / name
    assert file.is_file()
    content, mark = file.read_bytes(), tmp_path / "mark"
    if how == "refused":
        file.write_bytes(pickle.dumps(Evil(mark)))
    elif how in ("cut", "empty"):
        file.write_bytes(content[: len(content) // 2 if how == "cut" else 0])
    else:
        torch.save([1] if how == "a list" else {"x": 1}, file)
    mark_complete(file.parent)  # as a stranger would have: a file of another size is told before
    with pytest.raises(AvalignError, match=name) as told:
        train(recipe, run, resume=True)
    assert "\n" not in str(told.value)
    assert not mark.exists()


def test_a_missing_optimizer_is_not_made_up(stopped: tuple[Any, Path], tmp_path: Path) -> None:
    run = Path(shutil.copytree(stopped[1], tmp_path / "run"))
    (run / "checkpoints" / "1-only" / "checkpoint-1" / "optimizer.pt").unlink()
    mark_complete(run / "checkpoints" / "1-only" / "checkpoint-1")
    with pytest.raises(AvalignError, match=r"optimizer\.pt: there is no such file"):
        train(stopped[0], run, resume=True)
