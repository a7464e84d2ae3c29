"""A media file's key is another one whenever what is read of it may be."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from avalign.media import key
from avalign.media.file import Stored
from avalign.media.key import SETTLED, SETTLED_COARSE, file_key, unchanging_key

NOW = 10**18 + 123  # ns


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "a.wav"
    made.write_bytes(b"0123")
    time.sleep(1.5 * SETTLED)
    return made


def rewritten(file: Path) -> None:
    file.write_bytes(b"4567")


def rewritten_and_stamped_back(file: Path) -> None:
    before = file.stat()
    file.write_bytes(b"4567")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced(file: Path) -> None:
    beside = file.with_name("beside")
    before = file.stat()
    beside.write_bytes(b"4567")
    os.utime(beside, ns=(before.st_atime_ns, before.st_mtime_ns))
    beside.replace(file)


def linked_elsewhere(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(b"4567")
    file.unlink()
    file.symlink_to(other)


def test_it_stays_as_long_as_the_file_does(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = file_key(file, "audio", 0.0, None)
    assert found is not None
    file.read_bytes()
    assert file_key(file, "audio", 0.0, None) == found
    monkeypatch.chdir(file.parent)
    assert file_key("a.wav", "audio", 0.0, None) == file_key(Path("a.wav"), "audio", 0.0, None) == found


@pytest.mark.parametrize("change", [rewritten, rewritten_and_stamped_back, replaced, linked_elsewhere])
def test_a_changed_file_has_another(file: Path, change: Callable[[Path], None]) -> None:
    found = file_key(file)
    change(file)
    time.sleep(1.5 * SETTLED)
    assert file_key(file) is not None
    assert file_key(file) != found


def test_other_parts_and_files_have_others(file: Path) -> None:
    other = file.with_name("b.wav")
    other.hardlink_to(file)
    time.sleep(1.5 * SETTLED)
    parts: list[tuple[Any, ...]] = [(), ("audio", 0.0, None), ("audio", 0.0, 1.0), ("image", (0.0, 1.0))]
    assert len({file_key(each, *part) for each in (file, other) for part in parts}) == 8


@pytest.mark.parametrize("name", ["gone", "folder", "pipe", "nul\0", "x" * 5000])
def test_what_is_no_file_has_none(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    assert file_key(tmp_path / name) is None
    assert unchanging_key(tmp_path / name) is None


@pytest.mark.parametrize(
    ("changed", "known"),
    [
        (NOW - int(0.5 * SETTLED * 1e9), False),
        (NOW - int(2 * SETTLED * 1e9), True),
        (10**18 - int(0.5 * SETTLED_COARSE) * 10**9, False),  # stamps of whole seconds
        (10**18 - int(2 * SETTLED_COARSE) * 10**9, True),
        (NOW + 5 * 10**9, True),  # another machine's clock
    ],
)
def test_a_file_that_may_change_within_a_tick_has_none_yet(
    file: Path, monkeypatch: pytest.MonkeyPatch, changed: int, known: bool
) -> None:
    class State:
        st_size, st_ino, st_mtime_ns, st_ctime_ns = 4, 1, 0, changed

    monkeypatch.setattr(key, "state_of", lambda path: State)
    monkeypatch.setattr(time, "time_ns", lambda: NOW)
    assert (file_key(file) is not None) == known
    assert unchanging_key(file) is not None


def test_a_file_within_another_is_told_by_what_holds_it() -> None:
    def stored(told: str | None) -> Stored:
        return Stored("a.tar: 0.image", content=lambda: b"", key=lambda: told)

    assert file_key(Stored("a.tar: 0.image", content=lambda: b"")) is None
    assert file_key(stored(None)) is None
    keys = {file_key(stored(told), *part) for told in ("a", "b") for part in ((), ("image",))}
    assert len(keys) == 4
    assert None not in keys
