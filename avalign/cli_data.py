"""The commands under `avalign data`: thin, one function a command."""

from __future__ import annotations

from json import dumps as to_json
from pathlib import Path
from typing import Annotated

import typer

from avalign.errors import AvalignError, suggest

FORMATS = ("jsonl", "parquet")
MEDIA = ("require", "skip")

data = typer.Typer(
    help="Build, check and show instruction samples made from data sets on disk.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@data.command()
def build(
    plan: Annotated[
        str, typer.Argument(metavar="PLAN", help="YAML file, such as recipes/avfit/meerkat.yaml.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings, as in seed=1.")
    ] = None,
    root: Annotated[Path, typer.Option(help="Folder that the data sets' folders lie in.")] = Path("."),
    out: Annotated[Path | None, typer.Option(help="Folder to write; avfit/<name> if not given.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    format: Annotated[str, typer.Option(help="jsonl or parquet.")] = "jsonl",
    media: Annotated[
        str, typer.Option(help="require: refuse what lacks its picture or sound; skip: do not look.")
    ] = "require",
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Also read what links lead to outside the root.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what another plan built.")] = False,
) -> None:
    """Write a plan's records. The same command goes on where it was stopped."""
    from avalign.avfit.build import build as build_plan
    from avalign.avfit.plan import read_plan

    for option, value, known in (("--format", format, FORMATS), ("--media", media, MEDIA)):
        if value not in known:
            raise AvalignError(f"{option}: {value!r} is none of them.{suggest(value, known)}")
    read = read_plan(plan, overrides or [])
    counts = build_plan(
        read,
        root,
        out or Path("avfit") / read.name,
        jobs=jobs,
        format=format,  # type: ignore[arg-type]
        media=media,  # type: ignore[arg-type]
        follow_links=follow_links,
        overwrite=overwrite,
        say=lambda line: typer.echo(line, err=line.startswith("... ")),
    )
    raise typer.Exit(0 if counts["records"] else 1)


@data.command()
def stats(
    manifest: Annotated[Path, typer.Argument(metavar="FOLDER", help="Manifest: its folder, or one file.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Count a manifest's records: tasks, sources, splits, classes, boxes and times, beside the paper's."""
    from avalign.avfit import stats as counting

    tally = counting.count(manifest, lambda line: typer.echo(line, err=True))
    if json:
        typer.echo(to_json(counting.as_plain(tally), indent=1))
        return
    for line in counting.as_text(tally):
        typer.echo(line)
