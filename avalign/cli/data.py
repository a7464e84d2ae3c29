"""The commands under `avalign data`: thin, one function a command."""

from __future__ import annotations

import os
import re
from json import dumps as to_json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avalign.errors import AvalignError, suggest
from avalign.system.terminal import survive_closed_output, tell

if TYPE_CHECKING:
    from avalign.avfit.instructions.replies import Writer

FORMATS = ("jsonl", "parquet")
MEDIA = ("require", "skip")

data = typer.Typer(
    help="Build, check and show instruction samples made from data sets on disk.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

ManifestFolder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of a manifest, or its file.")]
FollowLinks = Annotated[
    bool, typer.Option("--follow-links", help="Also read what links lead to outside the media root.")
]
MediaRoot = Annotated[
    Path | None, typer.Option("--media", help="Folder that media paths start from; FOLDER if not given.")
]


@data.command()
@survive_closed_output()
def check(
    folder: ManifestFolder,
    media: MediaRoot = None,
    no_media: Annotated[bool, typer.Option("--no-media", help="Leave media files alone.")] = False,
    follow_links: FollowLinks = False,
    sample: Annotated[int | None, typer.Option(min=0, help="Check only so many media files.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice of media files.")] = 0,
    contents: Annotated[
        bool, typer.Option("--contents", help="Compare files up to 1 MiB between splits by their bytes.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of the report; FOLDER/check if not given.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 on warnings too.")] = False,
    min_rate: Annotated[int, typer.Option(help="Sample rate that audio should have, Hz.")] = 16_000,
    min_side: Annotated[int, typer.Option(help="Pixels that an image's shorter side should have.")] = 32,
    silence: Annotated[float, typer.Option(help="Audio is silent below, dB of full scale.")] = -60.0,
    clipped: Annotated[float, typer.Option(help="Share of samples that may be at full scale.")] = 0.001,
    share: Annotated[float, typer.Option(help="Share of a task that one class may have.")] = 0.5,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; one a core if not given.")] = None,
    examples: Annotated[int, typer.Option(min=0, help="Examples printed of each finding.")] = 3,
) -> None:
    """Find what is wrong with a manifest and its media. Exit status: 0 no error, 1 errors, 2 cannot run."""
    from avalign.avfit.check.check import Options
    from avalign.avfit.check.media import Limits
    from avalign.avfit.check.report import checked_and_reported, told

    limits = Limits(min_side, min_rate, silence, clipped)
    options = Options(
        media=not no_media,
        follow_links=follow_links,
        sample=sample,
        seed=seed,
        contents=contents,
        share=share,
        limits=limits,
        processes=workers or os.cpu_count() or 1,
    )
    beside = folder if folder.is_dir() else folder.parent
    report_folder = beside / "check" if out is None else out
    report = checked_and_reported(folder, media or beside, report_folder, options)
    told(report, examples)
    tell(f"The whole report: {report_folder / 'report.md'}")
    if report["errors"] or (strict and report["warnings"]):
        raise typer.Exit(1)


@data.command()
@survive_closed_output()
def show(
    folder: ManifestFolder,
    out: Annotated[Path, typer.Option(help="The page to write, HTML.")],
    media: MediaRoot = None,
    follow_links: FollowLinks = False,
    task: Annotated[str | None, typer.Option(help="Only of this task.")] = None,
    split: Annotated[str | None, typer.Option(help="Only of this split.")] = None,
    source: Annotated[str | None, typer.Option(help="Only of this data set.")] = None,
    label: Annotated[str | None, typer.Option(help="Only of this class.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Samples shown.")] = 24,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw.")] = 0,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each audio clip, at most.")] = 10.0,
) -> None:
    """Write samples of a manifest as a page: images with boxes, audio with intervals and a player."""
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
        follow_links=follow_links,
    )
    tell(f"{out}: {shown} samples")


