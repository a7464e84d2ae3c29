"""`avalign data check`: everything that is wrong with a manifest and its media, found, counted and named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from avalign.avfit.check.findings import Findings
from avalign.avfit.check.lines import (
    ORIGINS,
    ROWS,
    USES,
    Columns,
    Piece,
    hashed,
    pieces_of,
    read_piece,
    uses_of,
)
from avalign.avfit.check.manifest import ManifestChecks
from avalign.avfit.check.media import KIND_NAMES, Limits, MediaInfo, Use, digest, measured, problems_of
from avalign.avfit.check.media_verdicts import InfoWriter, key_of, saved_info, verdicts_file
from avalign.avfit.processes import in_processes
from avalign.data.manifest.phrasings import Phrasings
from avalign.data.manifest.record import Record, from_json
from avalign.data.manifest.table import as_lines, files_of
from avalign.errors import AvalignError
from avalign.media.links import leads_out

TOGETHER = 16  # media files a process is given at once


@dataclass(frozen=True)
class Options:
    """How a manifest is checked.

    media:     whether media are opened
    follow_links: whether those are that a link leads to outside the media root
    sample:    how many media files are, chosen by `seed`; all when None
    contents:  whether small files (1 MiB) are compared between splits by their bytes
    share:     what part of a task the most common class or answer may make up
    processes: how many work at it; with one, a file that kills its decoder ends the check
    """

    media: bool = True
    follow_links: bool = False
    sample: int | None = None
    seed: int = 0
    contents: bool = False
    share: float = 0.5
    limits: Limits = field(default_factory=Limits)
    processes: int = 1


@dataclass
class Checked:
    """What came of it. media: files of each kind used, checked, measured now and known from the cache"""

    findings: Findings
    files: list[str]
    lines: int = 0
    records: int = 0
    tasks: list[dict[str, Any]] = field(default_factory=list)  # task, split, records, most common, its share
    media: dict[str, dict[str, int]] = field(default_factory=dict)


def check(folder: Path, root: Path, options: Options, findings: Findings) -> Checked:
    """Go through the manifest in `folder` (or one file of it), its media lying below `root`.

    AvalignError where there is no manifest, or no media root. Whatever the files hold becomes a finding.
    """
    if options.media and not root.is_dir():
        raise AvalignError(f"{root}: no such folder of media (give --no-media to leave media alone)")
    files = files_of(folder)
    beside = folder if folder.is_dir() else folder.parent
    Phrasings(beside)  # an error in its phrasings.yaml is told before anything is read
    checked = Checked(findings, [file.name for file in files])
    manifest = _Lines(files, findings)
    rows, uses, origins = _gone_through(manifest, beside, checked, options)
    if not checked.records and not findings.counts:
        findings.add("manifest holds no record", folder.name, "", "holds no record")
    checks = ManifestChecks(manifest, rows, findings)
    checks.repeated_ids()
    checked.tasks = checks.balance(options.share)
    checks.leaks(origins["name"], origins["row"], "origin in two splits", _origin)
    checks.leaks(uses["name"], uses["row"], "media file in two splits", _medium)
    if options.media:
        _check_media(manifest, root, rows, uses, checked, options)
    return checked


def _origin(record: Record, name: int) -> str:
    from avalign.avfit.check.record import origins_of

    return next(origin for origin in origins_of(record) if hashed(origin) == name)


def _medium(record: Record, name: int) -> str:
    return next(path for path, *_ in uses_of(record) if hashed(path) == name)


class _Lines:
    """The manifest's files as lines, those that can be read; where each row stands, and its record."""

    def __init__(self, files: list[Path], findings: Findings) -> None:
        self.names: list[str] = []
        self.paths: list[Path] = []
        self.rows = np.zeros(0, ROWS)
        for file in files:
            try:
                if not file.is_file():
                    raise AvalignError(f"{file}: is no file")
                path = as_lines(file)
                with open(path, "rb"):
                    pass
            except (AvalignError, OSError) as error:
                findings.add("manifest file cannot be read", file.name, "", str(error))
                continue
            self.names.append(file.name)
            self.paths.append(path)

    def where(self, file: int, line: int) -> str:
        name = self.names[file]
        return f"{name}, row {line}" if name.endswith(".parquet") else f"{name}:{line}"

    def where_row(self, row: int) -> str:
        return self.where(int(self.rows["file"][row]), int(self.rows["line"][row]))

    def record(self, row: int) -> Record:
        file, begin = int(self.rows["file"][row]), int(self.rows["begin"][row])
        with open(self.paths[file], "rb") as opened:  # not mapped: gigabytes of its pages would stay
            opened.seek(begin)
            return from_json(opened.readline())


