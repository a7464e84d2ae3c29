"""The commands under `avalign recipes`: what is shipped, and a copy of it to change."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from avalign.system.terminal import tell, tell_table

recipes = typer.Typer(
    help="List the recipes, studies and plans that come with avalign; copy one to change it.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
)


@recipes.callback()
def list_shipped(context: typer.Context) -> None:
    """Print every recipe, study and plan that comes with avalign, by the name that commands take."""
    if context.invoked_subcommand is not None:
        return
    from avalign.config.shipped import COMMAND, shipped

    rows = [(each.name, each.kind, each.about) for each in shipped()]
    tell_table(("name", "kind", "what it is"), rows, full_width=True)
    tell("; ".join(f"a {kind}: {command} NAME" for kind, command in COMMAND.items()))


@recipes.command()
def copy(
    name: Annotated[str, typer.Argument(help="As `avalign recipes` lists it: meerkat, ablations/alignment.")],
    to: Annotated[Path, typer.Option(file_okay=False, help="Folder to write.")] = Path("recipes"),
) -> None:
    """Copy a recipe, study or plan, with what it extends."""
    from avalign.config.shipped import copy as copy_shipped

    for path, written in copy_shipped(name, to):
        tell(str(path) if written else f"{path} (there already)")
