"""The commands under `avalign data`: thin, one function a command."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

import typer

from avalign.errors import AvalignError

data = typer.Typer(
    help="Build, check and show instruction samples made from data sets on disk.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@data.command()
def shard(
    manifest: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of a manifest, or its file.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    media: Annotated[
        Path | None, typer.Option("--media", help="Folder that media paths start from; FOLDER if not given.")
    ] = None,
    size: Annotated[str, typer.Option(help="Of a tar file: 1GB, 500MB.")] = "1GB",
    seed: Annotated[int, typer.Option(min=0, help="Of the order of training records in the tars.")] = 0,
) -> None:
    """Pack a manifest with its media into WebDataset tar files. The same command goes on where it stopped."""
    from avalign.data.shards.pack import pack

    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMGT]?)B", size)
    if found is None or not (limit := int(float(found[1]) * 1000 ** " kMGT".index(found[2] or " "))):
        raise AvalignError(f"--size {size!r}: a number of bytes is needed, such as 1GB or 500MB")
    shards = pack(
        manifest,
        out,
        media=media,
        size=limit,
        seed=seed,
        progress=lambda file, count: typer.echo(f"... {file.name}: {count:,} records", err=True),
        workers=os.cpu_count() or 1,
    )
    records, total = sum(s.records for s in shards), sum(s.bytes for s in shards)
    typer.echo(f"{records:,} records in {len(shards):,} shards of {total / 1e6:,.1f} MB together: {out}")