def _gone_through(
    manifest: _Lines, phrasings: Path, checked: Checked, options: Options
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every line read and every record checked by itself. Rows, uses and origins as in check_lines."""
    parts: dict[str, list[np.ndarray]] = {"rows": [], "uses": [], "origins": []}
    counted = [0] * len(manifest.paths)
    records = 0
    total = sum(path.stat().st_size for path in manifest.paths)
    with progress(total, "records", "B") as bar:
        for piece, read in in_processes(read_piece, pieces_of(manifest.paths, phrasings), options.processes):
            read = _survived(piece, read)
            base = counted[read.file]
            for code, line, record, detail in read.wrong:
                checked.findings.add(code, manifest.where(read.file, base + line), record, detail)
            read.rows["line"] += base
            read.uses["row"] += records
            read.origins["row"] += records
            for name, arrays in parts.items():
                arrays.append(getattr(read, name))
            counted[read.file] += read.lines
            records += len(read.rows)
            bar.update(piece.end - piece.begin)
    checked.lines, checked.records = sum(counted), records
    joined = []
    for name, dtype in (("rows", ROWS), ("uses", USES), ("origins", ORIGINS)):
        joined.append(np.concatenate([np.zeros(0, dtype), *parts.pop(name)]))
    manifest.rows = joined[0]
    return joined[0], joined[1], joined[2]


def _survived(piece: Piece, read: Columns | None) -> Columns:
    if read is None:
        raise AvalignError(
            f"{piece.path}: the process that read its bytes {piece.begin} to {piece.end} died; "
            "was there memory left?"
        )
    return read


# ---- media ----


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A media file and what records need of it."""

    index: int  # among the files of the manifest's media
    name: str
    kind: int
    uses: list[Use]


@dataclass(frozen=True, slots=True)
class _Verdict:
    index: int
    wrong: list[tuple[str, int, str]]  # code, row, detail
    digest: int
    new: tuple[str, MediaInfo] | None  # to be saved


def _check_media(
    manifest: _Lines, root: Path, rows: np.ndarray, uses: np.ndarray, checked: Checked, options: Options
) -> None:
    order = np.lexsort((uses["name"], uses["kind"]))
    uses = uses[order]
    del order
    names, kinds = uses["name"], uses["kind"]
    new = np.flatnonzero((names[1:] != names[:-1]) | (kinds[1:] != kinds[:-1])) + 1
    starts = np.concatenate([np.zeros(min(1, len(uses)), np.int64), new])
    chosen = np.arange(len(starts))
    if options.sample is not None and options.sample < len(starts):
        chosen = np.sort(
            np.random.default_rng(options.seed).choice(len(starts), options.sample, replace=False)
        )
    kinds = uses["kind"][starts]
    for kind, name in KIND_NAMES.items():
        if np.any(kinds == kind):
            checked.media[name] = {
                "files": int(np.sum(kinds == kind)),
                "checked": int(np.sum(kinds[chosen] == kind)),
                "measured now": 0,
                "known from the cache": 0,
            }
    digests = np.zeros(len(starts), np.uint64)
    file = verdicts_file()
    work = partial(_checked, root=root, options=options, saved=file)
    keeper = InfoWriter(file)
    try:
        with progress(len(chosen), "media", " files") as bar:
            for wanted, verdicts in _verdicts(work, manifest, uses, starts, chosen, options.processes):
                keeper.save([verdict.new for verdict in verdicts if verdict.new is not None])
                for one, verdict in zip(wanted, verdicts, strict=True):
                    digests[verdict.index] = verdict.digest
                    count = checked.media[KIND_NAMES[one.kind]]
                    count["known from the cache" if verdict.new is None else "measured now"] += 1
                    for code, row, detail in verdict.wrong:
                        checked.findings.add(code, manifest.where_row(row), manifest.record(row).id, detail)
                bar.update(len(wanted))
    finally:
        keeper.close()
    if options.contents:
        _same_contents(manifest, rows, uses, starts, digests, checked.findings)


def _verdicts(
    work: Any, manifest: _Lines, uses: np.ndarray, starts: np.ndarray, chosen: np.ndarray, processes: int
) -> Iterator[tuple[list[_Wanted], list[_Verdict]]]:
    ends = np.append(starts[1:], len(uses))

    def wanted(index: int) -> _Wanted:
        some = uses[starts[index] : ends[index]]
        name = _medium(manifest.record(int(some["row"][0])), int(some["name"][0]))
        needs = [Use(row, *times) for row, *times in some[["row", "start", "end", "last"]].tolist()]
        return _Wanted(index, name, int(some["kind"][0]), needs)

    tasks = (
        [wanted(int(index)) for index in chosen[at : at + TOGETHER]] for at in range(0, len(chosen), TOGETHER)
    )
    for task, verdicts in in_processes(work, tasks, processes):
        if verdicts is not None:
            yield task, verdicts
        else:  # one of these files kills: which?
            for (one,), alone in in_processes(work, [[w] for w in task], 2):
                dead = [("media kills its decoder", one.uses[0].row, one.name)]
                yield [one], alone or [_Verdict(one.index, dead, 0, None)]


def _checked(wanted: list[_Wanted], *, root: Path, options: Options, saved: Path) -> list[_Verdict]:
    with saved_info(saved) as known:
        return [_checked_one(one, root, options, known) for one in wanted]


def _checked_one(
    one: _Wanted, root: Path, options: Options, known: Callable[[str], MediaInfo | None]
) -> _Verdict:
    if not options.follow_links and leads_out(root, one.name):
        return _Verdict(one.index, [("media leads out of the root", one.uses[0].row, one.name)], 0, None)
    path = root / one.name
    info = new = None
    try:
        key = key_of(path, one.kind)
        info = known(key)
    except (OSError, ValueError):  # no such file, or none that could be
        key = ""
    if info is None:
        info = measured(path, one.kind)
        new = (key, info) if key else None
    wrong = list(problems_of(one.name, one.kind, info, one.uses, options.limits))
    content = digest(path) if options.contents and info.code != "media file is missing" else ""
    return _Verdict(one.index, wrong, int(content, 16) if content else 0, new)


def _same_contents(
    manifest: _Lines,
    rows: np.ndarray,
    uses: np.ndarray,
    starts: np.ndarray,
    digests: np.ndarray,
    findings: Findings,
) -> None:
    """Files of other names and the same bytes, in different splits."""
    known = np.flatnonzero(digests)
    known = known[np.argsort(digests[known], kind="stable")]
    ends = np.append(starts[1:], len(uses))
    for group in np.split(known, np.flatnonzero(np.diff(digests[known])) + 1):
        by_split: dict[int, tuple[int, int]] = {}  # split -> a row and its file's name
        for index in group:
            for row in uses["row"][starts[index] : ends[index]]:
                by_split.setdefault(int(rows["split"][row]), (int(row), int(uses["name"][starts[index]])))
        if len({name for _, name in by_split.values()}) > 1:
            ManifestChecks.name_leak(
                manifest, findings, "content in two splits", list(by_split.values()), _medium
            )


def progress(total: int, what: str, unit: str) -> Any:
    from tqdm import tqdm

    return tqdm(
        total=total,
        desc=what,
        unit=unit,
        unit_scale=unit == "B",
        mininterval=2.0,
        dynamic_ncols=True,
        disable=None,
    )
