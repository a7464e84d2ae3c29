"""VALOR-32K: captions of what is seen and heard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from avalign.avfit.annotation import Problem, Reading, refused
from avalign.avfit.datasets.clips import Clips, plain, youtube_id
from avalign.data.manifest.record import Record
from avalign.errors import AvalignError
from avalign.interfaces import Dataset
from avalign.system.json_file import read_json
from avalign.types import SPLITS

SECONDS = 10
MAPPERS = ("txt_mapper_en.json", "txt_mapper.json")


class Valor(Dataset):
    """VALOR-32K: captions of clips of 10 s by people who watched and listened (AVCap).

    Layout of its folder, one of two, and the media that `image` and `audio` name, in which "{clip}" stands
    for a video_id:
        desc      `desc_train.json`, `desc_val.json`, `desc_test.json`: [{"video_id": ..., "desc": ...}, ...]
        mapper    `train_id.json`, `val_id.json`, `test_id.json`: [video_id, ...], and `txt_mapper_en.json` or
                  `txt_mapper.json`: {video_id: [caption, ...]}, as VALOR's own code reads it
    Not verified against the original files: both layouts follow the descriptions of public loaders.
    One record a clip: its first caption is the response, its others are references, so that response and
    references together are all its captions.
    Source: Chen et al., VALOR: Vision-Audio-Language Omni-Perception Pretraining Model and Dataset,
    arXiv:2304.08345.

    layout:       "desc" or "mapper"
    image, audio: where a clip's image and audio lie
    frames:       how many frames stand for the image, if it is a video: its middle, or evenly spread
    """

    gives = "records"

    def __init__(
        self,
        *,
        layout: Literal["desc", "mapper"] = "desc",
        image: str = "videos/{clip}.mp4",
        audio: str = "videos/{clip}.mp4",
        frames: Annotated[int, Field(ge=1)] = 1,
    ) -> None:
        self.layout = layout
        self.clips = Clips("valor", image, audio, frames, SECONDS)

    def read(self, folder: Path) -> Iterator[Reading[Record]]:
        seen: set[str] = set()
        items = _described(folder) if self.layout == "desc" else _mapped(folder)
        for split, where, clip, captions in items:
            if not isinstance(clip, str) or not clip:
                yield refused("", where, "no video_id")
            elif not split:
                yield refused(clip, where, "captions of a clip in no list")
            elif clip in seen:
                yield refused(clip, where, "repeated clip")
            else:
                seen.add(clip)
                yield self._reading(clip, split, where, captions)

    def _reading(self, clip: str, split: str, where: str, captions: list[Any]) -> Reading[Record]:
        cleaned = [_caption(text) for text in captions]
        good = tuple(dict.fromkeys(text for text in cleaned if text))
        problems = [Problem("caption without words")] * cleaned.count("")
        if not good:
            return Reading(clip, where, problems=tuple(problems) or (Problem("no caption"),))
        try:
            media = self.clips.media(clip)
        except ValueError as error:
            return refused(clip, where, "unsafe name", error)
        record = Record(
            id=f"valor/{clip}",
            task="avcap",
            split=split,
            source="valor",
            response=good[0],
            references=good[1:],
            provenance={"origins": [youtube_id(clip)], "seconds": SECONDS},
            **media,
        )
        return Reading(clip, where, (record,), tuple(problems))


def _caption(text: Any) -> str:
    """A caption with at least one word, for MeerkatBench scores words; else ""."""
    try:
        said = plain(text) if isinstance(text, str) else ""
    except ValueError:
        return ""
    return said if any(c.isalnum() for c in said) else ""


def _described(folder: Path) -> Iterator[tuple[str, str, Any, list[Any]]]:
    """Split, location, clip and captions, from the desc files; records of one clip in a file are one item."""
    for split in SPLITS:
        name = f"desc_{split}.json"
        captions: dict[str, list[Any]] = {}
        locations: dict[str, str] = {}
        for number, item in enumerate(read_json(folder / name, list), start=1):
            where = f"{name}, record {number}"
            clip = item.get("video_id") if isinstance(item, dict) else item
            if not isinstance(item, dict) or not isinstance(clip, str) or not clip:
                yield split, where, None, []
                continue
            captions.setdefault(clip, []).append(item.get("desc"))
            locations.setdefault(clip, where)
        for clip, said in captions.items():
            yield split, locations[clip], clip, said


def _mapped(folder: Path) -> Iterator[tuple[str, str, Any, list[Any]]]:
    """Split, location, clip and captions, from the lists of ids and the mapper; then its clips in no list."""
    there = [name for name in MAPPERS if (folder / name).exists()]
    if not there:
        raise AvalignError(f"{folder}: has neither {' nor '.join(MAPPERS)}")
    mapper: dict[str, Any] = read_json(folder / there[0], dict)
    listed: set[str] = set()
    for split in SPLITS:
        for number, clip in enumerate(read_json(folder / f"{split}_id.json", list), start=1):
            captions = mapper.get(clip, []) if isinstance(clip, str) else []
            said = captions if isinstance(captions, list) else [captions]
            yield split, f"{split}_id.json, record {number}", clip, said
            listed |= {clip} if isinstance(clip, str) else set()
    for clip in mapper:
        if clip not in listed:
            yield "", there[0], clip, []
