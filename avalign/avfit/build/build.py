"""A plan into a manifest: parts made in parallel, each whole or not at all, the same whoever made them.

    OUT/<label>-00000.jsonl          records of a data set, by its label in the plan; or .parquet
    OUT/<pairs>-<split>-<task>-...   records made of pairs
    OUT/build.yaml                   the plan with every default, and what it was built with
    OUT/counts.json                  what became of every item, and how many records there are of what
    OUT/reports/rejected.jsonl       every item that was refused, and why; noted.jsonl: what was put right
    OUT/.build/                      what a build needs that goes on where this one was stopped

What a unit of work writes depends on the plan and the annotation files alone, and is finished when its entry
in .build/done says so. So the same command goes on after any stop, and ends with the same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from avalign import registry
from avalign.avfit.annotation import AudioAnnotation, ImageAnnotation, Problem, Reading
from avalign.avfit.annotation_files import text_of
from avalign.avfit.build.filter import SampleFilter, below_root, located, origins
from avalign.avfit.build.hashes import Names, hashed
from avalign.avfit.build.ledger import Ledger, opened_ledger
from avalign.avfit.build.parts import SIZE, Format, pyarrow, write_part, write_parts
from avalign.avfit.build.report import finished_report
from avalign.avfit.build.state import State
from avalign.avfit.build.survey import Survey, survey
from avalign.avfit.pairing.classes import NOTHING, Classes
from avalign.avfit.pairing.pairing import Pairing
from avalign.avfit.pairing.pools import ImagePool, RecordingPool
from avalign.avfit.plan import Plan
from avalign.avfit.processes import shared_out
from avalign.avfit.record_counts import RecordCounts
from avalign.config.tree import as_plain
from avalign.errors import AvalignError
from avalign.interfaces import Dataset
from avalign.offered import completed
from avalign.system.atomic_write import unfinished
from avalign.system.terminal import tell
from avalign.system.versions import versions

Say = Callable[[str], None]
EVERY = 10.0  # seconds between two lines of a data set that is read for long


@dataclass(frozen=True)
class Build:
    """What every process of a build is told."""

    plan: Plan
    root: Path
    out: Path
    format: Format = "jsonl"
    media: Literal["require", "skip"] = "require"
    follow_links: bool = False
    part_size: int = SIZE

    @property
    def state(self) -> State:
        return State(self.out)

    @property
    def folders(self) -> list[str]:
        """Of the data sets, each once."""
        return sorted({str(use.folder) for use in self.plan.datasets.values()})

    def readings(self, label: str) -> Iterator[Reading[Any]]:
        use = self.plan.datasets[label]
        dataset: Dataset = completed(registry.load("dataset", use.name)(**use.options), Dataset)
        told = time.monotonic()
        try:
            for number, reading in enumerate(dataset.read(self.root / str(use.folder))):
                yield reading
                if number % 1000 == 0 and time.monotonic() - told > EVERY:
                    told = time.monotonic()
                    tell(f"... {label}: {number:,} items read", err=True)
        except AvalignError as error:
            raise AvalignError(f"data set {label!r}: {error}") from error

    # -- what units leave for each other

    def files(self, folder: str) -> Path:
        """Names of all files of a data set's folder, as Names."""
        return self.out / ".build" / "files" / f"{self.folders.index(folder):03d}.npy"

    def origins(self, label: str, split: str) -> Path:
        return self.out / ".build" / "origins" / f"{label}.{split}.npy"

    def pool(self, label: str) -> Path:
        return self.out / ".build" / "pools" / label

    def classes(self) -> Classes:
        return _classes(tuple((Path(table), text_of(Path(table))) for table in self.plan.classes))

    def held(self, labels: Sequence[str]) -> dict[str, Names]:
        """split -> every origin that these data sets have in it."""
        found = {}
        for split in ("test", "val"):
            each = [np.load(self.origins(label, split)) for label in labels]
            found[split] = Names(np.unique(np.concatenate([np.zeros(0, np.uint64), *each])))
        return found

    def sample_filter(
        self, label: str, unfit: Callable[[Any], Problem | None] = lambda thing: None
    ) -> SampleFilter:
        use = self.plan.datasets[label]
        own = [label] if use.share_origins else []
        sample_filter = SampleFilter(
            label,
            seed=self.plan.seed,
            files=Names(np.load(self.files(str(use.folder)))) if self.media == "require" else None,
            held=self.held([x for x in self.plan.datasets if x not in own]),
            own=self.held(own),
            most=use.most,
            unfit=unfit,
        )
        if use.most:
            sample_filter.limit(self.readings(label))
        return sample_filter


