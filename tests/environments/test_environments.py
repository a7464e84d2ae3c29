"""The environments say what they are, and their table keeps one row of each."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest

from tests.environments import environment
from tests.environments.__main__ import PAGE, ROOT
from tests.environments.table import BEGIN, COLUMNS, END, SHOWN, Row, markdown, record


def row(name: str, passed: int) -> Row:
    return Row(name, dict.fromkeys(SHOWN, "1.0"), passed, 0, 2)


def test_lower_bounds_are_taken_as_versions_and_nothing_else_is() -> None:
    project = {
        "dependencies": ["torch>=2.10.0", "numpy"],
        "optional-dependencies": {"a": ["avalign[b]", "ott-jax>=0.5"], "dev": ["ruff>=1"]},
    }
    assert environment.lower_bounds(project) == ["torch==2.10.0", "ott-jax==0.5"]


def test_a_recorded_row_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\n{markdown([])}\n{END}\nafter\n")
    record(page, [row("new", 1), row("old", 2)])
    record(page, [row("new", 3), row("newer", 4)])
    want = markdown([row("new", 3), row("old", 2), row("newer", 4)])
    assert page.read_text() == f"before\n{BEGIN}\n{want}\n{END}\nafter\n"


def test_the_page_has_the_columns_that_are_measured() -> None:
    assert f"{BEGIN}\n| {' | '.join(COLUMNS)} |\n" in PAGE.read_text()


def test_the_oldest_python_of_the_environments_is_the_one_that_is_stated() -> None:
    known = tomllib.loads(Path(__file__).with_name("environments.toml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == f">={known['oldest']['python']}"


def test_an_interpreter_is_one_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    broken, sound = tmp_path / "broken", tmp_path / "sound"
    for folder, ends in ((broken, 1), (sound, 0)):
        folder.mkdir()
        (folder / f"python{version}").write_text(f"#!/bin/sh\nexit {ends}\n")
        (folder / f"python{version}").chmod(0o755)
    monkeypatch.setenv("PATH", f"{broken}:{sound}")
    assert environment.interpreter(version) == str(sound / f"python{version}")
    monkeypatch.setenv("PATH", str(broken))
    with pytest.raises(environment.NoPython, match=rf"no python{version} on the path"):
        environment.interpreter(version)


def test_what_is_left_out_of_the_lower_bounds_is_a_dependency_and_every_extra_exists() -> None:
    known = tomllib.loads(Path(__file__).with_name("environments.toml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounded = {each.split("==")[0] for each in environment.lower_bounds(project)}
    assert known["oldest-but-torch"]["without"] == ["torch", "torchvision"]
    for entry in known.values():
        assert set(entry.get("without", ())) <= bounded
        assert set(entry.get("extras", ())) <= project["optional-dependencies"].keys()


def test_the_requirements_of_a_package_are_those_of_this_machine() -> None:
    prefix = Path(sys.prefix)
    requirements = environment.requirements_of(prefix, "torch")
    assert any(each.startswith("sympy") for each in requirements)
    assert not any(";" in each or each.startswith("opt-einsum") for each in requirements)  # an extra of torch
