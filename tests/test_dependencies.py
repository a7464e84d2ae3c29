"""What pyproject.toml states is what the code imports: nothing undeclared, nothing declared for nothing."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable

import pytest

from tests.environments.environment import NOT_RUN, lower_bounds
from tests.helpers.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]

PACKAGE_OF = {"PIL": "pillow", "ot": "pot", "ott": "ott-jax", "sklearn": "scikit-learn", "yaml": "pyyaml"}
BROUGHT = {  # imported and left to the package that brings it
    "pydantic-core": "pydantic takes one version of it only",
    "triton": "torch takes one version of it only, and none on some systems",
    "atheris": "fuzzing is by hand: tests/fuzz says how to install it",
    "dcase-util": "sed_eval's arguments are its classes",
}
NOT_IMPORTED = {  # declared and nowhere imported
    "torchvision": "timm imports it; named here so that it is of one release with torch",
    "accelerate": "transformers' Trainer refuses to start without",
    "tensorboard": "transformers' Trainer writes to it: train.report_to",
    "bitsandbytes": "transformers imports it for a quantised language model",
    "laion-clap": "its modules are loaded apart from its __init__, which fetches",
    "pycocoevalcap": "its modules are found by importorskip",
    "scikit-learn": "found by importorskip",
    "setuptools": "builds tests/plugin, in the environment as it is",
    "sed-eval": "found by importorskip",
    "pytest-timeout": "a plugin of pytest",
    "pytest-xdist": "a plugin of pytest",
}


def declared(requirements: Iterable[str]) -> set[str]:
    """Names of packages; of avalign's own extras, those that they hold."""
    names: set[str] = set()
    for each in requirements:
        name = _normal(re.match(r"[\w.-]+", each)[0])  # type: ignore[index]
        if name != "avalign":
            names.add(name)
    return names


def imported(folder: str) -> dict[str, str]:
    """Package -> the first file that imports it, late imports too."""
    found: dict[str, str] = {}
    for file in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                modules = [name.name for name in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [str(node.module)]
            else:
                continue
            for module in modules:
                top = module.partition(".")[0]
                if top not in sys.stdlib_module_names and top not in ("avalign", "tests", "avalign_fakes"):
                    found.setdefault(_normal(PACKAGE_OF.get(top, top)), str(file.relative_to(ROOT)))
    return found


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


RUN = declared(
    [*PROJECT["dependencies"], *(r for e in EXTRAS if e not in ("test", "dev", "docs") for r in EXTRAS[e])]
)


@pytest.mark.parametrize(("folder", "known"), [("avalign", RUN), ("tests", RUN | declared(EXTRAS["test"]))])
def test_what_is_imported_is_declared(folder: str, known: set[str]) -> None:
    lacking = {k: file for k, file in imported(folder).items() if k not in known | BROUGHT.keys()}
    assert not lacking, "imported, but in no dependency and no extra"


def test_what_is_declared_is_imported() -> None:
    used = imported("avalign").keys()
    assert RUN - used - NOT_IMPORTED.keys() == set()
    assert declared(EXTRAS["test"]) - used - imported("tests").keys() - NOT_IMPORTED.keys() == set()
    assert not NOT_IMPORTED.keys() & used, "it is imported by now"
    assert NOT_IMPORTED.keys() <= RUN | declared(EXTRAS["test"]), "it is no longer declared"


def test_every_dependency_has_a_lower_bound() -> None:
    """So that the oldest environment is one that was run, and none that pip chose."""
    held = [*PROJECT["dependencies"], *(r for e in EXTRAS if e not in NOT_RUN for r in EXTRAS[e])]
    assert {_normal(bound.partition("==")[0]) for bound in lower_bounds(PROJECT)} == declared(held)
