"""Runs and files that are not what they should be: one line that names the file, and says what to do."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from avalign.cli.app import app
from avalign.config.recipe_file import read
from avalign.export.hugging_face import export
from avalign.training.train import train
from tests.helpers.paths import RECIPE
from tests.helpers.runs import ONE_STAGE, settings


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damaged")
    before = os.umask(0o027)
    try:
        run = train(read(RECIPE, settings(folder / "world", ONE_STAGE)), folder / "run")
        export(run, folder / "exported", merge=True)
    finally:
        os.umask(before)
    return run


def error_of(*words: object) -> str:
    """The one line of a command that fails."""
    result = CliRunner().invoke(app, list(map(str, words)))
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 2
    said = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(said) == 1
    assert result.stderr.endswith(f"{said[0]}\n")
    return said[0]


def test_files_are_of_the_mode_that_the_umask_makes(finished: Path) -> None:
    checked = 0
    for folder in (finished, finished.parent / "exported"):
        for file in folder.rglob("*"):
            if file.is_file():
                assert stat.S_IMODE(file.stat().st_mode) == 0o640, file
                checked += 1
    assert checked > 20


def emptied(file: Path) -> None:
    file.write_text("{}")


def of_a_list(file: Path) -> None:
    file.write_text("[]")


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def gone(file: Path) -> None:
    shutil.rmtree(file) if file.is_dir() else file.unlink()


def a_folder(file: Path) -> None:
    file.unlink(missing_ok=True)
    file.mkdir()


def no_text(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00")


def a_loop(file: Path) -> None:
    gone(file)
    file.symlink_to(file.name)


DAMAGE = [
    ("tokenizer", gone, "no such folder"),
    ("tokenizer", a_loop, "no such folder"),
    *[("tokenizer/tokenizer.json", how, "tokenizer") for how in (emptied, of_a_list, cut, gone, a_folder)],
    ("tokenizer/tokenizer.json", no_text, "not UTF-8"),
    ("tokenizer/tokenizer_config.json", of_a_list, "holds a list"),
    ("tokenizer/tokenizer_config.json", cut, "is not JSON"),
    ("weights.safetensors", a_folder, "is a folder"),
    ("weights.safetensors", gone, "no such file"),
    ("weights.safetensors", cut, "not a complete safetensors file"),
    ("weights.safetensors", emptied, "not a complete safetensors file"),
    ("weights.safetensors", a_loop, "weights.safetensors"),
]


@pytest.mark.parametrize(("name", "damage", "said"), DAMAGE)
@pytest.mark.parametrize("exported", [False, True])
def test_a_damaged_model_is_named_by_its_file(
    name: str, damage: Callable[[Path], None], said: str, exported: bool, finished: Path, tmp_path: Path
) -> None:
    model = tmp_path / "run"
    shutil.copytree(finished.parent / "exported" if exported else finished, model)
    inside = name if name.startswith("tokenizer") else f"connector/{name}"
    file = model / (inside if exported else f"model/{name}")
    damage(file)
    (tmp_path / "a.png").write_bytes((next((finished / "eval" / "pictures").iterdir())).read_bytes())
    found = error_of("predict", model, "Where?", "--image", tmp_path / "a.png", "--out", tmp_path / "b.png")
    assert f"{file}: " in found
    assert said in found
    assert len(found) < 400


@pytest.mark.parametrize(
    ("name", "why"),
    [("/dev/null", "is no folder"), ("loop", "is a link that leads nowhere"), ("file", "is no")],
)
def test_what_cannot_be_a_run_s_folder_is_said_to_be(
    name: str, why: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    Path("file").touch()
    assert error_of("train", RECIPE, "--run", name).startswith(f"error: --run {name}: cannot be the folder")
    assert why in error_of("train", RECIPE, "--run", name)
    for words in (["train", "--resume", "--run", name], ["eval", name], ["predict", name, "Where?"]):
        assert error_of(*words) == f"error: {name} is not the folder of a run: it holds no recipe.yaml."


@pytest.mark.parametrize("option", ["--image", "--audio"])
@pytest.mark.parametrize("kind", ["gone", "folder", "loop", "text", "empty"])
def test_media_that_are_none_are_named(
    option: str, kind: str, finished: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("loop").symlink_to("loop")
    Path("text").write_text("no medium")
    Path("empty").touch()
    found = error_of("predict", finished, "Where?", option, kind)
    assert kind in found
    assert not Path("answer.png").exists()


def test_a_finished_run_is_said_to_be_finished(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    before = (run / "model" / "weights.safetensors").read_bytes()
    result = CliRunner().invoke(app, ["train", "--resume", "--run", str(run)])
    assert result.exit_code == 0
    told = f"{run} is trained to its end: nothing is left to train; it is scored again\n"
    assert told in result.stderr
    assert (run / "model" / "weights.safetensors").read_bytes() == before
    assert json.loads((run / "eval" / "scores.json").read_text())