@lru_cache(maxsize=4)
def _classes(tables: tuple[tuple[Path, str], ...]) -> Classes:
    """Read once for what is in the tables: many units ask."""
    return Classes.read(*(table for table, _ in tables))


def build(
    plan: Plan,
    root: Path,
    out: Path,
    *,
    jobs: int = 1,
    format: Format = "jsonl",
    media: Literal["require", "skip"] = "require",
    follow_links: bool = False,
    overwrite: bool = False,
    part_size: int = SIZE,
    say: Say = tell,
) -> dict[str, Any]:
    """Write the plan's records. Returns counts.json; AvalignError names what is missing or does not fit.

    root:         folder that the data sets' folders lie in, and that records' paths start from
    media:        "require": what lacks its image or audio is refused; "skip": media are not looked for
    follow_links: also read what links below the root lead to outside it
    overwrite:    replace what another plan wrote to `out`
    part_size:    records of one file at most
    """
    work = Build(plan, root, out, format, media, follow_links, part_size)
    if format == "parquet":
        pyarrow()
    _refuse_missing(work)
    with work.state.locked():
        surveys = _survey(work, say)
        if work.state.begin(_fingerprint(work, surveys), overwrite) and work.state.finished("all"):
            say(f"{out} is finished: nothing has changed since it was built")
        _save_files(work, surveys)
        labels = list(plan.datasets)
        _run(partial(_find_origins, work), labels, jobs, say, "origins of {}")
        _run(partial(_read, work), labels, jobs, say, "{}")
        chunks = list(_chunks(work))
        _opened.clear()  # those of an earlier build
        _refuse_impossible(work)
        _run(partial(_pair, work), chunks, jobs, say, "{}")
        units = [*(f"read-{label}" for label in labels), *map(str, chunks)]
        return finished_report(work.state, plan, units, root, say)


def _refuse_missing(work: Build) -> None:
    if not work.root.is_dir():
        raise AvalignError(f"--root {work.root}: no such folder")
    lacking = [folder for folder in work.folders if not (work.root / folder).is_dir()]
    if lacking:
        gone = list(_needing(work.plan, lacking))
        words = " ".join(f"{path}=null" for path in gone)
        parts = len(work.plan.datasets) + len(work.plan.pairs)
        without = f" To build without: {words}" if len(gone) < parts else " Nothing can be built without."
        raise AvalignError(f"{work.root}: holds no folder {', '.join(lacking)}.{without}")


def _needing(plan: Plan, lacking: Sequence[str]) -> Iterator[str]:
    """What a plan has to do without where folders are missing, images without partners among it."""
    gone = {label for label, use in plan.datasets.items() if use.folder in lacking}
    pairs = [label for label, use in plan.pairs.items() if {use.images, use.audio} & gone]
    left = {x for label, use in plan.pairs.items() if label not in pairs for x in (use.images, use.audio)}
    gone |= {label for label in plan.datasets if plan.gives(label) != "records" and label not in left}
    yield from (f"datasets.{label}" for label in plan.datasets if label in gone)
    yield from (f"pairs.{label}" for label in pairs)


def _survey(work: Build, say: Say) -> dict[str, Survey]:
    found = {}
    for folder in work.folders:
        found[folder] = survey(work.root, folder, leave=work.out.resolve(), follow_links=work.follow_links)
        say(f"... {folder}: {len(found[folder].names):,} files")
    return found


def _fingerprint(work: Build, surveys: dict[str, Survey]) -> dict[str, Any]:
    """Everything that the output depends on."""
    known = versions()
    return {
        "plan": as_plain(work.plan),
        "format": work.format,
        "media": work.media,
        "follow_links": work.follow_links,
        "part_size": work.part_size,
        "avalign": {name: known[name] for name in ("avalign", "commit")},
        "classes": [text_of(Path(table)) for table in work.plan.classes],
        "annotations": {folder: found.annotations for folder, found in surveys.items()},
        "files": {f: found.names.digest() for f, found in surveys.items() if work.media == "require"},
    }


def _save_files(work: Build, surveys: dict[str, Survey]) -> None:
    for folder, found in surveys.items():
        _save(work.files(folder), found.names.hashes)


def _save(file: Path, numbers: np.ndarray) -> None:
    with unfinished(file) as beside, open(beside, "wb") as opened:
        np.save(opened, numbers)


def _run(work: Callable[[Any], None], units: Sequence[Any], jobs: int, say: Say, what: str) -> None:
    begun = time.monotonic()
    for done, unit in enumerate(shared_out(work, units, jobs), start=1):
        name = what.format(unit)
        say(f"... {name} ({done} of {len(units)}, {time.monotonic() - begun:.0f} s)")


# ---- units of work ----


