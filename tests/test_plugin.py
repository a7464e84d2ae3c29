"""A package that adds components to avalign, installed by pip and used through the command line."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import avalign
from avalign import registry
from avalign.cli.app import app
from tests.helpers.paths import RECIPE
from tests.helpers.runs import ENVIRONMENT, ONE_STAGE, SMALL

PACKAGE = Path(__file__).parent / "plugin"


def install(package: Path, target: Path) -> Path:
    """By pip, from the folder alone: no network, no other package."""
    words = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *words, "--target", str(target), str(package)], check=True
    )
    return target


def copied(folder: Path, **changes: str) -> Path:
    """The package elsewhere, as pip builds beside its source; texts of its pyproject.toml changed."""
    shutil.copytree(PACKAGE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    path = folder / "pyproject.toml"
    text = path.read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return folder


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plugin")
    return install(copied(folder / "source"), folder / "site")


@pytest.fixture
def on_the_path(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if it were in site-packages of this very process."""
    monkeypatch.syspath_prepend(installed)
    monkeypatch.delitem(sys.modules, "avalign_nearness", raising=False)
    importlib.invalidate_caches()
    registry.installed.cache_clear()
    yield
    registry.installed.cache_clear()


def run(*words: str) -> str:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result.output


def test_the_command_line_finds_what_is_installed(installed):
    """In a process of its own, which has never heard of the package."""
    path = f"{installed}:{ENVIRONMENT['PYTHONPATH']}"
    words = [sys.executable, "-m", "avalign", "options", "loss", "nearness"]
    done = subprocess.run(
        words, capture_output=True, text=True, env={**ENVIRONMENT, "PYTHONPATH": path}, check=True
    )
    assert done.stdout.startswith(
        "loss nearness  (avalign_nearness:Nearness)\n\nSquared distance of the mean"
    )
    assert "float, above 0" in done.stdout


def test_it_trains_in_a_recipe_by_its_names_and_is_loaded_again(on_the_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(
        f"extends: {RECIPE}\nname: mine\n"
        "losses: {nearness: {scale: 2.0, weight: 0.1}}\nmodel: {image_projector: scaled}\n"
    )
    settings = [*SMALL, f"data.root={tmp_path}", ONE_STAGE, "evaluation.tasks=[avfc]"]
    run("train", "mine.yaml", *settings, "--run", "run")
    lines = [json.loads(line) for line in Path("run/log.jsonl").read_text().splitlines()]
    assert [("nearness" in line, line["step"]) for line in lines] == [(True, 1), (True, 2)]
    assert "nearness: {name: nearness, weight: 0.1, scale: 2.0}" in Path("run/recipe.yaml").read_text()
    assert type(avalign.load("run").image_projector).__name__ == "Scaled"
    assert "nearness" in run("list", "losses")


def test_its_misspelt_option_is_named_as_any(on_the_path, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"extends: {RECIPE}\nlosses:\n  nearness:\n    scael: 2\n")
    result = CliRunner().invoke(app, ["check", str(path)])
    assert f"{path}:4  losses.nearness.scael: loss 'nearness' has no option 'scael'" in result.output
    path.write_text(f"extends: {RECIPE}\nlosses:\n  nearness:\n    scale: -2\n")
    assert (
        "losses.nearness.scale: should be greater than 0, got -2."
        in CliRunner().invoke(app, ["check", str(path)]).output
    )


@pytest.mark.parametrize(
    ("entry", "both"),
    [("avopt =", "avalign.losses.avopt:AVOpT, avalign_nearness:Nearness"), ("nearness =", "_other:Nearness")],
)
def test_two_of_one_name_are_an_error_that_names_both(on_the_path, tmp_path, monkeypatch, entry, both):
    """Another package, whose loss has a shipped one's name, or the first package's."""
    changes = {"avalign-nearness": "avalign-other", "nearness =": entry, "scaled =": "other ="}
    if "other" in both:
        changes |= {"avalign_nearness": "avalign_other"}
    package = copied(tmp_path / "source", **changes)
    if "other" in both:
        (package / "avalign_nearness.py").rename(package / "avalign_other.py")
    monkeypatch.syspath_prepend(install(package, tmp_path / "site"))
    registry.installed.cache_clear()
    result = CliRunner().invoke(app, ["check", str(RECIPE)])
    assert result.exit_code == 2
    name = entry.partition(" ")[0]
    assert f"two losses are named '{name}': " in result.output
    assert both in result.output


def test_without_the_package_its_name_is_unknown():
    result = CliRunner().invoke(app, ["options", "loss", "nearness"])
    assert "error: no loss is named 'nearness'." in result.output
