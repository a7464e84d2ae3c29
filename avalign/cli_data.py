"""The commands under `avalign data`: thin, one function a command."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

data = typer.Typer(
    help="Build, check and show instruction samples made from data sets on disk.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

ManifestFolder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of a manifest, or its file.")]
MediaRoot = Annotated[
    Path | None, typer.Option("--media", help="Folder that media paths start from; FOLDER if not given.")
]


@data.command()
def check(
    folder: ManifestFolder,
    media: MediaRoot = None,
    no_media: Annotated[bool, typer.Option("--no-media", help="Leave media files alone.")] = False,
    sample: Annotated[int | None, typer.Option(min=0, help="Check only so many media files.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice of media files.")] = 0,
    contents: Annotated[
        bool, typer.Option("--contents", help="Compare files up to 1 MiB between splits by their bytes.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of the report; FOLDER/check if not given.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 on warnings too.")] = False,
    min_rate: Annotated[int, typer.Option(help="Sample rate that a sound should have, Hz.")] = 16_000,
    min_side: Annotated[int, typer.Option(help="Pixels that a picture's shorter side should have.")] = 32,
    silence: Annotated[float, typer.Option(help="A sound is silent below, dB of full scale.")] = -60.0,
    clipped: Annotated[float, typer.Option(help="Share of samples that may be at full scale.")] = 0.001,
    share: Annotated[float, typer.Option(help="Share of a task that one class may have.")] = 0.5,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; one a core if not given.")] = None,
    examples: Annotated[int, typer.Option(min=0, help="Examples printed of each finding.")] = 3,
) -> None:
    """Find what is wrong with a manifest and its media. Exit status: 0 no error, 1 errors, 2 cannot run."""
    from avalign.avfit.check import Options
    from avalign.avfit.check_media import Limits
    from avalign.avfit.check_report import checked_and_reported, told

    limits = Limits(min_side, min_rate, silence, clipped)
    options = Options(not no_media, sample, seed, contents, share, limits, workers or os.cpu_count() or 1)
    beside = folder if folder.is_dir() else folder.parent
    place = beside / "check" if out is None else out
    report = checked_and_reported(folder, media or beside, place, options)
    told(report, examples)
    typer.echo(f"The whole report: {place / 'report.md'}")
    if report["errors"] or (strict and report["warnings"]):
        raise typer.Exit(1)


@data.command()
def show(
    folder: ManifestFolder,
    out: Annotated[Path, typer.Option(help="The page to write, HTML.")],
    media: MediaRoot = None,
    task: Annotated[str | None, typer.Option(help="Only of this task.")] = None,
    split: Annotated[str | None, typer.Option(help="Only of this split.")] = None,
    source: Annotated[str | None, typer.Option(help="Only of this data set.")] = None,
    label: Annotated[str | None, typer.Option(help="Only of this class.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Samples shown.")] = 24,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw.")] = 0,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each sound, at most.")] = 10.0,
) -> None:
    """Write samples of a manifest as a page: pictures with boxes, sounds with intervals and a player."""
    from avalign.avfit.show import show as show_samples

    root = media or (folder if folder.is_dir() else folder.parent)
    shown = show_samples(
        folder,
        root,
        out,
        task=task,
        split=split,
        source=source,
        label=label,
        count=count,
        seed=seed,
        seconds=seconds,
    )
    typer.echo(f"{out}: {shown} samples")
