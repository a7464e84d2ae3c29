"""What several commands have in common: their arguments, and how they read a recipe."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avalign.errors import AvalignError
from avalign.local_components import trust

if TYPE_CHECKING:
    from avalign.config.recipe import Recipe


def _trust(context: typer.Context, wanted: bool) -> bool:
    context.with_resource(trust.trusting(wanted))  # until the command ends
    return wanted


Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings, as in train.batch_size=8.")
]
TrustCode = Annotated[
    bool,
    typer.Option("--trust-code", callback=_trust, help="Run the Python files that a run carries."),
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]


def read_here(path: str | Path, overrides: Iterable[str]) -> Recipe:
    """With what this machine lacks for it among the problems. path: or the name of one that is shipped"""
    from avalign.config.preflight import lacking
    from avalign.config.recipe_file import read
    from avalign.config.shipped import found

    return read(found(path), list(overrides), lacking=lacking)


def recipe_of(run: Path, overrides: Iterable[str] = ()) -> Recipe:
    path = run / "recipe.yaml"
    if not path.is_file():
        raise AvalignError(f"{run} is not the folder of a run: it holds no recipe.yaml.")
    from avalign.config.recipe_file import read

    return read(path, list(overrides))


def known_split(split: str) -> None:
    if split not in ("train", "val", "test"):
        raise AvalignError(f"--split: no split is named {split!r}. Known: train, val, test.")
