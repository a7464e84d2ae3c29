"""The commands under `avalign data`: thin, one function a command."""

from __future__ import annotations

import typer

data = typer.Typer(
    help="Build, check and show instruction samples made from data sets on disk.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
