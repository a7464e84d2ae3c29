"""AVQA: multiple-choice questions about what is seen and heard in everyday videos."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from avalign.avfit.annotation import Reading, refused
from avalign.avfit.datasets.clips import Clips, plain, question_of, youtube_id
from avalign.data.manifest.record import Record
from avalign.interfaces import Dataset
from avalign.system.json_file import json_if_there, read_json

SECONDS = 10
KINDS = {
    "type": ["question_type"],
    "relation": ["question_relation"],
    "both": ["question_relation", "question_type"],
}
NEEDED = {"video_name": str, "question_text": str, "multi_choice": list, "answer": int}
TOLD = {"question_type": str, "question_relation": str}


class Avqa(Dataset):
    """AVQA: questions with four answers to choose from, on clips of VGG-Sound, 10 s long (AVQA).

    Layout of its folder: `train_qa.json` and `val_qa.json`, lists of objects with id, video_name, video_id,
    question_text, multi_choice, answer (index of the right choice, from 0), question_relation and
    question_type; `video_map.json` (clip -> video_id; records that disagree with it are refused; it may be
    missing); and the media that `image` and `audio` name, in which "{clip}" stands for the video_name,
    "<YouTube id>_<start in seconds, 6 digits>". The question files have not been verified against the
    original files: their fields are those of one published record.
    The response is the right choice in words.
    Source: Yang et al., AVQA: A Dataset for Audio-Visual Question Answering on Videos, ACM Multimedia 2022.

    choices:      whether the choices stand in the question
    kind:         what a question's kind is: "type" (Happening), "relation" (View, Sound, Both) or "both"
    val_as:       the split of val_qa.json: "test", as the paper reports on it, or "val"
    image, audio: where a clip's image and audio lie
    frames:       how many frames stand for the image, if it is a video: its middle, or evenly spread
    """

    gives = "records"

    def __init__(
        self,
        *,
        choices: bool = True,
        kind: Literal["type", "relation", "both"] = "type",
        val_as: Literal["test", "val"] = "test",
        image: str = "videos/{clip}.mp4",
        audio: str = "videos/{clip}.mp4",
        frames: Annotated[int, Field(ge=1)] = 1,
    ) -> None:
        self.choices, self.kind, self.val_as = choices, kind, val_as
        self.clips = Clips("avqa", image, audio, frames, SECONDS)

    def read(self, folder: Path) -> Iterator[Reading[Record]]:
        files = {split: read_json(folder / f"{split}_qa.json", list) for split in ("train", "val")}
        videos = json_if_there(folder / "video_map.json")
        for published, items in files.items():
            seen: set[str] = set()
            for number, item in enumerate(items, start=1):
                where = f"{published}_qa.json, record {number}"
                yield self._reading(item, where, published, videos, seen)

    def _reading(
        self, item: Any, where: str, published: str, videos: Mapping[str, Any] | None, seen: set[str]
    ) -> Reading[Record]:
        if not isinstance(item, dict):
            return refused("", where, "no object", item)
        number = item.get("id")
        name = str(number) if type(number) in (int, str) else ""
        lacking = [field for field, kind in (NEEDED | TOLD).items() if type(item.get(field)) is not kind]
        if not name or lacking:
            return refused(name, where, "record without a field", ", ".join(lacking) or "id")
        clip, offered, index = item["video_name"], item["multi_choice"], item["answer"]
        choices = [" ".join(c.split()) for c in offered if isinstance(c, str) and c.strip()]
        if len(choices) != len(offered) or len(set(choices)) < max(2, len(choices)):
            return refused(name, where, "choices that are no different texts", offered)
        if not 0 <= index < len(choices):
            return refused(name, where, "answer is none of the choices", f"{index} of {len(choices)}")
        if videos is not None and clip not in videos:
            return refused(name, where, "clip is not in video_map.json", clip)
        if videos is not None and item.get("video_id") != videos[clip]:
            return refused(name, where, "video_id is not that of video_map.json", item.get("video_id"))
        if name in seen:
            return refused(name, where, "repeated question id")
        seen.add(name)
        text = item["question_text"]
        if self.choices:
            text = f"{text} Choose one: {'; '.join(choices)}."
        try:
            media, instruction = self.clips.media(clip), question_of(text)
            response = plain(choices[index])
            plain(" ".join([name, *choices, *(item[field] for field in TOLD)]))
            kind = plain(" ".join(item[field] for field in KINDS[self.kind]))
        except ValueError as error:
            return refused(name, where, "unsafe name or question", error)
        record = Record(
            id=f"avqa/{published}/{name}",
            task="avqa",
            split="train" if published == "train" else self.val_as,
            source="avqa",
            instruction=instruction,
            response=response,
            kind=kind,
            provenance={
                "origins": [youtube_id(clip)],
                "seconds": SECONDS,
                "choices": choices,
                **{field: item[field] for field in TOLD},
            },
            **media,
        )
        return Reading(name, where, (record,))
