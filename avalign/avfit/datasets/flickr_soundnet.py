"""Flickr-SoundNet: where three annotators saw what is heard in a frame of a Flickr video."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from xml.etree.ElementTree import Element

from avalign.answers import Box, write_box
from avalign.avfit.annotation import Problem, Reading, clean_box, filled_pattern, is_video, refused
from avalign.avfit.annotation_files import rows_of
from avalign.avfit.datasets.clips import checked_pattern
from avalign.avfit.datasets.xml_file import read_xml
from avalign.data.manifest.record import Record
from avalign.errors import AvalignError
from avalign.interfaces import Dataset

FRAME = 256  # side of the frame the annotators saw, in pixels
PIXELS = re.compile(r"-?[0-9]{1,6}")
CONSENSUS = 2  # annotators who agree count in full: G = min(sum of box masks / 2, 1)
LISTS = {
    "flickr_test": "flickr_test.csv",
    "test_list": "test_list.txt",
    "supervised_test_list": "supervised_test_list.txt",
}


class FlickrSoundNet(Dataset):
    """Flickr-SoundNet's annotated clips: boxes of three annotators each, without class (ARIG, zero-shot).

    Layout of its folder: one of the published test lists, `flickr_test.csv` ("id,frame"), `test_list.txt`
    ("id.png") or `supervised_test_list.txt` ("/some/where/id.mp4"); for every id `Annotations/<id>.xml`, and
    the media that `image` and `audio` name, in which "{clip}" stands for the id. In the XML the root's
    children are the annotators; each holds `bbox` elements of five children, the last four of which are xmin,
    ymin, xmax and ymax in a frame of 256 x 256 pixels. Not verified against the original files: this is what
    public loaders read. Boxes that several annotators drew alike count as often; the truth map is
    min(sum of their masks / 2, 1).
    Source: Senocak et al., Learning to Localize Sound Source in Visual Scenes, CVPR 2018.

    clips:        the list of clips: "flickr_test" (249), "test_list" (250), "supervised_test_list" (250, and
                  30 of them again)
    annotations:  where a clip's boxes lie
    image, audio: where a clip's image and audio lie; the image is the frame that was annotated
    """

    gives = "records"

    def __init__(
        self,
        *,
        clips: Literal["flickr_test", "test_list", "supervised_test_list"] = "flickr_test",
        annotations: str = "Annotations/{clip}.xml",
        image: str = "frames/{clip}.jpg",
        audio: str = "audio/{clip}.wav",
    ) -> None:
        for option, pattern in (("annotations", annotations), ("image", image), ("audio", audio)):
            checked_pattern(option, pattern, ("clip",))
        if is_video(image):
            raise AvalignError(
                f"flickr_soundnet: image: {image!r} is a video; the boxes belong to one frame, an image"
            )
        self.list, self.annotations, self.image, self.audio = LISTS[clips], annotations, image, audio

    def read(self, folder: Path) -> Iterator[Reading[Record]]:
        seen: set[str] = set()
        for line, row in rows_of(folder / self.list):
            clip = row[0].strip().rpartition("/")[2]
            if self.list.endswith(".txt"):
                clip = clip.rpartition(".")[0] or clip
            where = f"{self.list}:{line}"
            if not clip or clip in seen:
                yield refused(clip, where, "repeated clip" if clip else "row without a name")
                continue
            seen.add(clip)
            yield self._reading(clip, where, folder)

    def _reading(self, clip: str, where: str, folder: Path) -> Reading[Record]:
        try:
            annotation = folder / filled_pattern(self.annotations, clip=clip)
            image, audio = filled_pattern(self.image, clip=clip), filled_pattern(self.audio, clip=clip)
        except ValueError as error:
            return refused(clip, where, "unsafe name", error)
        try:
            rows = _boxes(read_xml(annotation))
        except AvalignError as error:
            return refused(clip, where, "no readable boxes", str(error).replace(f"{folder}/", ""))
        cleaned = [clean_box(row) for row in rows]
        boxes: tuple[Box, ...] = tuple(box for box, _ in cleaned if box is not None)  # alike ones too
        problems = tuple(problem for _, problem in cleaned if problem is not None)
        if not boxes:
            return Reading(clip, where, problems=problems or (Problem("no box"),))
        record = Record(
            id=f"flickr_soundnet/{clip}",
            task="arig",
            split="test",
            source="flickr_soundnet",
            response=" ".join(write_box(box) for box in dict.fromkeys(boxes)),
            image=image,
            audio=audio,
            boxes=boxes,
            consensus=CONSENSUS,
            provenance={"origins": [f"flickr:{clip}"]},
        )
        return Reading(clip, where, (record,), problems)


def _boxes(root: Element) -> list[list[float | str]]:
    """Every bbox of every annotator: corners in 0..1, or what stands there instead of a number."""
    found: list[list[float | str]] = []
    for annotator in root:
        for bbox in annotator.iter("bbox"):
            fields = [(child.text or "").strip() for child in bbox][1:]
            found.append([int(t) / FRAME if PIXELS.fullmatch(t) else t for t in fields])
    return found
