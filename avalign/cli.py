"""The command line: thin, one function a command. What is heavy is imported by the command that needs it."""

from __future__ import annotations

import dis
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from avalign import __version__, registry
from avalign.cli_data import data
from avalign.errors import AvalignError

if TYPE_CHECKING:
    from avalign.recipe import Recipe


class _Commands(TyperGroup):
    """Prints what the user can put right as `error: ...`; any other exception keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (AvalignError, ValueError, OSError) as error:
            if not _is_told_to_the_user(error):
                raise
            typer.echo(f"error: {error}", err=True)
        except ModuleNotFoundError as error:
            if (error.name or "avalign").partition(".")[0] == "avalign":
                raise
            typer.echo(f"error: this command {registry.why_not_imported(error)}", err=True)
        raise typer.Exit(2)


def _is_told_to_the_user(error: BaseException) -> bool:
    """Whether avalign itself raised this: its innermost frame is ours and stands at a `raise`."""
    if isinstance(error, AvalignError):
        return True
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    module = "" if frame is None else frame.tb_frame.f_globals.get("__name__", "")
    if frame is None or not module.startswith("avalign.") or module.startswith("avalign.local."):
        return False  # avalign.local.*: a file of the user's
    return frame.tb_frame.f_code.co_code[frame.tb_lasti] == dis.opmap["RAISE_VARARGS"]


app = typer.Typer(
    cls=_Commands,
    help="Audio-visual alignment: train, score and show models built from interchangeable parts.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data, name="data")

app.add_typer(data, name="data")

Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings, as in train.batch_size=8.")
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"avalign {__version__}")
        raise typer.Exit


@app.callback()
def _start(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if os.getcwd() not in sys.path:  # so that a recipe may name a class of a module beside it
        sys.path.append(os.getcwd())


@app.command()
def train(
    recipe: Annotated[
        str | None, typer.Argument(metavar="RECIPE", help="YAML file; not needed to resume.")
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
) -> None:
    """Train a recipe, score it, and leave a run folder with a report."""
    settings = list(overrides or [])
    if recipe is not None and "=" in recipe and not Path(recipe).is_file():
        settings.insert(0, recipe)
        recipe = None
    if recipe is not None:
        read = _read(recipe, settings)
    elif resume and run is not None:
        read = _recipe_of(run, settings)
    else:
        raise AvalignError("name a recipe: avalign train RECIPE, or avalign train --resume --run DIR.")
    from avalign.train import train as train_recipe

    train_recipe(read, run, resume)


@app.command()
def eval(
    run: RunFolder,
    overrides: Overrides = None,
    samples: Annotated[
        str | None, typer.Option(metavar="N|all", help="Samples of each task; all that there are.")
    ] = None,
    tasks: Annotated[str | None, typer.Option(help="Tasks, separated by commas.")] = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
) -> None:
    """Score a run on MeerkatBench's tasks."""
    settings = list(overrides or [])
    if samples is not None:
        settings.append(f"evaluation.samples={samples}")
    if tasks is not None:
        settings.append(f"evaluation.tasks=[{tasks}]")
    _known_split(split)
    recipe = _recipe_of(run, settings)
    from avalign.meerkatbench.tables import as_markdown
    from avalign.train import score

    typer.echo(as_markdown(score(run, recipe, split)))


@app.command()
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
        Path | None, typer.Option(help="Where sounds lie, for the length of clips; none has to.")
    ] = None,
    maps: Annotated[
        Path | None, typer.Option(help="Where heat maps lie; the predictions' folder if not given.")
    ] = None,
    bootstrap: Annotated[int, typer.Option(min=0, help="Resamples behind the 95 % intervals.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the resamples and of the random answers.")] = 0,
) -> None:
    """Score any model's answers, given as a file, on the records of a manifest."""
    _known_split(split)
    from avalign.meerkatbench.external import score as score_predictions
    from avalign.meerkatbench.tables import as_markdown

    chosen = None if tasks is None else [name.strip() for name in tasks.split(",")]
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
    )
    typer.echo(as_markdown(scores))
    typer.echo(f"report: {out / 'report.html'}")


@app.command()
def predict(
    run: RunFolder,
    text: Annotated[str, typer.Argument(metavar="QUESTION", help="What to ask.")],
    image: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="Picture.")] = None,
    audio: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="Recording.")] = None,
    out: Annotated[Path, typer.Option(help="Picture to write.")] = Path("answer.png"),
) -> None:
    """Ask a trained model about a picture and a recording."""
    _recipe_of(run, [])  # before anything heavy is loaded
    from avalign.meerkatbench.predict import predict as ask

    typer.echo(ask(run, image, audio, text, out))
    typer.echo(f"picture: {out}")


@app.command()
def export(
    run: RunFolder,
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder to write.")],
    merge: Annotated[
        bool, typer.Option("--merge", help="The language model whole, LoRA added into its weights.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export.")] = False,
) -> None:
    """Write a finished run as plain Hugging Face folders with a model card."""
    _recipe_of(run, [])  # before anything heavy is loaded
    from avalign.export import export as write

    typer.echo(f"exported: {write(run, out, merge, overwrite)}")


