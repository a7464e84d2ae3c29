"""What the tests beside each other share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.helpers.avfit.builds import items, write_plan, write_root


def small(folder: Path) -> tuple[Path, Path]:
    """A plan over two data sets, with everything that may be wrong in them."""
    one: list[dict[str, Any]] = [
        *items(45, "train"),
        {"id": "broken", "reason": "box without area"},
        {"id": "double", "split": "train", "records": 2, "noted": 1},
    ]
    two = [*items(30, "test", "w"), {"id": "v3", "split": "test"}]
    return write_plan(folder, ["one", "two"]), write_root(folder / "root", {"one": one, "two": two})
