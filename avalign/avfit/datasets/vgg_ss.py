"""VGG-SS: where in the middle frame of a VGG-Sound clip its sound comes from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from avalign.answers import write_box
from avalign.avfit.annotation import Problem, Reading, clean_boxes, filled_pattern, is_video, refused, spoken
from avalign.data.manifest.record import Record
from avalign.interfaces import Dataset
from avalign.system.json_file import read_json


class VggSs(Dataset):
    """VGG-SS, VGG-Sound Source: 5,158 test clips with boxes around what sounds (ARIG, zero-shot).

    Layout of its folder: `vggss.json` as published, and for every clip the media that `image` and `audio`
    name; "{clip}" stands for the name in that file, "<YouTube id>_<start in seconds, 6 digits>". Both may be
    one video: the frame is then taken at `frame_time`, the middle of the 10 s, as the annotators saw it.
    Source: Chen et al., Localizing Visual Sounds the Hard Way, CVPR 2021.

    image, audio: where a clip's image and audio lie
    frame_time:   seconds from the clip's start, if the image is a video's frame
    """

    gives = "records"

    def __init__(
        self,
        *,
        image: str = "frames/{clip}.jpg",
        audio: str = "audio/{clip}.wav",
        frame_time: float = 5.0,
    ) -> None:
        self.image, self.audio, self.frame_time = image, audio, frame_time

    def read(self, folder: Path) -> Iterator[Reading[Record]]:
        seen: set[str] = set()
        for number, item in enumerate(read_json(folder / "vggss.json", list), start=1):
            where = f"vggss.json, record {number}"
            clip = str(item.get("file", "")) if isinstance(item, dict) else ""
            yield self._reading(clip, where, item, seen)
            seen.add(clip)

    def _reading(self, clip: str, where: str, item: Any, seen: set[str]) -> Reading[Record]:
        youtube, _, start = clip.rpartition("_")  # the id itself may hold "_"
        if not youtube or not start.isdigit() or not isinstance(item.get("class"), str):
            return refused(clip, where, "record without file or class", repr(item))
        if clip in seen:
            return refused(clip, where, "repeated clip")
        boxes, problems = clean_boxes(item.get("bbox"))
        if not boxes:
            return Reading(clip, where, problems=problems or (Problem("no box"),))
        label = item["class"]
        try:
            image, audio = filled_pattern(self.image, clip=clip), filled_pattern(self.audio, clip=clip)
        except ValueError as error:
            return refused(clip, where, "unsafe name", error)
        try:
            label.encode()  # JSON can hold half of a character
            response = " ".join(write_box(box, spoken(label)) for box in boxes)
        except ValueError as error:
            return refused(clip, where, "class that cannot be written", error)
        record = Record(
            id=f"vgg_ss/{clip}",
            task="arig",
            split="test",
            source="vgg_ss",
            response=response,
            image=image,
            frame_times=(self.frame_time,) if is_video(image) else (),
            audio=audio,
            boxes=boxes,
            label=label,
            provenance={"origins": [youtube]},
        )
        return Reading(clip, where, (record,), problems)
