"""OpenImages: photographs with boxes around 600 classes of objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from avalign.avfit.annotation import (
    ImageAnnotation,
    Problem,
    Reading,
    Thing,
    clean_box,
    filled_pattern,
    refused,
)
from avalign.avfit.annotation_files import rows_of
from avalign.avfit.datasets.ontology import names_by_mid
from avalign.avfit.datasets.options import checked_pattern, checked_splits, existing
from avalign.avfit.datasets.repeats import Repeats
from avalign.errors import AvalignError
from avalign.interfaces import Dataset
from avalign.media.image import stored_frame, turned

SPLITS = {"train": "train", "validation": "val", "test": "test"}
NEEDED = ("ImageID", "LabelName", "XMin", "YMin", "XMax", "YMax")
_Row = tuple[int, list[str]]  # line number and cells


class OpenImages(Dataset):
    """OpenImages V4 to V7: boxes of 600 classes in 1.74 M, 42 k and 125 k photographs (images to pair).

    Layout of its folder: `class-descriptions-boxable.csv`, for each split `<split>-annotations-bbox.csv` as
    published (V6 and V7 call train's `oidv6-train-annotations-bbox.csv`), and the photographs.
    The files are read as a stream: an image's rows stand together, and an image that comes again later in
    its file is refused. A flag of -1 is unknown, and keeps its box.
    Source: Kuznetsova et al., The Open Images Dataset V4, IJCV 2020.

    image:       where a photograph lies; {split} as published (train, validation, test), {image} its id
    splits:      published split -> ours, of those to be read
    groups:      keep boxes around a group of objects (IsGroupOf)
    depictions:  keep boxes around drawn, printed or sculpted objects (IsDepiction)
    min_area:    least area of a box, as a share of its photograph's
    boxes_on:    "seen": boxes are of the photographs as they are seen; "stored": of the pixels as stored, and
                 are turned along where a photograph's EXIF turns it (every header is read). The files of
                 boxes do not tell which; `avalign data show` does
    """

    gives = "images"

    def __init__(
        self,
        *,
        image: str = "{split}/{image}.jpg",
        splits: Mapping[str, str] = SPLITS,
        groups: bool = False,
        depictions: bool = False,
        min_area: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        boxes_on: Literal["seen", "stored"] = "seen",
    ) -> None:
        self.boxes_on = boxes_on
        self.image = checked_pattern("openimages: image", image, ("split", "image"))
        self.splits = checked_splits("openimages: splits", splits, SPLITS)
        self.min_area = min_area
        self.dropped = {} if groups else {"IsGroupOf": "box around a group"}
        self.dropped |= {} if depictions else {"IsDepiction": "box around a depiction"}

    def read(self, folder: Path) -> Iterator[Reading[ImageAnnotation]]:
        classes = names_by_mid(folder / "class-descriptions-boxable.csv")
        files = {split: self._file(folder, split) for split in self.splits}  # all there before the first row
        for split, file in files.items():
            yield from self._read_images(file, split, classes, folder)

    def _file(self, folder: Path, split: str) -> Path:
        name = f"{split}-annotations-bbox.csv"
        newer = folder / f"oidv6-{name}"
        if not newer.is_file():
            return existing(folder / name, "openimages: splits")
        if (folder / name).is_file():
            raise AvalignError(f"{folder / name}: lies beside {newer.name}; which of the two is meant?")
        return newer

    def _read_images(
        self, file: Path, split: str, classes: Mapping[str, str], folder: Path
    ) -> Iterator[Reading[ImageAnnotation]]:
        rows = rows_of(file)
        _, header = next(rows, (0, []))
        lacking = [name for name in (*NEEDED, *self.dropped) if name not in header]
        if lacking:
            raise AvalignError(
                f"{file}: has no column {', '.join(lacking)}; its first line is {','.join(header)[:200]!r}"
                + ("" if set(lacking) & set(NEEDED) else " (options groups, depictions: true do without)")
            )
        column = header.index("ImageID")
        reader = _Boxes(header, classes, self.dropped, self.min_area)
        repeated = Repeats(lambda: (image for image, _ in _images(rows_of(file), column, 1)))
        for image, group in _images(rows, column):
            where = f"{file.name}:{group[0][0]}"
            if not image:
                yield Reading(image, where, problems=(Problem("row without an image"),) * len(group))
                continue
            if repeated(image):
                yield refused(image, where, "repeated image")
                continue
            things, problems = reader.read(group)
            try:
                path = filled_pattern(self.image, split=split, image=image)
            except ValueError as error:
                yield refused(image, where, "unsafe name", error)
                continue
            if self.boxes_on == "stored" and things:
                try:
                    orientation, _ = stored_frame(folder / path)
                except (OSError, SyntaxError, ValueError):
                    yield refused(image, where, "no photograph to turn its boxes by", path)
                    continue
                things = tuple(replace(thing, box=turned(thing.box, orientation)) for thing in things)
            made = ImageAnnotation(
                f"openimages/{image}", self.splits[split], path, things, origin=f"openimages:{image}"
            )
            yield Reading(image, where, (made,) if things else (), problems)


def _images(rows: Iterator[_Row], column: int, skip: int = 0) -> Iterator[tuple[str, list[_Row]]]:
    """Each image's id and its rows, as long as they stand together; a row too short for an id has ""."""
    for _ in range(skip):
        next(rows, None)
    for image, group in groupby(rows, key=lambda row: row[1][column] if column < len(row[1]) else ""):
        yield image, list(group)


class _Boxes:
    """The rows of an image as things, with what is wrong with the others."""

    def __init__(
        self, header: Sequence[str], classes: Mapping[str, str], dropped: Mapping[str, str], min_area: float
    ) -> None:
        self.width = len(header)
        self.mid, self.x0, self.y0, self.x1, self.y1 = (header.index(name) for name in NEEDED[1:])
        self.dropped = [(header.index(column), reason) for column, reason in dropped.items()]
        self.classes, self.min_area = classes, min_area

    def read(self, rows: Sequence[_Row]) -> tuple[tuple[Thing, ...], tuple[Problem, ...]]:
        things: list[Thing] = []
        problems: list[Problem] = []
        for number, row in rows:
            problem = self._read(row, things)
            if problem is not None:
                problems.append(Problem(problem.reason, f"line {number}: {problem.detail}"))
        return tuple(things), tuple(problems)

    def _read(self, row: list[str], things: list[Thing]) -> Problem | None:
        if len(row) != self.width:
            return Problem("row of another length", f"{len(row)} cells, the header has {self.width}")
        mid = row[self.mid]
        name = self.classes.get(mid)
        if name is None:
            return Problem("unknown class", f"{mid:.60}")
        for column, reason in self.dropped:
            if row[column] == "1":
                return Problem(reason, mid)
        try:
            box = (float(row[self.x0]), float(row[self.y0]), float(row[self.x1]), float(row[self.y1]))
        except ValueError as error:
            return Problem("not four numbers", f"{error!s:.80}")
        problem = None
        if not (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1):
            cleaned, problem = clean_box(box)
            if cleaned is None:
                return problem
            box = cleaned
        if (box[2] - box[0]) * (box[3] - box[1]) < self.min_area:
            return Problem("box below min_area", f"{box}")
        things.append(Thing(name, box, mid))
        return problem