def _find_origins(work: Build, label: str) -> None:
    """The origins of a data set's things in validation and test, as far as records are made of them."""
    unit = f"origins-{label}"
    if work.state.finished(unit) is not None:
        return
    found: dict[str, set[int]] = {"test": set(), "val": set()}
    used = work.plan.splits(label)
    for reading in work.readings(label):
        for thing in reading.made:
            if thing.split in found and thing.split in used:
                found[thing.split].update(map(hashed, origins(thing)))
    for split, hashes in found.items():
        _save(work.origins(label, split), np.array(sorted(hashes), np.uint64))
    work.state.finish(unit, {"parts": []})


def _read(work: Build, label: str) -> None:
    """A data set's records as parts of the manifest, or its images or recordings as a pool for pairs."""
    unit = f"read-{label}"
    if work.state.finished(unit) is not None:
        return
    folder = str(work.plan.datasets[label].folder)
    with opened_ledger(label, work.state.folder / "books") as entered:
        if work.plan.gives(label) == "records":
            record_counts = RecordCounts()
            passing = work.sample_filter(label).passing(work.readings(label), entered)
            records = (located(record, label, folder) for record in passing)
            parts = write_parts(records, work.out, label, work.format, record_counts, work.part_size)
            done: dict[str, Any] = {"parts": parts, "tally": record_counts.rows()}
        else:
            counts = _save_pool(work, label, below_root(folder, ""), entered)
            done = {"parts": [], "tally": [], "pool": counts}
        account = entered.close()
    work.state.finish(unit, done | {"account": account.plain()})


def _save_pool(work: Build, label: str, below: str, entered: Ledger) -> dict[str, Any]:
    classes = work.classes()
    kind, known = (
        (ImagePool, classes.of_image)
        if work.plan.gives(label) == "images"
        else (RecordingPool, classes.of_audio)
    )

    def unfit(thing: ImageAnnotation | AudioAnnotation) -> Problem | None:
        named = thing.things if isinstance(thing, ImageAnnotation) else thing.events
        if any(known(one.name, one.mid) != NOTHING for one in named):
            return None
        return Problem("no class of the look-up", ", ".join(dict.fromkeys(one.name for one in named)))

    passing = work.sample_filter(label, unfit).passing(work.readings(label), entered)
    pool = kind.build((Reading(thing.id, "", (thing,)) for thing in passing), classes, below=below)
    pool.save(work.pool(label))
    return pool.counts


@dataclass(frozen=True)
class Chunk:
    """Records `first` to `end` - 1 of a task that are made of pairs: one part."""

    label: str
    split: str
    task: str
    number: int
    first: int
    end: int

    def __str__(self) -> str:
        return f"{self.label}-{self.split}-{self.task}-{self.number:05d}"


def _chunks(work: Build) -> Iterator[Chunk]:
    for label, pairs in work.plan.pairs.items():
        for split, tasks in pairs.records.items():
            for task, count in tasks.items():
                for number, first in enumerate(range(0, count, work.part_size)):
                    yield Chunk(label, split, task, number, first, min(first + work.part_size, count))


def _refuse_impossible(work: Build) -> None:
    """Before the first part is made, all that pairs cannot give."""
    problems = []
    for label, pairs in work.plan.pairs.items():
        for split, tasks in pairs.records.items():
            possible = _pairing(work, label).possible(split)
            for task, count in tasks.items():
                if count and not possible[task].pairs:
                    problems.append(f"pairs.{label}.records.{split}.{task}: {possible[task].why}")
    if problems:
        raise AvalignError("\n".join(problems))


def _pair(work: Build, chunk: Chunk) -> None:
    if work.state.finished(str(chunk)) is not None:
        return
    pairing, record_counts = _pairing(work, chunk.label), RecordCounts()
    records = (pairing.record(chunk.split, chunk.task, n) for n in range(chunk.first, chunk.end))
    part = f"{chunk}.{work.format}"
    write_part(records, work.out / part, record_counts)
    work.state.finish(str(chunk), {"parts": [part], "tally": record_counts.rows()})


_opened: dict[tuple[Path, str], Pairing] = {}


def _pairing(work: Build, label: str) -> Pairing:
    """Opened once in each process; the pools' arrays are mapped, so that all share one copy."""
    if (work.out, label) not in _opened:
        pairs, classes = work.plan.pairs[label], work.classes()
        images, audio = work.pool(pairs.images), work.pool(pairs.audio)
        _opened[work.out, label] = registry.load("pairing", pairs.name)(
            label,
            ImagePool.open(images, classes),
            RecordingPool.open(audio, classes),
            classes,
            work.plan.seed,
            **pairs.options,
        )
    return _opened[work.out, label]
