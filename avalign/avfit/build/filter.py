"""Which of the things a data set gives are accepted into the manifest, and under what name.

Refused, each with its reason: what lacks its media, what would leak from test into validation or training
(an origin stands in one split only: test goes before val, val before train), and what is more than a plan
asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from avalign.avfit.annotation import AudioAnnotation, ImageAnnotation, Problem, Reading
from avalign.avfit.build.hashes import Names, hashed
from avalign.avfit.build.ledger import Ledger
from avalign.data.manifest.record import Record
from avalign.errors import AvalignError

Made = TypeVar("Made", Record, ImageAnnotation, AudioAnnotation)

BEFORE = {"train": ("test", "val"), "val": ("test",), "test": ()}  # splits that take precedence


def origins(thing: Record | ImageAnnotation | AudioAnnotation) -> tuple[str, ...]:
    """What a thing's media come from: ids of videos and photographs."""
    if isinstance(thing, Record):
        return tuple(map(str, thing.provenance.get("origins", ())))
    return (thing.origin,) if thing.origin else ()


def media(thing: Record | ImageAnnotation | AudioAnnotation) -> Iterator[tuple[str, str]]:
    """("picture missing", "frames/a.jpg"): what is said when a file is not there, and the file."""
    if isinstance(thing, Record):
        image, audio = thing.image, thing.audio
    else:
        image = thing.file if isinstance(thing, ImageAnnotation) else None
        audio = thing.file if isinstance(thing, AudioAnnotation) else None
    if image is not None:
        yield "picture missing", image
    if audio is not None:
        yield "sound missing", audio


class SampleFilter:
    """Judges the things of one data set.

    files: names of its files; None: they are not asked for
    held:  split -> origins of the plan's records in it, for which other splits are refused
    own:   split -> origins that other splits may share, as the data set was published so: only noted
    most:  split -> how many are wanted; `limit` has then to see all of them first
    unfit: what else may be wrong with a thing
    """

    def __init__(
        self,
        label: str,
        *,
        seed: int,
        files: Names | None,
        held: Mapping[str, Names],
        own: Mapping[str, Names],
        most: Mapping[str, int],
        unfit: Callable[[Any], Problem | None] = lambda thing: None,
    ) -> None:
        self.label, self.seed, self.files, self.unfit = label, seed, files, unfit
        self.held, self.own, self.most = held, own, most
        self._highest: dict[str, int] = {}
        self._seen: set[int] = set()

    def limit(self, readings: Iterator[Reading[Any]]) -> None:
        """Choose, by the seed, which are accepted where fewer are wanted than there are."""
        ranks: dict[str, list[int]] = {split: [] for split in self.most}
        for reading in readings:
            for thing in reading.made:
                if thing.split in ranks and self._unfit(thing) is None:
                    ranks[thing.split].append(self._rank(thing))
        for split, found in ranks.items():
            wanted = self.most[split]
            ranked = np.unique(np.array(found, np.uint64))
            if len(ranked) > wanted:
                self._highest[split] = int(ranked[wanted - 1]) if wanted else -1

    def passing(self, readings: Iterator[Reading[Made]], ledger: Ledger) -> Iterator[Made]:
        """The things that are accepted; all others are entered in the ledger."""
        empty = True
        for reading in readings:
            empty = False
            checked = [(thing, self._refusal(thing)) for thing in reading.made]
            accepted = [thing for thing, problem in checked if problem is None]
            shared = [problem for thing in accepted if (problem := _leak(thing, self.own)) is not None]
            ledger.enter(
                reading, [(thing, problem) for thing, problem in checked if problem is not None], shared
            )
            yield from accepted
        if empty:
            raise AvalignError(f"data set {self.label!r}: its annotation files hold no item at all")

    def _refusal(self, thing: Record | ImageAnnotation | AudioAnnotation) -> Problem | None:
        problem = self._unfit(thing)
        if problem is None and self._rank(thing) > self._highest.get(thing.split, 1 << 64):
            problem = Problem("more than the plan asks for", f"most: {thing.split}: {self.most[thing.split]}")
        if problem is None and isinstance(thing, Record):  # images and recordings may be in many records
            if hashed(thing.id) in self._seen:
                problem = Problem("repeated id", thing.id)
            self._seen.add(hashed(thing.id))
        return problem

    def _unfit(self, thing: Record | ImageAnnotation | AudioAnnotation) -> Problem | None:
        if self.files is not None:
            for reason, file in media(thing):
                if file not in self.files:
                    return Problem(reason, file)
        return _leak(thing, self.held) or self.unfit(thing)

    def _rank(self, thing: Record | ImageAnnotation | AudioAnnotation) -> int:
        return hashed(self.seed, self.label, thing.id)


def _leak(thing: Record | ImageAnnotation | AudioAnnotation, held: Mapping[str, Names]) -> Problem | None:
    for split in BEFORE[thing.split]:
        for origin in origins(thing):
            if split in held and origin in held[split]:
                return Problem(f"stands in {split} too", f"{origin} ({thing.split})")
    return None


def located(record: Record, label: str, folder: str) -> Record:
    """The record with paths from the media root on, and an id that begins with the data set's label."""
    named = record.id if record.id.startswith(f"{label}/") else f"{label}/{record.id}"
    image, audio = (path and below_root(folder, path) for path in (record.image, record.audio))
    return replace(record, id=named, image=image, audio=audio)


def below_root(folder: str, path: str) -> str:
    """A path from the data set's folder on, from the media root on."""
    return f"{'' if folder == '.' else folder.rstrip('/') + '/'}{path}"
