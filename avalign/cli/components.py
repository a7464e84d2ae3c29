"""The commands that show recipes and components: check, options, list."""

from __future__ import annotations

from typing import Annotated

import typer

from avalign import registry
from avalign.cli.arguments import Overrides, TrustCode, read_here
from avalign.system.terminal import tell, tell_table


def check(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="YAML file, or a name of `avalign recipes`.")
    ],
    overrides: Overrides = None,
    size: Annotated[
        bool, typer.Option("--size", help="Print what the model weighs, part by part, and in memory.")
    ] = False,
    trust_code: TrustCode = False,
) -> None:
    """Print a recipe with every default filled in, or all that is wrong with it."""
    from avalign.config.recipe_file import dump

    read = read_here(recipe, overrides or [])
    if not size:
        tell(dump(read).rstrip("\n"))
        return
    from avalign.export import size as weighing

    for title, header, rows in weighing.tables(read, weighing.size(read)):
        tell(f"\n{title}")
        tell_table(header, rows, full_width=True)


def options(
    kind: Annotated[str, typer.Argument(help="loss, projector, fusion, ...")],
    name: Annotated[str, typer.Argument(help="As in a recipe: avopt, or my_module:MyLoss.")],
) -> None:
    """Print a component's manual and every option it takes."""
    manual = registry.manual(kind, name)
    tell(f"{manual.kind} {manual.name}  ({manual.location})\n")
    tell(f"{manual.text}\n")
    if manual.options:
        tell_table(("option", "type", "default"), [(o.name, o.type, o.default) for o in manual.options])
    else:
        tell("It has no options.")


def list_components(
    kind: Annotated[str | None, typer.Argument(help="Only this kind: loss, projector, ...")] = None,
) -> None:
    """Print every component by kind, with the first line of its manual."""
    rows = []
    for each in registry.SHIPPED if kind is None else [registry.kind_named(kind)]:
        for name in registry.names(each):
            try:
                text = registry.manual(each, name).text.partition("\n")[0]
            except Exception as error:  # someone's component may fail in any way; the others still count
                text = f"cannot be used: {error}"
            rows.append((each, name, text))
    tell_table(("kind", "name", "what it is"), rows)
