"""Studies: one recipe with one thing changed at a time, over seeds, and what each change is worth."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from avalign.errors import AvalignError
from avalign.studies import report
from avalign.studies.grid import Run, Say, refuse_changed, run_all, runs
from avalign.studies.results import collect
from avalign.studies.study import Study, StudyError, read_study
from avalign.studies.tables import as_markdown
from avalign.system.terminal import tell


def ablate(
    files: Sequence[str],
    overrides: Sequence[str] = (),
    *,
    seeds: str | None = None,
    jobs: int = 1,
    threads: int = 1,
    out: Path = Path("runs/ablations"),
    report_only: bool = False,
    say: Say = tell,
) -> bool:
    """Make what runs are missing of each study and write its tables. Returns whether all are finished.

    Everything is checked before anything runs. A run that fails is named, and stops no other.
    """
    chosen = _seeds(seeds)
    studies = [read_study(file, overrides, chosen) for file in files]
    _refuse_same_name(studies)
    grids = [(study, runs(study, out)) for study in studies]
    for _, all_runs in grids:
        refuse_changed(all_runs)
    if not report_only:
        limits = jobs, threads
        return all([_run(study, all_runs, out, limits, say) for study, all_runs in grids])
    return all([_show(study, all_runs, out, {}, say) for study, all_runs in grids])


def _run(study: Study, all_runs: list[Run], out: Path, limits: tuple[int, int], say: Say) -> bool:
    """One study, its tables written anew with every run that finishes."""
    failed: dict[str, str] = {}

    def note(text: str) -> None:
        say(f"{time.strftime('%H:%M:%S')} {study.name}: {text}")

    def write() -> None:
        report.write(collect(study, all_runs, failed), out / study.name)

    try:
        run_all(all_runs, failed, jobs=limits[0], threads=limits[1], say=note, done=write)
    except KeyboardInterrupt:
        note("stopped; the same command goes on")
        raise
    if failed:
        note(f"{len(failed)} of {len(all_runs)} runs failed: {', '.join(failed)}")
    return _show(study, all_runs, out, failed, say)


def _show(study: Study, all_runs: list[Run], out: Path, failed: dict[str, str], say: Say) -> bool:
    table = collect(study, all_runs, failed)
    page = report.write(table, out / study.name)
    say(f"\n{as_markdown(table)}\nreport: {page}")
    return all(run.finished for run in all_runs)


def _seeds(text: str | None) -> tuple[int, ...] | None:
    """ "3" is 0, 1 and 2; "0,4,7" those."""
    if text is None:
        return None
    words = text.split(",")
    if not all(word.strip().isdecimal() for word in words):
        raise AvalignError(f"--seeds: should be how many, as 3, or a list, as 0,4,7; got {text!r}")
    numbers = tuple(int(word) for word in words)
    found = numbers if len(numbers) > 1 else tuple(range(numbers[0]))
    if not found or len(set(found)) < len(found):
        raise AvalignError(f"--seeds: {'none asked for' if not found else 'a seed is given twice'}: {text!r}")
    return found


def _refuse_same_name(studies: Sequence[Study]) -> None:
    seen: dict[str, Study] = {}
    for study in studies:
        first = seen.setdefault(study.name, study)
        if first is not study:
            raise StudyError(
                [f"{study.path}: named {study.name!r}, as {first.path} is: one folder for both."]
            )
