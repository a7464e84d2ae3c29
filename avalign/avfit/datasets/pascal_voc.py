"""PASCAL VOC: photographs with boxes around 20 classes of objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Annotated
from xml.etree.ElementTree import Element

from pydantic import Field

from avalign.answers import Box
from avalign.avfit.annotation import (
    ImageAnnotation,
    Problem,
    Reading,
    Thing,
    clean_box,
    filled_pattern,
    refused,
)
from avalign.avfit.annotation_files import text_of
from avalign.avfit.datasets.options import checked_pattern, checked_splits, existing
from avalign.avfit.datasets.xml_file import read_xml
from avalign.errors import AvalignError
from avalign.interfaces import Dataset
from avalign.media.image import stored_frame, turned

LISTS = ("train", "val", "trainval", "test")
SPLITS = {"train": "train", "val": "val", "test": "test"}


class PascalVoc(Dataset):
    """PASCAL VOC 2007 or 2012: boxes of 20 classes in 9,963 or 11,540 photographs (images to pair).

    Layout of its folder, "VOCdevkit/VOC2007" or "VOCdevkit/VOC2012", as published:
    `ImageSets/Main/<list>.txt` (train, val, trainval, test: one photograph's id a line),
    `Annotations/<id>.xml` and the photographs. Corners are pixels, counted from 1, and inside the box: a box
    is ((xmin - 1) / width, (ymin - 1) / height, xmax / width, ymax / height). Boxes of an object's parts
    (head, hand, foot) are no objects and not read.
    Where a photograph lies there, its header tells whether the annotation's size is that of the pixels as
    stored or, turned by EXIF, as seen: boxes on stored pixels are turned along. A size of another shape, and
    an orientation of which the size tells nothing (a half turn, a mirror, a square), are refused.
    VOC2012 publishes no boxes of its test photographs: there `splits: {train: train, val: val}` and
    `test_share: 0.5` make half of val's photographs the test.
    Source: Everingham et al., The PASCAL Visual Object Classes (VOC) Challenge, IJCV 2010.

    image:       where a photograph lies; {image} is its id
    splits:      list -> our split, of the lists to be read
    test_share:  share of the photographs of split val that become test's, each by its id and `seed`
    seed:        of that sampling
    difficult:   keep boxes marked as difficult
    """

    gives = "images"

    def __init__(
        self,
        *,
        image: str = "JPEGImages/{image}.jpg",
        splits: Mapping[str, str] = SPLITS,
        test_share: Annotated[float, Field(ge=0, le=1)] = 0.0,
        seed: int = 0,
        difficult: bool = False,
    ) -> None:
        self.image = checked_pattern("pascal_voc: image", image, ("image",))
        self.splits = checked_splits("pascal_voc: splits", splits, LISTS)
        self.test_share, self.seed, self.difficult = test_share, seed, difficult

    def read(self, folder: Path) -> Iterator[Reading[ImageAnnotation]]:
        lists = {name: self._ids(folder, name) for name in self.splits}  # all there before the first image
        seen: set[str] = set()
        for name, ids in lists.items():
            for number, image in ids:
                where = f"{name}.txt:{number}"
                if image in seen:
                    yield refused(image, where, "repeated image")
                else:
                    yield self._reading(folder, image, where, self._split(image, self.splits[name]))
                seen.add(image)

    def _ids(self, folder: Path, name: str) -> list[tuple[int, str]]:
        """Line number and id; the lists of a class, "<class>_train.txt", have a second column: not these."""
        file = existing(folder / "ImageSets" / "Main" / f"{name}.txt", "pascal_voc: splits")
        lines = text_of(file).split("\n")
        return [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]

    def _split(self, image: str, split: str) -> str:
        if split != "val" or not self.test_share:
            return split
        digest = blake2b(f"{self.seed} {image}".encode(), digest_size=7).digest()
        return "test" if int.from_bytes(digest, "big") < self.test_share * (1 << 56) else "val"

    def _reading(self, folder: Path, image: str, where: str, split: str) -> Reading[ImageAnnotation]:
        try:  # before any file is opened by this name
            annotation = filled_pattern("Annotations/{image}.xml", image=image)
            image_path = filled_pattern(self.image, image=image)
        except ValueError as error:
            return refused(image, where, "unsafe name", error)
        try:
            root = read_xml(folder / annotation)
        except AvalignError as error:
            return refused(image, where, "no readable annotation", str(error).replace(f"{folder}/", ""))
        things, problems = self._things(root)
        try:
            orientation = _frame(root, folder / image_path) if things else 1
        except ValueError as error:
            return refused(image, where, "boxes of another frame than the picture's", error)
        things = tuple(replace(thing, box=turned(thing.box, orientation)) for thing in things)
        made = ImageAnnotation(f"pascal_voc/{image}", split, image_path, things, origin=f"pascal_voc:{image}")
        problems += () if things or problems else (Problem("no object"),)
        return Reading(image, where, (made,) if things else (), problems)

    def _things(self, root: Element) -> tuple[tuple[Thing, ...], tuple[Problem, ...]]:
        try:
            width, height = (_number(root, f"size/{side}") for side in ("width", "height"))
            if not (1 <= width < float("inf") and 1 <= height < float("inf")):
                raise ValueError(f"{width:g} x {height:g}")
        except ValueError as error:
            return (), (Problem("no size of the picture in pixels", f"{error!s:.120}"),)
        things, problems = [], []
        for number, found in enumerate(root.iterfind("object"), start=1):
            name = found.findtext("name", "").strip()
            if not name:
                problems.append(Problem("object without a class", f"object {number}"))
                continue
            if not self.difficult and found.findtext("difficult", "0").strip() == "1":
                problems.append(Problem("difficult object", f"{name:.60}"))
                continue
            box, problem = _box(found, width, height)
            if problem is not None:
                problems.append(problem)
            if box is not None:
                things.append(Thing(name, box))
        return tuple(things), tuple(problems)


def _frame(root: Element, image_path: Path) -> int:
    """The orientation of the pixels that boxes were drawn on; 1: as seen. A ValueError where none is certain.

    Told by the annotation's size alone: it is the stored one, or that of the image as seen.
    """
    try:
        orientation, (width, height) = stored_frame(image_path)
    except (OSError, SyntaxError, ValueError):  # missing or broken: `avalign data check` names it
        return 1
    stated = tuple(round(_number(root, f"size/{side}")) for side in ("width", "height"))
    said = (
        f"{image_path.name} stores {width} x {height} pixels, the annotation says {stated[0]} x {stated[1]}"
    )
    if orientation == 1:
        if abs(stated[0] * height - stated[1] * width) > max(stated):  # a smaller copy's sides are rounded
            raise ValueError(said)
        return 1
    if orientation >= 5 and width != height:
        if stated == (width, height):
            return orientation
        if stated == (height, width):
            return 1
    raise ValueError(f"{said}; its EXIF orientation is {orientation}")


def _box(found: Element, width: float, height: float) -> tuple[Box | None, Problem | None]:
    try:
        x0, y0, x1, y1 = (_number(found, f"bndbox/{name}") for name in ("xmin", "ymin", "xmax", "ymax"))
    except ValueError as error:
        return None, Problem("not four numbers", f"{error!s:.120}")
    return clean_box(((x0 - 1) / width, (y0 - 1) / height, x1 / width, y1 / height))


def _number(element: Element, path: str) -> float:
    text = element.findtext(path, "")
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{path} is {text[:40]!r}") from None
