"""What frozen encoders made of media, saved on disk: each image and audio clip is encoded once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from avalign.data.features import (
    AUDIO,
    IMAGE,
    NAME_BYTES,
    POSITIONS,
    CachedTokens,
    Entry,
    FeatureReader,
    Note,
    path_of,
    read_entry,
    write_note,
)
from avalign.errors import AvalignError
from avalign.model.repeatable import identity
from avalign.system.atomic_write import share, unfinished
from avalign.system.cache import saving
from avalign.system.terminal import tell
from avalign.types import Tokens

DTYPES = {"float16": torch.float16, "float32": torch.float32}
_NOISE = np.random.default_rng(0)
EXAMPLES = {  # of media, to see whether a preprocessing draws by chance
    IMAGE: (_NOISE.integers(0, 256, (40, 60, 3), dtype=np.uint8),),
    AUDIO: (_NOISE.uniform(-0.5, 0.5, 800).astype(np.float32), 8_000),
}


@dataclass
class Counts:
    """Inputs read from disk, and computed: then saved, or not saved as the folder was full."""

    read: int = 0
    not_decoded: int = 0  # of those read: a loader found them by their media's keys
    saved: int = 0
    not_saved: int = 0
    damaged: list[str] = field(default_factory=list)  # files that could not be read; computed anew


class FeatureCache:
    """Tokens by what they were made of: the encoder's preprocessed input, its weights and options.

    So any change of media, preprocessing, encoder, weights or precision is another entry; nothing has to be
    told that it is out of date. (Weights changed through `.data`, behind autograd's back, are not noticed.)
    An encoder with a weight that learns is never cached. Several processes may share a folder: entries are
    written atomically, and all would write the same.

    Beside the entries lie notes, by which loader processes find them before media are decoded
    (data/features.py): see `reader`.

    folder:  where entries are saved, one file an input
    dtype:   "float32", exact, or "float16", half the size; a first use gives the same as later ones
    most:    bytes; when the folder holds more, nothing is added
    options: by part, what else than its weights decides what an encoder does (its name, its options)
    """

    def __init__(self, folder: Path, *, dtype: str, most: float, options: Mapping[str, str]) -> None:
        self.folder, self.dtype, self.most, self.options = folder, DTYPES[dtype], most, options
        self.counts = Counts()
        self._size: int | None = None  # measured when something is first added
        self._versions: dict[str, tuple[object, bytes]] = {}

    def reader(
        self, encoders: Mapping[str, nn.Module], *, frames: int, device: torch.device
    ) -> FeatureReader | None:
        """What loaders find tokens by, as long as the encoders stay as they are; None if nothing is cached.

        To be asked for in the mode, on the device and in the autocast in which the encoders will be run. A
        preprocessing that draws by chance has all of its media decoded.
        """
        versions, identities = {}, {}
        for part, encoder in encoders.items():
            if _changes(encoder):
                continue
            found = identity(encoder.preprocessing, *EXAMPLES[part])  # type: ignore[operator, arg-type]
            if found is None:
                tell(
                    f"features: all media are decoded for {part}: its preprocessing does not give the same "
                    "each time, or cannot be pickled",
                    err=True,
                )
                continue
            versions[part] = self._version(part, encoder, device.type)
            identities[part] = found + (f"{frames} frames".encode() if part == IMAGE else b"")
        return FeatureReader(self.folder, versions, identities, frames) if versions else None

    def tokens(
        self, part: str, encoder: nn.Module, *inputs: Tensor, cached: CachedTokens | None = None
    ) -> Tokens:
        """`encoder(*inputs)`, of which only what is not on disk is computed. Inputs are (b, ...).

        cached: tokens that a loader found for some of the inputs, which then are not looked at

        AvalignError if a token is beyond float16.
        """
        if _changes(encoder) or inputs[0].is_meta or not len(inputs[0]):
            if cached is not None and cached.rows:
                raise _another(part)
            found: Tokens = encoder(*inputs)
            return found
        device, count = inputs[0].device, len(inputs[0])
        version = self._version(part, encoder, device.type)
        if cached is not None and cached.version != version:
            if cached.rows:
                raise _another(part)
            cached = None  # its notes are of another encoder
        rows = () if cached is None else cached.rows
        left = sorted(set(range(count)).difference(rows))
        names = {i: self._name(version, [each[i] for each in inputs]) for i in left}
        entries = {i: self._read(name) for i, name in names.items()}
        lacking = [i for i, entry in entries.items() if entry is None]
        if lacking:
            with torch.no_grad():
                made = encoder(*(each[lacking] for each in inputs))
            for index, i in enumerate(lacking):
                entries[i] = self._save(names[i], part, made, index)
        self.counts.read += len(rows)
        self.counts.not_decoded += len(rows)
        if cached is not None:
            self._note(cached, names)
        with torch.autocast(device.type, enabled=False):  # on a CPU its stack takes no float16
            return _joined([entry for entry in entries.values() if entry is not None], left, cached, device)

    def _version(self, part: str, encoder: nn.Module, device: str) -> bytes:
        """A hash of all that decides what the encoder does, made again when a weight has changed."""
        state = encoder.state_dict(keep_vars=True)
        low = torch.is_autocast_enabled(device) and str(torch.get_autocast_dtype(device))
        seen = (low, *((name, w.data_ptr(), w._version) for name, w in state.items()))
        if part not in self._versions or self._versions[part][0] != seen:
            digest = blake2b(digest_size=16)
            kind = f"{type(encoder).__module__}.{type(encoder).__qualname__}"
            digest.update(f"{kind} {self.options.get(part)} {low} {self.dtype}".encode())
            for name, weight in sorted(state.items()):
                digest.update(f" {name} {weight.dtype} {tuple(weight.shape)} ".encode())
                digest.update(_bytes(weight))
            self._versions[part] = (seen, digest.digest())
        return self._versions[part][1]

    def _name(self, version: bytes, inputs: list[Tensor]) -> str:
        digest = blake2b(version, digest_size=NAME_BYTES)
        for each in inputs:
            digest.update(f" {each.dtype} {tuple(each.shape)} ".encode())
            digest.update(_bytes(each))
        return digest.hexdigest()

    def _read(self, name: str) -> Entry | None:
        try:
            entry = read_entry(self.folder, name)
        except SafetensorError:
            self.counts.damaged.append(str(path_of(self.folder, name)))
            return None
        self.counts.read += entry is not None
        return entry

    def _save(self, name: str, part: str, made: Tokens, index: int) -> Entry:
        values = made.values[index].cpu()
        entry = {"values": values.to(self.dtype), "mask": made.mask[index].cpu(), "like": values.new_empty(0)}
        if values.isfinite().all() and not entry["values"].isfinite().all():
            raise AvalignError(
                f"{part}: a feature of {values.abs().max():g} is beyond float16: set data.features=float32"
            )
        for axis, known in zip(POSITIONS, (made.boxes, made.times), strict=True):
            if known is not None:
                entry[axis] = known.cpu().contiguous()
        if self._full():
            self.counts.not_saved += 1
            return entry
        file = path_of(self.folder, name)
        with (
            saving(file),
            unfinished(file, sync=False) as beside,
        ):  # a file cut short by a power cut is found when read
            save_file(entry, beside)
            share(beside.parent, [beside])
            self._grow(beside.stat().st_size)
        self.counts.saved += 1
        return entry

    def _note(self, cached: CachedTokens, names: Mapping[int, str]) -> None:
        """Write the notes whose entries are all there."""
        for new in cached.notes:
            entries = tuple(names[row] for row in new.rows)
            if self._full() or not all(path_of(self.folder, name).exists() for name in entries):
                continue
            with saving(path_of(self.folder, new.name, "json")):
                self._grow(write_note(self.folder, new.name, Note(entries, new.shape, new.rate)))

    def _full(self) -> bool:
        if self._size is None:
            files = (file for ending in ("safetensors", "json") for file in self.folder.glob(f"*/*.{ending}"))
            self._size = sum(file.stat().st_size for file in files)
        return self._size >= self.most

    def _grow(self, size: int) -> None:
        assert self._size is not None
        self._size += size

    def tell(self) -> None:
        """Say on stderr what was read and saved since the last time."""
        c = self.counts
        if c.read or c.saved or c.not_saved:
            spared = f", {c.not_decoded} of those read without decoding" if c.not_decoded else ""
            full = f", {c.not_saved} computed and not kept: full (data.features_gib)" if c.not_saved else ""
            damaged = f", {len(c.damaged)} damaged: {c.damaged[0]} ..." if c.damaged else ""
            tell(
                f"features: {c.read} read, {c.saved} computed and kept in {self.folder}"
                f"{spared}{full}{damaged}",
                err=True,
            )
        self.counts = Counts()


def _changes(encoder: nn.Module) -> bool:
    """Whether an encoder learns, or draws by chance as one in training does (dropout)."""
    return encoder.training or any(weight.requires_grad for weight in encoder.parameters())


def _another(part: str) -> AvalignError:
    return AvalignError(
        f"{part} is another one than its features were read for: it was changed while samples were loaded. "
        "Go on with data.features=no"
    )


def _joined(
    entries: list[Entry], left: list[int], cached: CachedTokens | None, device: torch.device
) -> Tokens:
    """Tokens of all inputs in their order: `entries` of the rows `left`, the others from the loader."""
    found: list[Entry] = []
    order = list(left)
    if entries:
        stacked = {name: torch.stack([entry[name] for entry in entries]) for name in ("values", "mask")}
        found.append({name: tensor.to(device) for name, tensor in (entries[0] | stacked).items()})
    if cached is not None and cached.rows:
        found.append({name: tensor.to(device) for name, tensor in cached.tensors.items()})
        order += cached.rows
    values, mask = (torch.cat([each[name] for each in found]) for name in ("values", "mask"))
    if len(found) > 1:
        index = torch.tensor(order).argsort().to(device)
        values, mask = values[index], mask[index]
    first = found[0]
    return Tokens(values.to(first["like"].dtype), mask, boxes=first.get("boxes"), times=first.get("times"))


def _bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return bytes(flat.view(torch.uint8).numpy().data) if flat.numel() else b""
