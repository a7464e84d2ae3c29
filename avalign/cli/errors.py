"""What a command that fails says: a line for what its user can put right, a traceback for what he cannot."""

from __future__ import annotations

import traceback
from typing import Any

import typer
from typer.core import TyperGroup

from avalign import registry
from avalign.errors import AvalignError
from avalign.system.terminal import drop_what_cannot_be_said, plain_warnings, tell

_Usage: Any = typer.BadParameter.__base__  # click's UsageError: typer brings a click of its own, or does not


class Commands(TyperGroup):
    """Prints what the user can put right as `error: ...`; any other exception keeps its traceback."""

    def make_context(self, *args: Any, **named: Any) -> Any:
        try:
            return super().make_context(*args, **named)
        except _Usage as error:
            _tell_usage(error)

    def invoke(self, ctx: Any) -> Any:
        try:
            with plain_warnings():
                return super().invoke(ctx)
        except KeyboardInterrupt as stopped:
            tell(str(stopped) or "stopped", err=True)
            raise typer.Exit(getattr(stopped, "status", 130)) from None
        except _Usage as error:
            _tell_usage(error)
        except (AvalignError, ValueError, OSError) as error:
            if isinstance(error, BrokenPipeError) or not _is_told_to_the_user(error):
                raise  # nobody reads any more: typer ends without a word
            drop_what_cannot_be_said()
            tell(f"error: {_in_words(error)}", err=True)
        except ModuleNotFoundError as error:
            if (error.name or "avalign").partition(".")[0] == "avalign":
                raise
            tell(f"error: this command {registry.why_not_imported(error)}", err=True)
        raise typer.Exit(2)


def _tell_usage(error: Any) -> None:
    """A wrong word on the command line; not where there was none at all, which is answered with the help."""
    if error.ctx is None or type(error).__name__ == "NoArgsIsHelpError":
        raise error
    tell(f"error: {error.format_message()} (see {error.ctx.command_path} --help)", err=True)
    raise typer.Exit(2)


def _is_told_to_the_user(error: BaseException) -> bool:
    """Whether avalign itself raised this: the line where it came up is a `raise` of ours.

    What the system says of a file is always told: a full disk, a folder that may not be written.
    """
    if isinstance(error, AvalignError) or (isinstance(error, OSError) and error.strerror is not None):
        return True
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    module = frame.f_globals.get("__name__", "")
    if not module.startswith("avalign.") or module.startswith("avalign.local_components."):
        return False  # avalign.local_components.*: a file of the user's
    line = traceback.extract_tb(error.__traceback__)[-1].line or ""
    return line.startswith("raise ")


def _in_words(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror is not None:
        return ": ".join(str(said) for said in (error.filename, error.strerror) if said is not None)
    return str(error)