@app.command("bench-loss")
def bench_loss(
    backend: Annotated[
        list[str] | None, typer.Option(help="Loss to measure, again for more; all if not given.")
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            metavar="BxNxMxD", help="Items, patches, audio tokens, size of a feature; again for more."
        ),
    ] = None,
    epsilon: Annotated[float, typer.Option(help="Smoothing, in units of the cost.")] = 0.05,
    tolerance: Annotated[
        float | None, typer.Option(help="End at this marginal error, L1 of mass 1; 1e-3 if not given.")
    ] = None,
    rounds: Annotated[int | None, typer.Option(help="Or make exactly so many rounds.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="Of the features: float32 or bfloat16.")] = "float32",
    features: Annotated[
        str, typer.Option(help="structured, gaussian, or a safetensors file of image and audio.")
    ] = "structured",
    repeats: Annotated[int, typer.Option(help="Timed runs of each.")] = 10,
    seed: Annotated[int, typer.Option(help="Of the features and of the order.")] = 0,
    json: Annotated[Path | None, typer.Option(help="File to write everything to.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Picture to write.")] = None,
) -> None:
    """Measure transport losses on the same features: time, memory, accuracy; ours and other libraries'."""
    from avalign.speed import bench_loss as benchmark
    from avalign.speed import show

    chosen = benchmark.competitors(backend or ["all"])
    settings = benchmark.read_settings(epsilon, tolerance, rounds)
    report = benchmark.bench(
        chosen,
        benchmark.read_problems(features, shape, seed),
        settings,
        device=benchmark.read_device(device),
        dtype=benchmark.read_dtype(dtype),
        repeats=repeats,
        seed=seed,
        progress=lambda line: typer.echo(f"... {line}", err=True),
    )
    if json is not None:
        show.write_json(report, json)
    if plot is not None:
        show.plot(report, plot)
    for line in show.heading(report):
        typer.echo(line)
    for title, rows, notes in show.tables(report):
        typer.echo(f"\n{title}")
        _table(show.header(report), rows, whole=True)
        for note in notes:
            typer.echo(f"  {note}")


@app.command()
def ablate(
    studies: Annotated[
        list[str],
        typer.Argument(metavar="STUDY... KEY=VALUE...", help="YAML files, and settings of every arm."),
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
) -> None:
    """Run studies, every arm under every seed, and say what each arm is worth. The same command goes on."""
    from avalign.ablation import ablate as run_studies

    files = [word for word in studies if "=" not in word or Path(word).is_file()]
    settings = [word for word in studies if word not in files]
    if not files:
        raise AvalignError("name a study: avalign ablate recipes/ablations/alignment.yaml")
    done = run_studies(
        files,
        settings,
        seeds=seeds,
        jobs=jobs,
        threads=threads or max(1, (os.cpu_count() or 1) // jobs),
        out=out,
        report_only=report_only,
        say=typer.echo,
    )
    raise typer.Exit(0 if done else 1)


@app.command()
def check(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="YAML file.")],
    overrides: Overrides = None,
    size: Annotated[
        bool, typer.Option("--size", help="Print what the model weighs, part by part, and in memory.")
    ] = False,
) -> None:
    """Print a recipe with every default filled in, or all that is wrong with it."""
    from avalign.recipe_io import dump

    read = _read(recipe, overrides or [])
    if not size:
        typer.echo(dump(read), nl=False)
        return
    from avalign import size as weighing

    for title, header, rows in weighing.tables(read, weighing.size(read)):
        typer.echo(f"\n{title}")
        _table(header, rows, whole=True)


@app.command()
def options(
    kind: Annotated[str, typer.Argument(help="loss, projector, fusion, ...")],
    name: Annotated[str, typer.Argument(help="As in a recipe: avopt, or my_module:MyLoss.")],
) -> None:
    """Print a component's manual and every option it takes."""
    manual = registry.manual(kind, name)
    typer.echo(f"{manual.kind} {manual.name}  ({manual.place})\n")
    typer.echo(f"{manual.text}\n")
    if manual.options:
        _table(("option", "type", "default"), [(o.name, o.type, o.default) for o in manual.options])
    else:
        typer.echo("It has no options.")


@app.command("list")
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
    _table(("kind", "name", "what it is"), rows)


def _read(path: str | Path, overrides: Iterable[str]) -> Recipe:
    from avalign.recipe_io import read

    return read(path, list(overrides))


def _recipe_of(run: Path, overrides: Iterable[str]) -> Recipe:
    path = run / "recipe.yaml"
    if not path.is_file():
        raise AvalignError(f"{run} is not the folder of a run: it holds no recipe.yaml.")
    return _read(path, overrides)


def _known_split(split: str) -> None:
    if split not in ("train", "val", "test"):
        raise AvalignError(f"--split: no split is named {split!r}. Known: train, val, test.")


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]], whole: bool = False) -> None:
    """whole: as wide as its cells, rather than folded into the terminal"""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*header, box=box.SIMPLE, pad_edge=False)
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console()
    if whole:
        needed = console.measure(table, options=console.options.update(max_width=1000)).maximum
        console.width = max(console.width, needed)
    console.print(table)
