"""An environment: a Python, every extra of avalign, and the versions that its constraints leave pip."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from xml.etree import ElementTree

from tests.environments.table import SHOWN, Row

NOT_RUN = {"dev", "docs"}  # the extras of tools, whose answers change with their version


class NoPython(Exception):
    """No interpreter of this version is on the path."""


def make(root: Path, folder: Path, python: str, constraints: list[str] | str) -> None:
    """A virtual environment in `folder`, with avalign as it stands in `root`."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    if isinstance(constraints, str):
        constraints = lower_bounds(project)
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([interpreter(python), "-m", "venv", folder], check=True)
    file = folder / "constraints.txt"
    file.write_text("".join(f"{each}\n" for each in constraints))
    extras = ",".join(each for each in project["optional-dependencies"] if each not in NOT_RUN)
    # in place of constraints that the machine's own configuration of pip may have: these alone are meant
    environment = os.environ | {"PIP_CONSTRAINT": str(file), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    command = [folder / "bin" / "pip", "install", "--quiet", "--editable", f"{root}[{extras}]"]
    subprocess.run(command, check=True, env=environment)


def lower_bounds(project: dict) -> list[str]:
    """Every `name>=version` that the project states, as `name==version`, but for the tools of `NOT_RUN`."""
    stated = [*project["dependencies"]]
    stated += [
        each
        for extra, requirements in project["optional-dependencies"].items()
        if extra not in NOT_RUN
        for each in requirements
    ]
    return [
        f"{name}=={version}" for each in stated for name, version in re.findall(r"^([\w-]+)>=([\w.]+)", each)
    ]


def interpreter(version: str) -> str:
    """The first pythonX.Y on the path that runs (a launcher may be there without its Python)."""
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        found = shutil.which(f"python{version}", path=folder) if folder else None
        if found and subprocess.run([found, "-c", ""], capture_output=True).returncode == 0:
            return found
    raise NoPython(f"no python{version} on the path: PATH=/where/it/is/bin:$PATH")


def versions(folder: Path) -> dict[str, str]:
    """Of Python and of every package in it."""
    code = (
        "import json, platform; from importlib.metadata import distributions as d;"
        "print(json.dumps({'Python': platform.python_version(), **{x.name.lower(): x.version for x in d()}}))"
    )
    # isolated, so that nothing beside the environment is listed
    command = [folder / "bin" / "python", "-I", "-c", code]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def told(folder: Path) -> str:
    found = versions(folder)
    return ", ".join(f"{name} {found.get(name, 'absent')}" for name in SHOWN)


def run_tests(root: Path, folder: Path, name: str, given: list[str]) -> Row:
    """Of pytest with the words `given`; its own output goes by unchanged."""
    report = folder / "report.xml"
    report.unlink(missing_ok=True)
    python = folder / "bin" / "python"
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    # PYTHONPATH: the checkout that is tested, in processes that tests start in other folders too
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(root), "HF_HUB_OFFLINE": "1"}
    command = [python, "-m", "pytest", "-n", "2", "-rs", f"--junitxml={report}", "-p", "no:cacheprovider"]
    subprocess.run([*command, *given], cwd=root, env=environment)
    found = versions(folder)
    shown = {each: found.get(each, "absent") for each in SHOWN}
    if not report.exists():  # pytest itself broke off
        return Row(name, shown, 0, 1, 0)
    suites = ElementTree.parse(report).getroot().iter("testsuite")
    counts = [
        {key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")}
        for suite in suites
    ]
    tests, failures, errors, skipped = (sum(each[key] for each in counts) for key in counts[0])
    return Row(name, shown, tests - failures - errors - skipped, failures + errors, skipped)
