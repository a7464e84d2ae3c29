"""What avalign says on a terminal. Names and answers are strangers': they are read, and do nothing."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from avalign.system.escape import visible

NEWLINE = "\n"


def tell(text: str, *, err: bool = False) -> None:
    """A line, or several, on standard output; err: on standard error, where progress and warnings go.

    What the terminal's encoding lacks is written out as "\\u732b".
    """
    stream = sys.stderr if err else sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    shown = visible(text, keep=NEWLINE).encode(encoding, "backslashreplace").decode(encoding)
    print(shown, file=stream, flush=True)


def warn(text: str) -> None:
    """A warning of avalign's own, on standard error."""
    tell(f"warning: {text}", err=True)


def tell_table(header: Iterable[str], rows: Iterable[Iterable[str]], full_width: bool = False) -> None:
    """whole: as wide as its cells, rather than folded into the terminal"""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*header, box=box.SIMPLE, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(visible(cell, keep=NEWLINE)) for cell in row))
    console = Console()
    if full_width:
        needed = console.measure(table, options=console.options.update(max_width=1000)).maximum
        console.width = max(console.width, needed)
    console.print(table)


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Python's warnings, of other libraries too, are shown as `tell` shows a line."""
    shown = warnings.formatwarning

    def plain(*args: Any, **named: Any) -> str:
        return visible(shown(*args, **named), keep=NEWLINE)

    warnings.formatwarning = plain
    try:
        yield
    finally:
        warnings.formatwarning = shown


@contextmanager
def survive_closed_output() -> Iterator[None]:
    """Work that counts goes on where nobody reads what it says any more: `avalign train ... | head -1`."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Lasting(before[0], "standard output"), _Lasting(before[1], "standard error")  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def drop_what_cannot_be_said() -> None:
    """What standard output holds and cannot write (a full disk) fails anew as Python ends: status 120."""
    with suppress(ValueError, AttributeError):  # closed, or none
        try:
            sys.stdout.flush()
        except OSError:
            _lead_nowhere(sys.stdout)


def _lead_nowhere(stream: Any) -> None:
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


class _Lasting:
    """A stream that drops what cannot be written, and says so once on standard error."""

    def __init__(self, stream: Any, name: str) -> None:
        self.stream, self.name = stream, name
        self.lost = stream is None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        if not self.lost:
            try:
                try:
                    self.stream.write(text)
                except UnicodeEncodeError as error:
                    self.stream.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))
            except (OSError, ValueError) as error:  # ValueError: it was closed
                self._lose(error)
        return len(text)

    def flush(self) -> None:
        if not self.lost:
            try:
                self.stream.flush()
            except (OSError, ValueError) as error:
                self._lose(error)

    def _lose(self, error: Exception) -> None:
        self.lost = True
        _lead_nowhere(self.stream)  # what it holds yet must not fail when Python ends
        why = error.strerror if isinstance(error, OSError) else str(error).rstrip(".")
        with suppress(OSError, ValueError):
            print(f"warning: {self.name}: {why}; going on without it", file=sys.stderr, flush=True)