@data.command()
@survive_closed_output()
def build(
    plan: Annotated[
        str, typer.Argument(metavar="PLAN", help="YAML file, or a name of `avalign recipes`: voc-esc50.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings, as in seed=1.")
    ] = None,
    root: Annotated[Path, typer.Option(help="Folder that the data sets' folders lie in.")] = Path("."),
    out: Annotated[Path | None, typer.Option(help="Folder to write; avfit/<name> if not given.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    format: Annotated[str, typer.Option(help="jsonl or parquet.")] = "jsonl",
    media: Annotated[
        str, typer.Option(help="require: refuse what lacks its image or audio; skip: do not look.")
    ] = "require",
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Also read what links lead to outside the root.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what another plan built.")] = False,
) -> None:
    """Write a plan's records. The same command goes on where it was stopped."""
    from avalign.avfit.build.build import build as build_plan
    from avalign.avfit.plan import read_plan
    from avalign.config.shipped import found

    for option, value, known in (("--format", format, FORMATS), ("--media", media, MEDIA)):
        if value not in known:
            raise AvalignError(f"{option}: {value!r} is none of them.{suggest(value, known)}")
    read = read_plan(found(plan, "plan"), overrides or [])
    counts = build_plan(
        read,
        root,
        out or Path("avfit") / read.name,
        jobs=jobs,
        format=format,  # type: ignore[arg-type]
        media=media,  # type: ignore[arg-type]
        follow_links=follow_links,
        overwrite=overwrite,
        say=lambda line: tell(line, err=line.startswith("... ")),
    )
    raise typer.Exit(0 if counts["records"] else 1)


@data.command()
def stats(
    manifest: Annotated[Path, typer.Argument(metavar="FOLDER", help="Manifest: its folder, or one file.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Count a manifest's records: tasks, sources, splits, classes, boxes and times, beside the paper's."""
    from avalign.avfit import stats as counting

    record_counts = counting.count(manifest, lambda line: tell(line, err=True))
    if json:
        tell(to_json(counting.as_plain(record_counts), indent=1))
        return
    for line in counting.as_text(record_counts):
        tell(line)


@data.command()
@survive_closed_output()
def shard(
    manifest: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of a manifest, or its file.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    media: Annotated[
        Path | None, typer.Option("--media", help="Folder that media paths start from; FOLDER if not given.")
    ] = None,
    follow_links: FollowLinks = False,
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
        follow_links=follow_links,
        size=limit,
        seed=seed,
        progress=lambda file, count: tell(f"... {file.name}: {count:,} records", err=True),
        workers=os.cpu_count() or 1,
    )
    records, total = sum(s.records for s in shards), sum(s.bytes for s in shards)
    tell(f"{records:,} records in {len(shards):,} shards of {total / 1e6:,.1f} MB together: {out}")


@data.command()
@survive_closed_output()
def instructions(
    out: Annotated[Path, typer.Option(dir_okay=False, help="YAML file to write, or to add to.")],
    task: Annotated[str, typer.Option(help="arig, igatl, avfc, avqa or avcap.")],
    kind: Annotated[
        str | None, typer.Option(help="type1 to type4 of avfc; audio, visual or audio-visual of igatl.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Phrasings that the file is to hold of it.")] = 40,
    model: Annotated[str | None, typer.Option(help="Model of the endpoint.")] = None,
    base_url: Annotated[
        str | None, typer.Option(help="Any OpenAI-compatible endpoint; OpenAI's own if not given.")
    ] = None,
    local: Annotated[
        str | None, typer.Option(metavar="FOLDER_OR_NAME", help="Or a Hugging Face model, on this machine.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=50, help="Phrasings asked for at once.")] = 10,
    temperature: Annotated[float | None, typer.Option(min=0, help="Of the sampling.")] = None,
    timeout: Annotated[float, typer.Option(min=0.01, help="Seconds until a request is given up.")] = 120.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Send nothing; say what would be sent and what it costs.")
    ] = False,
    price_in: Annotated[float | None, typer.Option(min=0, help="Of a million tokens sent.")] = None,
    price_out: Annotated[float | None, typer.Option(min=0, help="Of a million tokens received.")] = None,
) -> None:
    """Have a language model write further phrasings of a task. The key of an endpoint is OPENAI_API_KEY."""
    from avalign.avfit.instructions import generate as steps
    from avalign.data.manifest.phrasing_rules import section_of

    section = section_of(task, kind)
    if (model is None) == (local is None):
        raise AvalignError("name one of --model (of an endpoint) and --local (a model on this machine).")

    def progress(line: str) -> None:
        tell(f"... {line}", err=True)

    writer: Writer
    if local is not None:
        from avalign.avfit.instructions.local import LocalModel

        writer = LocalModel(local, temperature=0.8 if temperature is None else temperature)
    else:
        from avalign.avfit.instructions.endpoint import Endpoint

        writer = Endpoint(str(model), base_url, temperature=temperature, timeout=timeout, tell=progress)
    if dry_run:
        for line in steps.estimate(section, count, out, writer, batch=batch).lines(price_in, price_out):
            tell(line)
        return
    outcome = steps.generate(section, count, out, writer, batch=batch, tell=progress)
    for line in outcome.lines():
        tell(line)
    if outcome.held < count:
        raise steps.short(outcome, out)
    tell(f"phrasings: {out}")
