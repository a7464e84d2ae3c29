"""The table of environments, as Markdown, and its place in the page that keeps it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

SHOWN = (
    "Python",
    "torch",
    "triton",
    "transformers",
    "accelerate",
    "peft",
    "timm",
    "numpy",
    "pydantic",
    "av",
    "jax",
)
COLUMNS = ("environment", *SHOWN, "passed", "failed", "skipped")
BEGIN, END = "<!-- measured: python -m tests.environments NAME --record -->", "<!-- end -->"


@dataclass
class Row:
    name: str
    versions: dict[str, str]
    passed: int
    failed: int  # errors too
    skipped: int

    def cells(self) -> list[str]:
        return [self.name, *self.versions.values(), *map(str, (self.passed, self.failed, self.skipped))]


def markdown(rows: list[Row]) -> str:
    return "\n".join(map(_line, [COLUMNS, ["---"] * len(COLUMNS), *(row.cells() for row in rows)]))


def record(page: Path, rows: list[Row]) -> None:
    """Put each row in the place of the one of its name, or after the last."""
    text = page.read_text()
    before, _, rest = text.partition(BEGIN)
    kept, _, after = rest.partition(END)
    lines = kept.split("\n")
    for row in rows:
        places = [k for k, line in enumerate(lines) if re.match(rf"\| {re.escape(row.name)} \|", line)]
        last = max(k for k, line in enumerate(lines) if line.startswith("|"))
        place = places[0] if places else last + 1
        lines[place : place + len(places)] = [_line(row.cells())]
    page.write_text(before + BEGIN + "\n".join(lines) + END + after)


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"
