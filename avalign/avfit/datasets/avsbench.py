"""AVSBench: where in a video's frames is what is heard, as boxes around the masks of its three subsets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from avalign.answers import write_box
from avalign.avfit.annotation import Problem, Reading, filled_pattern, is_video, refused, spoken
from avalign.avfit.annotation_files import named_rows_of
from avalign.avfit.datasets.clips import youtube_id
from avalign.avfit.datasets.masks import OBJECT, boxes_of, read_mask
from avalign.avfit.datasets.options import checked_pattern
from avalign.data.manifest.record import Record, stays_inside
from avalign.errors import AvalignError
from avalign.interfaces import Dataset
from avalign.media.file import MediaError
from avalign.system.json_file import read_json
from avalign.types import SPLITS

FIELDS = ("clip", "split", "category", "part", "frame")
SHOWN = 15 / 16  # of its second: where AVSBench's code takes a frame


@dataclass(frozen=True)
class _Subset:
    """What differs between the subsets: their table, its columns, and where things lie."""

    table: str
    clip: str  # the column of the clip's name
    group: str | None  # the column of the category, or of the part of AVSS
    first: int  # number of the first frame
    masks: str
    image: str
    audio: str


SUBSETS = {
    "s4": _Subset(
        *("s4_meta_data.csv", "name", "category", 1),
        masks="s4_data/gt_masks/{split}/{category}/{clip}/{clip}_{frame}.png",
        image="s4_data/visual_frames/{split}/{category}/{clip}/{clip}_{frame}.png",
        audio="s4_data/audio_wav/{split}/{category}/{clip}.wav",
    ),
    "ms3": _Subset(
        *("ms3_meta_data.csv", "name", None, 1),
        masks="ms3_data/gt_masks/{split}/{clip}/{clip}_{frame}.png",
        image="ms3_data/visual_frames/{clip}/{clip}.mp4_{frame}.png",
        audio="ms3_data/audio_wav/{split}/{clip}.wav",
    ),
    "avss": _Subset(
        *("metadata.csv", "uid", "label", 0),
        masks="{part}/{clip}/labels_rgb/{frame}.png",
        image="{part}/{clip}/frames/{frame}.jpg",
        audio="{part}/{clip}/audio.wav",
    ),
}
FRAMES = {"v1s": 5, "v1m": 5, "v2": 10}  # of a clip in a part of AVSS: one a second


class AvsBench(Dataset):
    """AVSBench: masks of what sounds, in clips of 5 s (AVSS: up to 10 s) with a frame a second (ARIG).

    Layout of its folder, by subset; frames are counted from 1, in AVSS from 0:
        s4    `s4_meta_data.csv` (name, category, split; also start), `s4_data/`{gt_masks, visual_frames}
              /<split>/<category>/<name>/<name>_<frame>.png, `s4_data/audio_wav/<split>/<category>/<name>.wav`
        ms3   `ms3_meta_data.csv` (name, split), `ms3_data/gt_masks/<split>/<name>/<name>_<frame>.png`,
              `ms3_data/visual_frames/<name>/<name>.mp4_<frame>.png`, `ms3_data/audio_wav/<split>/<name>.wav`
        avss  `metadata.csv` (uid, label, split; label is the part: v1s, v1m or v2), `label2idx.json`,
              <label>/<uid>/{labels_rgb/<frame>.png, frames/<frame>.jpg, audio.wav}
    The csv files, and this layout, have not been verified against the original files: they are what the data
    set's own loader reads. In patterns "{clip}" stands for name or uid, besides "{split}", "{frame}" and
    "{category}" (s4) or "{part}" (avss).

    One record a frame with a mask: five a clip, ten in v2, one in the training clips of s4 and v1s. Grounding
    asks for objects, and a mask has none, only classes. One box around all of a class would be mostly what
    stands between two guitars; one around every part of touching pixels would cut a clarinet in four where
    hands cover it. So parts of a class become one box if they are not farther apart than `join`: then a box
    that wrongly holds two objects holds little besides. What has less than `least` of the image's pixels is
    left out and told: masks have crumbs of a few pixels, whose boxes no answer could hit. A frame in which
    nothing sounds has no box and is refused.
    Masks may hold class indices (labels_semantic), colours (labels_rgb) or just object and background
    (gt_masks): then the class is s4's category, and unknown in ms3. A record's label is the class if all its
    boxes have the same; provenance holds all.
    Source: Zhou et al., Audio-Visual Segmentation, ECCV 2022; Audio-Visual Segmentation with Semantics, IJCV
    2024.

    subset: "s4" (one source), "ms3" (several) or "avss" (with semantics)
    masks:  where the masks lie; None: as above
    image:  where the images lie, may be videos; None: as above
    audio:  where the audio files lie; None: as above
    labels: file of the classes, name -> index; whatever index "background" has in it counts as 0
    join:   how far apart parts of one object may be, in the image's heights and widths; 0: they touch
    least:  share of the image's pixels that an object's mask must have
    audio_span: "clip": all of the audio belongs to a record; "second": the second that its frame stands for
    """

    gives = "records"

    def __init__(
        self,
        *,
        subset: Literal["s4", "ms3", "avss"] = "s4",
        masks: str | None = None,
        image: str | None = None,
        audio: str | None = None,
        labels: str = "label2idx.json",
        join: Annotated[float, Field(ge=0, le=1)] = 0.125,
        least: Annotated[float, Field(ge=0, le=1)] = 0.001,
        audio_span: Literal["clip", "second"] = "clip",
    ) -> None:
        self.name, self.subset = subset, SUBSETS[subset]
        self.patterns = {"masks": masks, "image": image, "audio": audio}
        known = tuple(f for f in FIELDS if f not in {"s4": ("part",), "avss": ("category",)}.get(subset, ()))
        for option, own in self.patterns.items():
            pattern = getattr(self.subset, option) if own is None else own
            self.patterns[option] = checked_pattern(f"avsbench: {option}", pattern, known)
        self.labels, self.join, self.least, self.audio_span = labels, join, least, audio_span
        if not stays_inside(labels):
            raise AvalignError(f"avsbench: labels: {labels!r} is not a path below the data set's folder")

    def read(self, folder: Path) -> Iterator[Reading[Record]]:
        names = cache(lambda: _names(folder / self.labels))  # of use for masks of classes only
        seen: set[tuple[str, ...]] = set()
        table, group = self.subset.table, self.subset.group
        columns = [self.subset.clip, "split", *([group] if group else [])]
        for line, row in named_rows_of(folder / table, columns):
            where = f"{table}:{line}"
            clip, split, grouped = (row.get(column, "") for column in (*columns, "")[:3])
            if not clip or split not in SPLITS:
                yield refused(clip, where, "row without a name or with an unknown split", split)
            elif group and not grouped:
                yield refused(clip, where, f"row without a {group}")
            elif self.name == "avss" and grouped not in FRAMES:
                yield refused(clip, where, "row of an unknown part", grouped)
            elif (grouped, clip) in seen:
                yield refused(clip, where, "repeated clip")
            else:
                seen.add((grouped, clip))
                fields = {"clip": clip, "split": split, "category": grouped, "part": grouped}
                for second in range(self._masks(split, grouped)):
                    yield self._reading(second, fields, where, folder, names)

    def _masks(self, split: str, part: str) -> int:
        """How many frames of a clip have a mask."""
        if split == "train" and (self.name == "s4" or part == "v1s"):
            return 1
        return FRAMES.get(part, 5)

    def _reading(
        self,
        second: int,
        fields: dict[str, str],
        where: str,
        folder: Path,
        names: Callable[[], Mapping[int, str]],
    ) -> Reading[Record]:
        frame, clip = str(second + self.subset.first), fields["clip"]
        item = f"{clip}/{frame}"
        filled = {name: value for name, value in (fields | {"frame": frame}).items() if value}
        try:
            masks, image, audio = (filled_pattern(str(p), **filled) for p in self.patterns.values())
        except ValueError as error:
            return refused(item, where, "unsafe name", error)
        try:
            objects, small = boxes_of(read_mask(folder / masks), self.least, self.join)
        except MediaError as error:
            return refused(item, where, "no readable mask", f"{masks}: {error.why}")
        told = (Problem("object too small for a box", f"{small} of {masks}"),) if small else ()
        if not objects:
            return Reading(item, where, problems=told or (Problem("nothing in the mask", masks),))
        try:
            labels = [self._label(index, fields["category"], names) for index, _ in objects]
            boxes = tuple(box for _, box in objects)
            response = " ".join(
                write_box(box, spoken(label) if label else None)
                for box, label in zip(boxes, labels, strict=True)
            )
        except (LookupError, ValueError) as error:
            return refused(item, where, "class without a name to write", error)
        record = Record(
            id=f"avsbench/{self.name}/{'/'.join(filter(None, (fields['part'], clip, frame)))}",
            task="arig",
            split=fields["split"],
            source=f"avsbench_{self.name}",
            response=response,
            image=image,
            frame_times=(second + SHOWN,) if is_video(image) else (),
            audio=audio,
            audio_start=float(second) if self.audio_span == "second" else None,
            audio_end=second + 1.0 if self.audio_span == "second" else None,
            boxes=boxes,
            label=labels[0] if len(set(labels)) == 1 else None,
            provenance={"origins": [youtube_id(clip)], "classes": sorted({name for name in labels if name})},
        )
        return Reading(item, where, (record,), told)

    def _label(self, index: int, category: str, names: Callable[[], Mapping[int, str]]) -> str | None:
        if index != OBJECT:
            return names()[index]
        return category if self.name == "s4" else None


def _names(file: Path) -> dict[int, str]:
    """Class index in a mask -> its name. AVSBench's file counts the background as 0, copies of it as 1."""
    found: dict[str, Any] = read_json(file, dict)
    if not all(type(index) is int for index in found.values()) or "background" not in found:
        raise AvalignError(f"{file}: is no object of class names and their numbers, with a background")
    return {index - found["background"]: name for name, index in found.items()}
