"""What a loader reads of the feature cache in the place of media: their tokens, before any file is opened.

The cache's folder holds two kinds of files, both written whole, by the process that trains:

ab/cdef...safetensors   an entry: the tokens of one input, named by its content and the encoder's version
ab/cdef...json          a note: of a medium by its key, which entries its inputs have, and its shape

So a medium that is known is found by its key alone, and equal content shares an entry whatever it is called.
A note is written after its entries. One that is damaged, or whose entries are gone, counts as none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from avalign.interfaces import Samples
from avalign.system.atomic_write import unfinished
from avalign.types import Batch, Medium, Sample, Undecoded

IMAGE, AUDIO = "image_encoder", "audio_encoder"
POSITIONS = ("boxes", "times")  # of an entry: what else Tokens know that is the same for every sample
NAME_BYTES = 16
Entry = dict[str, Tensor]


@dataclass(frozen=True)
class Note:
    """What is known of a medium by its key.

    entries: names of those of its inputs: of an image one, of a video one for each frame that is shown
    shape:   of the decoded image or audio; rate: of audio, in Hz
    """

    entries: tuple[str, ...]
    shape: tuple[int, ...]
    rate: int | None = None


@dataclass(frozen=True)
class NewNote:
    """A note that is to be written once there are entries for these rows of the encoder's inputs."""

    name: str
    rows: tuple[int, ...]
    shape: tuple[int, ...]
    rate: int | None


@dataclass(frozen=True)
class CachedSample(Sample):
    """A sample of which some media were not decoded: each is a view of one zero, of the right shape.

    entries: part -> tokens of what stands for that medium
    names:   part -> name of the note to write of a medium that had to be decoded
    """

    entries: Mapping[str, list[Entry]] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)


@dataclass
class CachedTokens:
    """Tokens of some of an encoder's inputs, as they lie in the cache.

    Shapes: rows (k,) of the inputs; values (k, n, d) in the cache's dtype, mask (k, n), boxes and times as in
            Tokens; `like` (0,) has the encoder's dtype. Nothing but notes when k is 0
    """

    version: bytes  # of the encoder that made them
    rows: tuple[int, ...]
    tensors: Entry
    notes: tuple[NewNote, ...]

    def to(self, device: Any) -> CachedTokens:
        moved = {name: tensor.to(device) for name, tensor in self.tensors.items()}
        return CachedTokens(self.version, self.rows, moved, self.notes)


@dataclass
class CachedBatch(Batch):
    """A batch whose images and audio are zeros where their tokens are known."""

    image_tokens: CachedTokens | None = None
    audio_tokens: CachedTokens | None = None


def is_cached(sample: Sample, part: str) -> bool:
    """Whether a sample's image or audio only stands for one whose tokens are known."""
    return isinstance(sample, CachedSample) and part in sample.entries


def path_of(folder: Path, name: str, ending: str = "safetensors") -> Path:
    """Where an entry lies, or a note ("json")."""
    return folder / name[:2] / f"{name[2:]}.{ending}"


def read_entry(folder: Path, name: str) -> Entry | None:
    """None if there is none; SafetensorError if it is damaged."""
    try:
        entry: Entry = load_file(path_of(folder, name))
    except FileNotFoundError:
        return None
    if "where" in entry:  # of an entry of before they had two names
        place = entry.pop("where")
        entry["boxes" if place.shape[1] == 4 else "times"] = place
    return entry


def read_note(folder: Path, name: str) -> Note | None:
    """None if there is none, or none that is whole."""
    try:
        found = json.loads(path_of(folder, name, "json").read_bytes())
        entries, shape, rate = found["entries"], found["shape"], found["rate"]
        names = all(len(bytes.fromhex(entry)) == NAME_BYTES for entry in entries)
        sizes = all(type(size) is int and size > 0 for size in shape) and (rate is None or rate > 0)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return Note(tuple(entries), tuple(shape), rate) if names and sizes and entries else None


def write_note(folder: Path, name: str, note: Note) -> int:
    """Whole or not at all. Returns its size in bytes."""
    content = json.dumps(vars(note), default=np.generic.item).encode()  # a rate may be one of NumPy's
    with unfinished(path_of(folder, name, "json"), sync=False) as beside:
        beside.write_bytes(content)
    return len(content)


def name_of(prefix: bytes, content: bytes) -> str:
    return blake2b(prefix + content, digest_size=NAME_BYTES).hexdigest()


