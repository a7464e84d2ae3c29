"""MUSIC-AVQA: questions about who plays what, and how, in videos of music."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from avalign.avfit.annotation import Reading, refused
from avalign.avfit.datasets.clips import Clips, plain, question_of
from avalign.data.manifest.record import Record
from avalign.errors import AvalignError, suggest
from avalign.interfaces import Dataset
from avalign.system.json_file import read_json
from avalign.types import SPLITS

SLOT = re.compile(r"<\w+>")  # <Object>, <LR>, <LRer>, <FL>, <LL>, <TH>, <BA>
FIELDS = ("video_id", "type", "question_content", "templ_values", "anser")  # "anser" as published


class MusicAvqa(Dataset):
    """MUSIC-AVQA: questions filled from templates, about videos of musical performances (AVQA).

    Layout of its folder: `json/` and `json_update/` as published, each with `avqa-train.json`,
    `avqa-val.json`, `avqa-test.json`, and the media that `image` and `audio` name; "{clip}" stands for the
    video_id. json_update is json without the questions that stand there twice with different answers; of
    those all are refused, for nothing tells the right one; of equal ones the first is used.
    An underscore in a word (acoustic_guitar) becomes a blank. A question's kind is "Audio-Visual Counting".
    Real videos have an id of digits; the others are synthetic: real ones whose audio or image was replaced.
    Source: Li et al., Learning to Answer Questions in Dynamic Audio-Visual Scenarios, CVPR 2022.

    version:      folder the questions are read from
    splits:       which splits are read
    train:        name of the training split's file: `avqa-train_fake.json` has the synthetic videos alone
    videos:       questions about "real" videos, "synthetic" ones, or "all"
    image, audio: where a video's image and audio lie
    seconds:      length of a video, over which the frames are spread
    frames:       how many frames stand for the image, if it is a video: its middle, or evenly spread
    """

    gives = "records"

    def __init__(
        self,
        *,
        version: Literal["json_update", "json"] = "json_update",
        splits: Sequence[str] = SPLITS,
        train: str = "avqa-train.json",
        videos: Literal["real", "synthetic", "all"] = "real",
        image: str = "videos/{clip}.mp4",
        audio: str = "videos/{clip}.mp4",
        seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 60.0,
        frames: Annotated[int, Field(ge=1)] = 1,
    ) -> None:
        for split in splits:
            if split not in SPLITS:
                raise AvalignError(f"music_avqa: splits: no split {split!r}.{suggest(str(split), SPLITS)}")
        self.version, self.splits, self.train, self.videos = version, tuple(splits), train, videos
        self.clips = Clips("music_avqa", image, audio, frames, seconds)

    def read(self, folder: Path) -> Iterator[Reading[Record]]:
        for split in self.splits:
            name = f"{self.version}/" + (self.train if split == "train" else f"avqa-{split}.json")
            items = read_json(folder / name, list)
            contradictory = _contradictory(items)
            seen: set[str] = set()
            for number, item in enumerate(items, start=1):
                yield self._reading(item, split, f"{name}, record {number}", contradictory, seen)

    def _reading(
        self, item: Any, split: str, where: str, contradictory: set[str], seen: set[str]
    ) -> Reading[Record]:
        name = _question_id(item)
        fields = item if isinstance(item, dict) else {}
        lacking = [field for field in FIELDS if not isinstance(fields.get(field), str)]
        if not name or lacking:
            return refused(name, where, "record without a field", ", ".join(lacking) or "question_id")
        if name in contradictory:
            return refused(name, where, "contradictory records of one question", item["anser"])
        if name in seen:
            return refused(name, where, "repeated question")
        seen.add(name)
        clip, real = item["video_id"], item["video_id"].isdecimal()
        if item.get("question_deleted", 0) != 0:
            return refused(name, where, "question that its authors deleted")
        if self.videos != "all" and real != (self.videos == "real"):
            return refused(name, where, "synthetic video" if not real else "real video", clip)
        answer = item["anser"].replace("_", " ").strip()
        kind, values = _strings(item["type"]), _strings(item["templ_values"])
        if kind is None or len(kind) != 2 or not answer:
            return refused(name, where, "no answer, modality or kind of question", item["type"])
        if values is None or len(values) != len(SLOT.findall(item["question_content"])):
            return refused(name, where, "slots that cannot be filled", item["templ_values"])
        filled = iter(values)
        try:
            plain(name)
            response, asked = plain(answer), plain(" ".join(kind))
            media = self.clips.media(clip)
            question = question_of(
                SLOT.sub(lambda _: next(filled).replace("_", " "), item["question_content"])
            )
        except ValueError as error:
            return refused(name, where, "unsafe name or question", error)
        record = Record(
            id=f"music_avqa/{split}/{name}",
            task="avqa",
            split=split,
            source="music_avqa",
            instruction=question,
            response=response,
            kind=asked,
            provenance={"origins": [f"music_avqa:{clip}"], "seconds": self.clips.seconds},
            **media,
        )
        return Reading(name, where, (record,))


def _question_id(item: Any) -> str:
    number = item.get("question_id") if isinstance(item, dict) else None
    return str(number) if type(number) in (int, str) else ""


def _contradictory(items: Sequence[Any]) -> set[str]:
    """The question ids under which records stand that are not the same throughout."""
    said: dict[str, set[str]] = defaultdict(set)
    for item in items:
        if isinstance(item, dict):
            said[_question_id(item)].add(json.dumps([item.get(field) for field in FIELDS]))
    return {name for name, records in said.items() if len(records) > 1}


def _strings(text: str) -> list[str] | None:
    """A list of strings that is itself written as a string: '["left", "violin"]'. None if it is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    valid = isinstance(found, list) and all(isinstance(part, str) and part.strip() for part in found)
    return found if valid else None
