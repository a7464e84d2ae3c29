"""The commands that make runs and ask them: train, eval, score, predict, export, ablate."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from avalign.cli.arguments import Overrides, RunFolder, TrustCode, known_split, read_here, recipe_of
from avalign.errors import AvalignError, suggest
from avalign.system.terminal import survive_closed_output, tell
from avalign.types import TASKS


@survive_closed_output()
def train(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE", help="YAML file, or a name of `avalign recipes`; not needed to resume."
        ),
    ] = None,
    overrides: Overrides = None,
    run: Annotated[
        Path | None,
        typer.Option(
            "--run",
            "--run-dir",
            help="Folder to write; runs/<name> if not given. Torchrun trips over --run: give it --run-dir.",
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False,
    trust_code: TrustCode = False,
) -> None:
    """Train a recipe, score it, and leave a run folder with a report."""
    settings = list(overrides or [])
    if recipe is not None and "=" in recipe and not Path(recipe).is_file():
        settings.insert(0, recipe)
        recipe = None
    if recipe is not None:
        read = read_here(recipe, settings)
    elif resume and run is not None:
        recipe_of(run)  # whether it is a run
        read = read_here(run / "recipe.yaml", settings)
    else:
        raise AvalignError("name a recipe: avalign train RECIPE, or avalign train --resume --run DIR.")
    from avalign.training.train import train as train_recipe

    train_recipe(read, run, resume)


@survive_closed_output()
def eval(
    run: RunFolder,
    overrides: Overrides = None,
    samples: Annotated[
        str | None, typer.Option(metavar="N|all", help="Samples of each task; all that there are.")
    ] = None,
    tasks: Annotated[str | None, typer.Option(help="Tasks, separated by commas.")] = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    out: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Folder to write eval/ and report.html to; the run if not given."),
    ] = None,
    trust_code: TrustCode = False,
) -> None:
    """Score a run on MeerkatBench's tasks."""
    settings = list(overrides or [])
    if samples is not None:
        if samples != "all" and (not samples.isdecimal() or int(samples) == 0):
            raise AvalignError(f"--samples {samples}: a whole number from 1 on, or all.")
        settings.append(f"evaluation.samples={samples}")
    if tasks is not None:
        settings.append(f"evaluation.tasks=[{', '.join(_known_tasks(tasks))}]")
    known_split(split)
    recipe = recipe_of(run, settings)
    from avalign.report.tables import as_markdown
    from avalign.training.score import score

    tell(as_markdown(score(run, recipe, split, out)))


@survive_closed_output()
def score(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="Its file or folder.")],
    predictions: Annotated[
        Path, typer.Argument(metavar="PREDICTIONS", help='.jsonl: {"id": ..., "answer": "text"} a line.')
    ],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder to write.")],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    tasks: Annotated[str | None, typer.Option(help="Tasks, separated by commas; all if not given.")] = None,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Score only the records that were answered.")
    ] = False,
    media: Annotated[
        Path | None, typer.Option(help="Where audio files lie, for the length of clips; none has to.")
    ] = None,
    maps: Annotated[
        Path | None, typer.Option(help="Where heat maps lie; the predictions' folder if not given.")
    ] = None,
    box_unit: Annotated[
        str,
        typer.Option(help="Of boxes that do not tell it: relative, percent, thousandths or pixels."),
    ] = "relative",
    bootstrap: Annotated[int, typer.Option(min=0, help="Resamples behind the 95 % intervals.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the resamples and of the random answers.")] = 0,
) -> None:
    """Score any model's answers, given as a file, on the records of a manifest."""
    known_split(split)
    from avalign.evaluation.external import score as score_predictions
    from avalign.report.tables import as_markdown

    chosen = None if tasks is None else _known_tasks(tasks)
    scores = score_predictions(
        manifest,
        predictions,
        out,
        split=split,
        tasks=chosen,
        allow_partial=allow_partial,
        media=media,
        maps=maps,
        bootstrap=bootstrap,
        seed=seed,
        box_unit=box_unit,
    )
    tell(as_markdown(scores))
    tell(f"report: {out / 'report.html'}")


@survive_closed_output()
def predict(
    run: RunFolder,
    text: Annotated[str, typer.Argument(metavar="QUESTION", help="What to ask.")],
    image: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="Image.")] = None,
    audio: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="Recording.")] = None,
    out: Annotated[Path, typer.Option(help="Figure to write.")] = Path("answer.png"),
    trust_code: TrustCode = False,
) -> None:
    """Ask a trained model about an image and a recording."""
    recipe_of(run)  # before anything heavy is loaded
    from avalign.evaluation.predict import predict as ask

    tell(ask(run, image, audio, text, out))
    tell(f"picture: {out}")


@survive_closed_output()
def export(
    run: RunFolder,
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder to write.")],
    merge: Annotated[
        bool, typer.Option("--merge", help="The language model whole, LoRA added into its weights.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export.")] = False,
    trust_code: TrustCode = False,
) -> None:
    """Write a finished run as plain Hugging Face folders with a model card."""
    recipe_of(run)  # before anything heavy is loaded
    from avalign.export.hugging_face import export as write

    tell(f"exported: {write(run, out, merge, overwrite)}")


@survive_closed_output()
def ablate(
    studies: Annotated[
        list[str],
        typer.Argument(
            metavar="STUDY... KEY=VALUE...",
            help="YAML files, or names of `avalign recipes`; settings of every arm.",
        ),
    ],
    seeds: Annotated[
        str | None, typer.Option(help="How many, or a list: 0,4,7. The study's if not given.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at once.")] = 1,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of each run; the cores shared out among the runs if not given.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("runs/ablations"),
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Run nothing, write the tables.")
    ] = False,
    trust_code: TrustCode = False,
) -> None:
    """Run studies, every arm under every seed, and say what each arm is worth. The same command goes on."""
    from avalign.config.shipped import found
    from avalign.studies import ablate as run_studies

    files = [word for word in studies if "=" not in word or Path(word).is_file()]
    settings = [word for word in studies if word not in files]
    if not files:
        raise AvalignError("name a study: avalign ablate alignment")
    done = run_studies(
        [str(found(file, "study")) for file in files],
        settings,
        seeds=seeds,
        jobs=jobs,
        threads=threads or max(1, (os.cpu_count() or 1) // jobs),
        out=out,
        report_only=report_only,
        say=tell,
    )
    raise typer.Exit(0 if done else 1)


def _known_tasks(words: str) -> list[str]:
    names = [name.strip() for name in words.split(",")]
    for name in names:
        if name not in TASKS:
            raise AvalignError(f"--tasks: no task is named {name!r}.{suggest(name, TASKS)}")
    return names
