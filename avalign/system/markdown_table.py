"""Tables in Markdown, of text that stays text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from avalign.system.escape import markdown


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Its lines: the header, and a line for each row."""
    return [row(header), "|---" * len(header) + "|", *map(row, rows)]


def row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(map(markdown, cells)) + " |"
