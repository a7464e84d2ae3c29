"""Whose code a recipe may run.

A recipe that its user names (`avalign train mine.yaml`) is the user's word, and so is what he writes on the
command line. `recipe.yaml` in any folder is a run's or an export's, which may be a stranger's: what it takes
from files and modules that are no installed component runs only if

    it was asked for               --trust-code, avalign.load(..., trust_code=True)
    or this user trained with it   file by file, by sha256, noted in his state folder: nothing in a run
                                   folder can say so
"""

from __future__ import annotations

import hashlib
import importlib.machinery
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from avalign.errors import AvalignError
from avalign.system.terminal import warn

RECIPE = "recipe.yaml"  # what runs and exports call theirs
OPTION = "--trust-code, or trust_code=True in Python"

_asked: ContextVar[bool] = ContextVar("trust_code", default=False)
_noted: set[str] = set()  # by this process, also where nothing can be written


@contextmanager
def trusting(code: bool = True) -> Iterator[None]:
    """Runs' own code may be imported in here. False changes nothing."""
    token = _asked.set(code or _asked.get())
    try:
        yield
    finally:
        _asked.reset(token)


def is_asked() -> bool:
    return _asked.get()


def is_of_a_run(recipe: str | Path) -> bool:
    return Path(recipe).name == RECIPE


def refuse(name: str, files: Iterable[Path]) -> None:
    """AvalignError that names the files, unless every one of them may run. Nothing is imported."""
    if is_asked():
        return
    found = {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    known = _known()
    strange = [f"{file} (sha256 {sha256})" for file, sha256 in found.items() if sha256 not in known]
    if strange or not found:
        what = ", ".join(strange) or f"the module of {name}"
        raise AvalignError(f"would run code that came with the recipe: {what}. Read it, then ask: {OPTION}.")


def note(files: Iterable[Path]) -> None:
    """This user runs these files of his own will: runs that carry them need not be asked for again."""
    new = {hashlib.sha256(file.read_bytes()).hexdigest(): file.name for file in files}
    new = {sha256: name for sha256, name in new.items() if sha256 not in _known()}
    _noted.update(new)
    if not new:
        return
    trust_file = _trust_file()
    if trust_file is None:
        warn("no home folder is known; later commands on this run will ask for --trust-code")
        return
    try:
        trust_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        opened = os.open(trust_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        with open(opened, "a", encoding="utf-8") as file:
            file.writelines(f"{sha256}  {name!a}\n" for sha256, name in new.items())
    except OSError as error:
        warn(f"{trust_file}: {error.strerror}; later commands on this run will ask for --trust-code")


def module_files(module: str) -> list[Path]:
    """The files that `import module` runs itself, found without running any; [] where that cannot be told."""
    files: list[Path] = []
    path: Iterable[str] | None = None
    parts = module.split(".")
    for k in range(len(parts)):
        where = None if path is None else list(path)
        spec = importlib.machinery.PathFinder.find_spec(".".join(parts[: k + 1]), where)
        if spec is None or not spec.has_location or spec.origin is None:
            return []
        files.append(Path(spec.origin))
        path = spec.submodule_search_locations
        if path is None and k + 1 < len(parts):
            return []
    return files


def _trust_file() -> Path | None:
    """None where no home folder is known."""
    state = os.environ.get("XDG_STATE_HOME")
    try:
        return Path(state or Path.home() / ".local" / "state") / "avalign" / "code"
    except RuntimeError:
        return None


def _known() -> set[str]:
    """What was noted, where no one else can have written it."""
    trust_file = _trust_file()
    if trust_file is None:
        return set(_noted)
    try:
        with open(os.open(trust_file, os.O_RDONLY | os.O_NOFOLLOW), encoding="utf-8") as file:
            found = os.fstat(file.fileno())
            if found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                return set(_noted)
            return _noted | {line.partition(" ")[0] for line in file}
    except (OSError, UnicodeDecodeError):
        return set(_noted)