@dataclass(frozen=True)
class FeatureReader:
    """A feature cache as loader processes are given it: no weights, and it only reads.

    versions:   part -> version of its encoder; a part that is not here is always decoded
    identities: part -> what else than version and medium decides its inputs: preprocessing, and code
    """

    folder: Path
    versions: Mapping[str, bytes]
    identities: Mapping[str, bytes]
    frames: int  # inputs of an image

    def sample(self, source: Samples, split: str, task: str, index: int) -> Sample:
        """As source.sample, without decoding that of which all tokens are known."""
        found = undecoded(source, split, task, index)
        if found is None:
            return source.sample(split, task, index)
        entries: dict[str, list[Entry]] = {}
        names: dict[str, str] = {}
        media: dict[str, Any] = {}
        if found.image is not None:
            note = self._note(IMAGE, found.image, entries, names)
            media["image"] = found.image.decode() if note is None else _stand_in(note, np.uint8(0))
        if found.audio is not None:
            note = self._note(AUDIO, found.audio, entries, names)
            audio = (_stand_in(note, np.float32(0)), note.rate) if note else found.audio.decode()
            media["audio"], media["sample_rate"] = audio
        known = {each.name: getattr(found.sample, each.name) for each in fields(Sample)}
        return CachedSample(**known | media, entries=entries, names=names)

    def _note(
        self, part: str, medium: Medium[Any], entries: dict[str, list[Entry]], names: dict[str, str]
    ) -> Note | None:
        """The note of a medium whose tokens are all there, which are added to `entries`; else its name is."""
        if part not in self.versions or (key := medium.key()) is None:
            return None
        name = name_of(self.versions[part] + self.identities[part], key.encode(errors="surrogatepass"))
        note = read_note(self.folder, name)
        found = [] if note is None else [self._entry(entry) for entry in note.entries]
        whole = [entry for entry in found if entry is not None]
        if note is None or len(whole) < len(note.entries):
            names[part] = name
            return None
        entries[part] = whole
        return note

    def _entry(self, name: str) -> Entry | None:
        try:
            return read_entry(self.folder, name)
        except (SafetensorError, OSError):  # told by the process that trains, which makes it anew
            return None

    def batch(self, samples: Sequence[Sample], batch: Batch) -> Batch:
        """The batch that was made of the samples, with the tokens that are known of them."""
        tokens = {part: self._tokens(part, samples) for part in self.versions}
        if not any(each is not None and (each.rows or each.notes) for each in tokens.values()):
            return batch
        return CachedBatch(**vars(batch), image_tokens=tokens.get(IMAGE), audio_tokens=tokens.get(AUDIO))

    def _tokens(self, part: str, samples: Sequence[Sample]) -> CachedTokens:
        rows: list[int] = []
        entries: list[Entry] = []
        notes: list[NewNote] = []
        stride = self.frames if part == IMAGE else 1
        for number, sample in enumerate(samples):
            if not isinstance(sample, CachedSample):
                continue
            first = number * stride
            if part in sample.entries:
                rows += range(first, first + len(sample.entries[part]))
                entries += sample.entries[part]
            elif part in sample.names:
                notes.append(self._new_note(part, sample, first))
        return CachedTokens(self.versions[part], tuple(rows), _stacked(entries), tuple(notes))

    def _new_note(self, part: str, sample: CachedSample, first: int) -> NewNote:
        if part == AUDIO:
            assert sample.audio is not None
            return NewNote(sample.names[part], (first,), sample.audio.shape, sample.sample_rate)
        assert sample.image is not None
        shown = min(len(sample.image), self.frames) if sample.image.ndim == 4 else 1
        return NewNote(sample.names[part], tuple(range(first, first + shown)), sample.image.shape, None)


def undecoded(source: Samples, split: str, task: str, index: int) -> Undecoded | None:
    """The source's own, unless it has another `sample` beside it: what that does to media would be lost."""
    kind = type(source)
    owners = [
        next((each for each in kind.__mro__ if name in vars(each)), None) for name in ("undecoded", "sample")
    ]
    offers, samples = owners
    if offers is None or samples is None or not issubclass(offers, samples):
        return None
    if {"undecoded", "sample"} & vars(source).keys():
        return None
    return source.undecoded(split, task, index)


def _stand_in(note: Note, zero: Any) -> np.ndarray:
    """No memory but a number's, of the shape that was decoded."""
    return np.broadcast_to(zero, note.shape)


def _stacked(entries: Sequence[Entry]) -> Entry:
    if not entries:
        return {}
    same = {name: entries[0][name] for name in (*POSITIONS, "like") if name in entries[0]}
    return same | {name: torch.stack([entry[name] for entry in entries]) for name in ("values", "mask")}
