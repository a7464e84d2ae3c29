"""The folder of a run: begun, gone on with, and held by one process at a time."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from avalign.config.recipe import Recipe
from avalign.config.recipe_file import read, write
from avalign.config.saved_recipe import CODE, FILES, differing, forget_copies, keep, refuse_changed_copies
from avalign.errors import AvalignError
from avalign.export.load import is_exported
from avalign.system.atomic_write import atomic_write
from avalign.system.escape import is_text
from avalign.system.terminal import tell, warn
from avalign.system.versions import versions

LOCK = ".lock-of-run"
# what may lie in a folder before a run is begun in it: notes of who begins it, and a start cut short
BEFORE = ("terminal.log", "attempts.jsonl")
BEGUN = ("recipe.yaml", "versions.json", "loaded.json", "skipped.jsonl", "tensorboard", "checkpoints")
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)  # of some network file systems

_held: dict[Path, int] = {}


def is_first_process() -> bool:
    """Of those that torchrun started, or the only one."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def held(run: Path) -> Iterator[None]:
    """The run is this process's alone, to its end however it ends. AvalignError if another has it.

    Of torchrun's processes the first has it for all.
    """
    path = run.absolute()
    if not is_first_process() or path in _held:
        yield
        return
    try:
        lock = os.open(path / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise AvalignError(f"{run}: cannot be written: {error.strerror}") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = os.pread(lock, 100, 0).decode("utf-8", "replace").strip() or "?"
            raise AvalignError(f"{run}: another process ({who}) is at work in it") from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            what = f"cannot be locked ({error.strerror}); see that no other process works in it"
            warn(f"{run}: {what}")
        else:
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()} on {os.uname().nodename}".encode(), 0)
        _held[path] = lock
        yield
    finally:
        _held.pop(path, None)
        os.close(lock)


def _let_go() -> None:
    """A loader that outlives its parent by some seconds must not hold the run."""
    for lock in _held.values():
        os.close(lock)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)


def make(run: Path) -> None:
    """Make the folder, or say why it cannot be one of a run."""
    if not is_first_process():
        return
    if not run.name and run != Path("/") and not run.is_absolute():
        raise AvalignError(f"--run {os.fspath(run)!r}: is the folder you are in; name one inside it")
    if not is_text(str(run)):  # it would be found out when the model is saved
        raise AvalignError(f"--run {str(run)!a}: its name is not UTF-8 text")
    try:
        run.mkdir(parents=True, exist_ok=True)
        there = sorted(os.listdir(run))
    except OSError as error:
        what = error.strerror
        if isinstance(error, FileExistsError):
            what = "is a link that leads nowhere" if run.is_symlink() else "is no folder"
        raise AvalignError(f"--run {run}: cannot be the folder of a run: {what}") from error
    if "recipe.yaml" in there or is_exported(run):
        return
    mine = {*BEFORE, *([CODE] if (run / CODE / FILES).is_file() else [])}
    others = [name for name in there if not name.startswith(".") and name not in mine]
    if others:
        shown = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        raise AvalignError(f"--run {run}: holds files of something else ({shown}); name a new folder")


def begin(run: Path, recipe: Recipe, resume: bool) -> Recipe:
    """Begin the run, or check that it is this recipe's. Nothing of an earlier run is lost.

    Returns the recipe, the files that it names taken from the run's own copies.
    """
    written = run / "recipe.yaml"
    if not is_first_process():
        return recipe
    if is_exported(run):
        raise AvalignError(f"{run} is an exported model; train into another folder (--run {run}-2)")
    if resume and not written.exists():
        raise AvalignError(f"{run} holds no run to resume: it has no recipe.yaml")
    if written.exists() and not has_learnt(run):
        tell(f"{run}: an earlier start failed before it learnt anything; begun anew", err=True)
        recipe = _without_copies(run, recipe)
    elif written.exists() and not resume:
        raise AvalignError(
            f"{run} holds a run already. Go on with it (--resume), or write another (--run {run}-2)"
        )
    elif written.exists():
        refuse_changed_copies(run)
        changed = differing(read(written), recipe)
        if changed:
            raise AvalignError(
                f"{run} was begun with another recipe; resuming would not repeat it. Lines that differ:\n"
                + "\n".join(f"  {line}" for line in changed)
            )
        return keep(recipe, run)
    recipe = keep(recipe, run)
    write(recipe, written)
    atomic_write(run / "versions.json", json.dumps(versions(), indent=1) + "\n")
    return recipe


def has_learnt(run: Path) -> bool:
    """Whether there is anything to go on from, or to look at: a start that failed left nothing."""
    log = run / "log.jsonl"
    return (
        (log.exists() and log.stat().st_size > 0)
        or any((run / made).exists() for made in ("model", "eval"))
        or any((run / "checkpoints").glob("*/*/complete"))
    )


def _without_copies(run: Path, recipe: Recipe) -> Recipe:
    """Take away what a start that failed left; the copies of files too, but those that are used."""
    for name in BEGUN:
        path = run / name
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    forget_copies(run, recipe)
    return recipe


# ---- logs ----------------------------------------------------------------------------------------


def note_skipped(run: Path, problems: Sequence[str], *, stage: str | None, step: int) -> None:
    """Add to skipped.jsonl what was left out: by the source as it was prepared (no stage), or in a step."""
    if problems:
        with open(run / "skipped.jsonl", "a", encoding="utf-8") as file:
            file.writelines(json.dumps({"stage": stage, "step": step, "why": why}) + "\n" for why in problems)


def forget_after(log: Path, stage: str, step: int) -> None:
    """Drop what was logged after the checkpoint that is resumed from: it will be logged again."""
    if not log.exists():
        return
    saved, passed = [], False
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
            after = record["stage"] == stage and record["step"] > step
        except (ValueError, TypeError, KeyError):
            continue  # the line that was being written when the run was killed
        passed = passed or after
        if not passed:
            saved.append(line + "\n")
    atomic_write(log, "".join(saved))
