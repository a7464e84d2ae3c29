"""A file is there whole, or what was there before it."""

from __future__ import annotations

from pathlib import Path

import pytest

from avalign.system.atomic_write import atomic_write, unfinished


def test_it_replaces_what_was_there_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "new" / "a.txt"
    atomic_write(file, "first")
    atomic_write(file, b"\xc3\xa9")
    assert file.read_text(encoding="utf-8") == "é"
    assert list(file.parent.iterdir()) == [file]


def half(file: Path) -> None:
    with unfinished(file) as beside:
        beside.write_text("hal")
        assert file.read_text() == "before", "not before all is written"
        raise ValueError("half way")


def test_an_error_half_way_leaves_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    atomic_write(file, "before")
    with pytest.raises(ValueError, match="half way"):
        half(file)
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]
