"""A world is made once, whole, whoever else is making it."""

from __future__ import annotations

import multiprocessing
import shutil
from pathlib import Path
from typing import Any

import pytest

from avalign.data.avworld import AvWorld, scenes
from tests.helpers.avworld import SPLITS, alike, files, prepared

# -- the cache -----------------------------------------------------------------------------------------------


def test_what_was_made_before_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = prepared(tmp_path).sample("train", "arig", 5)
    monkeypatch.setattr(scenes, "make", lambda *_, **__: pytest.fail("made again"))
    assert alike(prepared(tmp_path).sample("train", "arig", 5), before)


def test_other_seeds_and_counts_have_caches_of_their_own(tmp_path: Path) -> None:
    prepared(tmp_path)
    written = files(tmp_path)
    prepared(tmp_path, seed=1)
    assert len(list(tmp_path.iterdir())) == 6
    prepared(tmp_path, val=21)
    assert len(list(tmp_path.iterdir())) == 7
    assert files(tmp_path).items() >= written.items()


def test_without_a_root_the_cache_is_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AVALIGN_CACHE", str(tmp_path))
    AvWorld(train=1, val=1, test=1).prepare(None, seed=0)
    assert {folder.name.rpartition("-")[0] for folder in tmp_path.iterdir()} == {
        f"avworld-{split}" for split in SPLITS
    }


def stop_at(monkeypatch: pytest.MonkeyPatch, last: int) -> None:
    make = scenes.make

    def stopped(index: int, seed: tuple[int, ...]) -> Any:
        if index == last:
            raise KeyboardInterrupt
        return make(index, seed)

    monkeypatch.setattr(scenes, "make", stopped)


@pytest.mark.parametrize("how", ["interrupted", "killed"])
def test_a_cache_cut_short_is_not_taken_for_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A killed process cleans nothing up, and the next may well have its number (in a container, say)."""
    with monkeypatch.context() as patch:
        stop_at(patch, 10)
        if how == "killed":
            patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            prepared(tmp_path / "a")
    assert bool(list((tmp_path / "a").iterdir())) == (how == "killed")
    again, fresh = prepared(tmp_path / "a"), prepared(tmp_path / "b")
    for index in range(30):
        assert alike(again.sample("train", "arig", index), fresh.sample("train", "arig", index))


def _prepare(root: Path, gate: Any) -> None:
    gate.wait()
    prepared(root)


def test_two_processes_may_prepare_at_once(tmp_path: Path) -> None:
    processes = multiprocessing.get_context("spawn")
    gate = processes.Barrier(2)
    both = [processes.Process(target=_prepare, args=(tmp_path / "a", gate)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    prepared(tmp_path / "b")
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert len(list((tmp_path / "a").iterdir())) == 3


def test_a_cache_that_another_process_just_finished_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look whether it exists and the move into place."""
    prepared(tmp_path / "b")
    rename = Path.rename

    def late(self: Path, target: Path) -> Any:
        shutil.copytree(self, target)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", late)
    prepared(tmp_path / "a")
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_any_number_of_workers_makes_the_same_world(tmp_path: Path) -> None:
    for workers in (1, 2):
        prepared(tmp_path / str(workers), workers=workers, train=70)  # a worker is given 64 at a time
    assert files(tmp_path / "1") == files(tmp_path / "2")
