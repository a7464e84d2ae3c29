"""The commands under `avalign data`: thin, one function a command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avalign.errors import AvalignError

if TYPE_CHECKING:
    from avalign.avfit.instructions.replies import Writer

data = typer.Typer(
    help="Build, check and show instruction samples made from data sets on disk.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@data.command()
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

    def tell(line: str) -> None:
        typer.echo(f"... {line}", err=True)

    writer: Writer
    if local is not None:
        from avalign.avfit.instructions.local import LocalModel

        writer = LocalModel(local, temperature=0.8 if temperature is None else temperature)
    else:
        from avalign.avfit.instructions.endpoint import Endpoint

        writer = Endpoint(str(model), base_url, temperature=temperature, timeout=timeout, tell=tell)
    if dry_run:
        for line in steps.estimate(section, count, out, writer, batch=batch).lines(price_in, price_out):
            typer.echo(line)
        return
    outcome = steps.generate(section, count, out, writer, batch=batch, tell=tell)
    for line in outcome.lines():
        typer.echo(line)
    if outcome.held < count:
        raise steps.short(outcome, out)
    typer.echo(f"phrasings: {out}")
