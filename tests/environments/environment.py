"""An environment: a Python, every extra of avalign, and the versions that its constraints leave pip."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Collection
from pathlib import Path
from xml.etree import ElementTree

from tests.environments.table import SHOWN, Row

NOT_RUN = {"dev", "docs"}  # the extras of tools, whose answers change with their version


class NoPython(Exception):
    """No interpreter of this version is on the path."""


def make(
    root: Path,
    folder: Path,
    python: str,
    constraints: list[str] | str,
    without: Collection[str] = (),
    extras: Collection[str] = (),
) -> None:
    """A virtual environment in `folder`, with avalign as it stands in `root`."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    if isinstance(constraints, str):
        constraints = [each for each in lower_bounds(project) if each.split("==")[0] not in without]
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([interpreter(python), "-m", "venv", folder], check=True)
    file = folder / "constraints.txt"
    file.write_text("".join(f"{each}\n" for each in constraints))
    extras = extras or [each for each in project["optional-dependencies"] if each not in NOT_RUN]
    environment = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    if not without:  # else beside them: what is left out is what pip takes on this machine
        environment["PIP_CONSTRAINT"] = str(file)  # in place of those in the machine's configuration of pip

    def install(*words: str | Path) -> None:
        command = [folder / "bin" / "pip", "install", "--quiet", "--no-cache-dir", "-c", file, *words]
        subprocess.run(command, check=True, env=environment)

    # pip keeps all that it fetches until all is installed: of torch's libraries, gigabytes twice
    install("--no-deps", *(each for each in project["dependencies"] if each.startswith("torch>=")))
    for each in requirements_of(folder, "torch"):
        install("--no-deps", each)
    install("--editable", f"{root}[{','.join(extras)}]")


def requirements_of(folder: Path, package: str) -> list[str]:
    """Of a package installed in the environment, for the machine that this is."""
    code = (
        "import sys; from importlib.metadata import requires;"
        "from pip._vendor.packaging.requirements import Requirement;"
        "found = [Requirement(each) for each in requires(sys.argv[1]) or []];"
        "held = [each for each in found if not each.marker or each.marker.evaluate({'extra': ''})];"
        "[setattr(each, 'marker', None) for each in held]; print(*held, sep='\\n')"
    )
    command = [folder / "bin" / "python", "-I", "-c", code, package]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


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
