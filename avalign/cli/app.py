"""The command line: thin, one function a command. What is heavy is imported by the command that needs it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from avalign import __version__
from avalign.cli import components as cli_parts
from avalign.cli import runs as cli_runs
from avalign.cli.data import data
from avalign.cli.errors import Commands
from avalign.cli.recipes import recipes
from avalign.system.terminal import tell, tell_table

app = typer.Typer(
    cls=Commands,
    help="Audio-visual alignment: train, score and show models built from interchangeable parts.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data, name="data")


def _version(wanted: bool) -> None:
    if wanted:
        tell(f"avalign {__version__}")
        raise typer.Exit


@app.callback()
def _start(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Nothing is done before a command but what the options say."""


for command in (cli_runs.train, cli_runs.eval, cli_runs.score, cli_runs.predict, cli_runs.export):
    app.command()(command)


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
    iterations: Annotated[int | None, typer.Option(help="Or make exactly so many iterations.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="Of the features: float32 or bfloat16.")] = "float32",
    features: Annotated[
        str, typer.Option(help="structured, gaussian, or a safetensors file of image and audio.")
    ] = "structured",
    repeats: Annotated[int, typer.Option(help="Timed runs of each.")] = 10,
    time_limit: Annotated[
        float, typer.Option(help="Seconds each may take to be made ready, imports among it, and for a run.")
    ] = 60.0,
    memory_limit: Annotated[
        float | None,
        typer.Option(
            help="GiB of memory each may take, of a GPU's with --device cuda; 80 % of the free by default."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the features and of the order.")] = 0,
    json: Annotated[Path | None, typer.Option(help="File to write everything to.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Figure to write.")] = None,
) -> None:
    """Measure transport losses on the same features: time, memory, accuracy; ours and other libraries'."""
    from avalign.bench import bench_loss as benchmark
    from avalign.bench import show
    from avalign.bench.limits import read_limits
    from avalign.report.figures import must_be_drawable
    from avalign.system.atomic_write import must_be_writable

    on = benchmark.read_device(device)
    if json is not None:
        must_be_writable(json, "--json")
    if plot is not None:
        must_be_drawable(plot, "--plot")
    report = benchmark.bench(
        benchmark.competitors(backend or ["all"]),
        benchmark.read_problems(features, shape, seed),
        benchmark.read_settings(epsilon, tolerance, iterations),
        device=on,
        dtype=benchmark.read_dtype(dtype),
        repeats=repeats,
        seed=seed,
        limits=read_limits(time_limit, memory_limit, on),
        progress=lambda line: tell(f"... {line}", err=True),
    )
    for line in show.heading(report):
        tell(line)
    for title, rows, notes in show.tables(report):
        tell(f"\n{title}")
        tell_table(show.header(report), rows, full_width=True)
        for note in notes:
            tell(f"  {note}")
    if json is not None:
        show.write_json(report, json)
    if plot is not None and not show.plot(report, plot):
        tell("no picture: nothing was measured", err=True)


app.command()(cli_runs.ablate)
app.add_typer(recipes, name="recipes")
app.command()(cli_parts.check)
app.command()(cli_parts.options)
app.command("list")(cli_parts.list_components)
