"""What is installed from the built wheel works in an empty folder; importing a part brings little."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

import avalign
from avalign.losses import AVOpT
from tests.helpers.paths import RECIPES, ROOT

IN_TREE = ("avalign", "recipes", "pyproject.toml", "setup.py", "README.md", "LICENSE", "MANIFEST.in")
QUIET = ("--quiet", "--no-index", "--no-deps", "--disable-pip-version-check")


def pip(*words: str, cwd: Path | None = None) -> None:
    subprocess.run([sys.executable, "-m", "pip", *words], check=True, cwd=cwd)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the tree: setuptools writes beside its source."""
    folder = tmp_path_factory.mktemp("package")
    source = folder / "source"
    source.mkdir()
    for name in IN_TREE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    pip("wheel", *QUIET, "--no-build-isolation", "--wheel-dir", str(folder), str(source))
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    site = wheel.parent / "site"
    pip("install", *QUIET, "--target", str(site), str(wheel))
    return site


def python(path: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """With the package that lies in `path`, and nothing of the checkout beside it."""
    environment = os.environ | {"PYTHONPATH": str(path), "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def run(site: Path, folder: Path, *words: str, status: int = 0) -> str:
    done = python(site, folder, "-m", "avalign", *words)
    assert done.returncode == status, done.stderr
    return done.stdout if status == 0 else done.stderr


def test_the_wheel_holds_what_the_package_reads_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        names = {name for name in file.namelist() if ".dist-info/" not in name}
    hidden = {"__pycache__"}
    there = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "avalign").rglob("*")
        if path.is_file() and not hidden & set(path.parts)
    }
    recipes = {f"avalign/recipes/{path.relative_to(RECIPES)}" for path in RECIPES.rglob("*.yaml")}
    assert names == there | recipes
    assert {"avalign/py.typed", "avalign/kernels/cpu/source/sinkhorn.cpp"} <= names


def test_the_version_stands_in_one_place_and_the_citation_says_it(wheel: Path) -> None:
    assert wheel.name == f"avalign-{avalign.__version__}-py3-none-any.whl"
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == avalign.__version__
    assert "## Unreleased" in (ROOT / "CHANGELOG.md").read_text()
    paper = citation["references"][0]
    assert (paper["year"], paper["url"]) == (2024, "https://arxiv.org/abs/2407.01851")


def test_an_installed_package_lists_checks_and_copies_recipes(installed: Path, tmp_path: Path) -> None:
    code = "import avalign.config.shipped as s; print(s.folder())"
    said = python(installed, tmp_path, "-c", code).stdout
    assert Path(said.strip()) == installed / "avalign" / "recipes", "of the wheel, not of the checkout"

    listed = run(installed, tmp_path, "recipes")
    for name in ("meerkat", "baselines/pandagpt", "ablations/alignment", "avfit/voc-esc50"):
        assert re.search(rf"^ *{name} +(recipe|study|plan) +\w", listed, re.MULTILINE)
    checked = run(installed, tmp_path, "check", "meerkat", "seed=7")
    assert yaml.safe_load(checked)["seed"] == 7
    assert not list(tmp_path.iterdir())
    told = run(installed, tmp_path, "check", "meerkt", status=2)
    assert told.startswith("error: meerkt: no such file")
    assert "Did you mean 'meerkat'?" in told

    assert run(installed, tmp_path, "recipes", "copy", "meerkat") == "recipes/meerkat.yaml\n"
    assert (tmp_path / "recipes" / "meerkat.yaml").read_bytes() == (RECIPES / "meerkat.yaml").read_bytes()


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("avalign", "torch numpy"),
        ("avalign.losses", "transformers accelerate peft timm matplotlib typer scipy ot av PIL"),
        ("avalign.ot", "transformers accelerate peft timm matplotlib typer pydantic av PIL"),
        ("avalign.cli.app", "torch transformers numpy matplotlib pydantic scipy"),
        ("avalign.config.shipped", "torch transformers numpy"),
        ("avalign.training.undisturbed", "transformers accelerate peft"),
    ],
)
def test_importing_a_part_brings_little(module: str, unwanted: str, tmp_path: Path) -> None:
    code = f"import {module}, sys; print(*set({unwanted.split()}) & set(sys.modules))"
    done = python(ROOT, tmp_path, "-c", code)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


@pytest.mark.parametrize(
    ("backend", "package", "module"), [("exact", "pot", "ot"), ("geomloss", "geomloss", "geomloss")]
)
def test_what_an_extra_brings_is_named_where_it_is_missing(
    backend: str, package: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=rf"needs \w+: pip install {package}$") as told:
        AVOpT(backend=backend)
    assert told.value.name == module, "which the command line tells in a line"
