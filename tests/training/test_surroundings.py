"""A machine without a home, folders that cannot be written, a reader that went away: a line, or going on."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from avalign.data import avworld
from avalign.data.avworld import AvWorld
from avalign.data.avworld import _generate as generate
from avalign.data.manifest.index import index_of
from avalign.errors import AvalignError
from avalign.kernels.cpu import engine as cpu
from avalign.local_components import trust
from avalign.system.cache import cache_folder, saving
from avalign.system.processes import shared_map
from avalign.system.terminal import survive_closed_output, tell
from tests.helpers.runs import ENVIRONMENT

UNWRITABLE = "/proc/nowhere"  # for root, too


@pytest.fixture
def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """HOME is unset, and the user is in no list of users."""
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "AVALIGN_CACHE"):
        monkeypatch.delenv(name, raising=False)

    def unknown(*_: Any) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)


def test_without_a_home_it_is_said_what_names_another(
    no_home: None, monkeypatch: Any, tmp_path: Path
) -> None:
    with pytest.raises(AvalignError, match=r"no home folder is known.*AVALIGN_CACHE"):
        cache_folder()
    with pytest.raises(AvalignError, match="AVALIGN_CACHE"):
        AvWorld(train=1, val=1, test=1).prepare(None, seed=0)
    monkeypatch.setenv("AVALIGN_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path


def test_without_a_home_code_is_noted_by_this_process_alone(
    no_home: None, monkeypatch: Any, tmp_path: Path, capsys: Any
) -> None:
    monkeypatch.setattr(trust, "_noted", set())
    file = tmp_path / "mine.py"
    file.write_text("class Mine: ...\n")
    with pytest.raises(AvalignError, match="would run code"):
        trust.refuse("mine.py:Mine", [file])
    trust.note([file])
    assert "warning: no home folder is known" in capsys.readouterr().err
    trust.refuse("mine.py:Mine", [file])


def test_a_kernel_is_kept_elsewhere_without_a_home(no_home: None, monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setattr(cpu.tempfile, "gettempdir", lambda: str(tmp_path))
    assert cpu._cache_folder() == tmp_path / f"avalign-{os.getuid()}"
    monkeypatch.setattr(cpu.tempfile, "gettempdir", lambda: UNWRITABLE)
    with pytest.raises(cpu.Unavailable, match="no home folder is known"):
        cpu._cache_folder()


def test_a_cache_that_cannot_be_written_is_named(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setenv("AVALIGN_CACHE", UNWRITABLE)
    said = rf"^{UNWRITABLE}/.*cannot be written: No such file or directory\. .*AVALIGN_CACHE.* another folder"
    with pytest.raises(AvalignError, match=said):
        AvWorld(train=1, val=1, test=1).prepare(None, seed=0)
    records = tmp_path / "records.jsonl"
    records.write_text(
        '{"id": "a", "task": "avqa", "source": "s", "split": "train", "version": 1, "instruction": "b",'
        ' "response": "c", "image": "d.png"}\n'
    )
    with pytest.raises(AvalignError, match=said):
        index_of([records], lambda *_: None)
    with pytest.raises(AvalignError, match="x/y: cannot be written: No such file"), saving(Path("x/y")):
        Path(UNWRITABLE, "file").touch()


def test_a_full_disk_ends_a_world_by_a_line_and_leaves_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    """Of mapped files: where room is not claimed before, the system ends the process without a word."""

    def made(*_: Any) -> Any:
        (folder,) = tmp_path.iterdir()
        for file in (folder / "images.npy", folder / "audio.npy"):
            assert file.stat().st_blocks * 512 >= file.stat().st_size > 100_000
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield

    monkeypatch.setattr(avworld, "_made", made)
    with pytest.raises(AvalignError, match=r"cannot be written: No space left on device\. data\.root"):
        AvWorld(train=20, val=1, test=1).prepare(str(tmp_path), seed=0)
    assert list(tmp_path.iterdir()) == []


def test_processes_that_die_are_not_started_for_ever() -> None:
    with pytest.raises(AvalignError, match="a process that shares the work has died"):
        list(shared_map(os._exit, [1, 1], 2))


# ---- a reader that went away ---------------------------------------------------------------------


def test_work_goes_on_where_nobody_reads_and_says_so_once(monkeypatch: Any, capfd: Any) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", encoding="utf-8") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        with pytest.raises(BrokenPipeError):
            tell("a word")
        with survive_closed_output():
            for _ in range(3):
                tell("a word")
                print("another")
            assert sys.stdout.encoding == pipe.encoding
            sys.stdout.flush()
        assert sys.stdout is pipe
    said = capfd.readouterr().err
    assert said == "warning: standard output: Broken pipe; going on without it\n"


def test_it_goes_on_where_nothing_can_be_said_at_all(monkeypatch: Any) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        monkeypatch.setattr(sys, "stderr", full)
        with survive_closed_output():
            tell("a word")
            tell("a word", err=True)
    monkeypatch.setattr(sys, "stdout", None)
    tell("a word")
    with survive_closed_output():
        print("a word")


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ("options source avworld | head -1", 1, ""),
        ("options source avworld > /dev/full", 2, "error: No space left on device\n"),
    ],
)
def test_a_command_that_only_shows_ends_in_order(words: str, status: int, said: str) -> None:
    command = f"set -o pipefail; {sys.executable} -m avalign {words}"
    buffered = {name: value for name, value in ENVIRONMENT.items() if name != "PYTHONUNBUFFERED"}
    for environment in (buffered, buffered | {"PYTHONUNBUFFERED": "1"}):
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment)
        assert (done.returncode in (0, status), done.stderr) == (True, said)


def test_a_recipe_is_read_the_same_where_text_is_ascii_and_no_folder_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("name: x I \u0131 é\n", encoding="utf-8")
    more = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    more |= dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "TMPDIR"), UNWRITABLE)
    words = [sys.executable, "-m", "avalign", "check", "r.yaml"]
    done = subprocess.run(words, capture_output=True, cwd=tmp_path, env={**ENVIRONMENT, **more})
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"name: x I \\u0131 \\xe9\n")


# ---- what was left --------------------------------------------------------------------------------------


def test_what_killed_processes_left_of_a_world_is_removed(tmp_path: Path) -> None:
    dead, alive, folder = tmp_path / "world.dead", tmp_path / "world.alive", tmp_path / "world"
    for left in (dead, alive):
        left.mkdir()
        (left / "lock").touch()
        os.utime(left, (time.time() - 100,) * 2)
    with open(alive / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        generate(folder, 2, (0, 0), 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["world", "world.alive"]
    assert sorted(p.name for p in folder.iterdir()) == ["audio.npy", "images.npy", "scenes.jsonl"]
    assert json.loads((folder / "scenes.jsonl").read_text().splitlines()[0])
