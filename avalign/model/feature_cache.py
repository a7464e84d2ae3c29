"""What frozen encoders made of media, saved on disk: each image and audio clip is encoded once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from avalign.errors import AvalignError
from avalign.system.atomic_write import share, unfinished
from avalign.system.cache import saving
from avalign.system.terminal import tell
from avalign.types import Tokens

POSITIONS = ("boxes", "times")  # of an entry: what else Tokens know that is the same for every sample
DTYPES = {"float16": torch.float16, "float32": torch.float32}


@dataclass
class Counts:
    """Inputs read from disk, and computed: then saved, or not saved as the folder was full."""

    read: int = 0
    saved: int = 0
    not_saved: int = 0
    damaged: list[str] = field(default_factory=list)  # files that could not be read; computed anew


class FeatureCache:
    """Tokens by what they were made of: the encoder's preprocessed input, its weights and options.

    So any change of media, preprocessing, encoder, weights or precision is another entry; nothing has to be
    told that it is out of date. (Weights changed through `.data`, behind autograd's back, are not noticed.)
    An encoder with a weight that learns is never cached. Several processes may share a folder: entries are
    written atomically, and all would write the same.

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

    def tokens(self, part: str, encoder: nn.Module, *inputs: Tensor) -> Tokens:
        """`encoder(*inputs)`, of which only what is not on disk is computed. Inputs are (b, ...).

        AvalignError if a token is beyond float16.
        """
        learns = any(weight.requires_grad for weight in encoder.parameters())
        if learns or encoder.training or inputs[0].is_meta or not len(inputs[0]):
            found: Tokens = encoder(*inputs)
            return found
        version = self._version(part, encoder, inputs[0].device.type)
        files = [self._file(version, [batch[i] for batch in inputs]) for i in range(len(inputs[0]))]
        entries = [self._read(file) for file in files]
        lacking = [i for i, entry in enumerate(entries) if entry is None]
        if lacking:
            with torch.no_grad():
                made = encoder(*(batch[lacking] for batch in inputs))
            for index, i in enumerate(lacking):
                entries[i] = self._save(files[i], part, made, index)
        complete = [entry for entry in entries if entry is not None]
        device = inputs[0].device
        values = torch.stack([entry["values"] for entry in complete]).to(device, complete[0]["like"].dtype)
        mask = torch.stack([entry["mask"] for entry in complete]).to(device)
        positions = {name: complete[0][name].to(device) for name in POSITIONS if name in complete[0]}
        return Tokens(values, mask, boxes=positions.get("boxes"), times=positions.get("times"))

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

    def _file(self, version: bytes, inputs: list[Tensor]) -> Path:
        digest = blake2b(version, digest_size=16)
        for each in inputs:
            digest.update(f" {each.dtype} {tuple(each.shape)} ".encode())
            digest.update(_bytes(each))
        name = digest.hexdigest()
        return self.folder / name[:2] / f"{name[2:]}.safetensors"

    def _read(self, file: Path) -> dict[str, Tensor] | None:
        try:
            entry = load_file(file)
        except FileNotFoundError:
            return None
        except SafetensorError:
            self.counts.damaged.append(str(file))
            return None
        self.counts.read += 1
        if "where" in entry:  # of an entry of before they had two names
            position = entry.pop("where")
            entry["boxes" if position.shape[1] == 4 else "times"] = position
        return entry

    def _save(self, file: Path, part: str, made: Tokens, index: int) -> dict[str, Tensor]:
        values = made.values[index].cpu()
        entry = {"values": values.to(self.dtype), "mask": made.mask[index].cpu(), "like": values.new_empty(0)}
        if values.isfinite().all() and not entry["values"].isfinite().all():
            raise AvalignError(
                f"{part}: a feature of {values.abs().max():g} is beyond float16: set data.features=float32"
            )
        for name, known in zip(POSITIONS, (made.boxes, made.times), strict=True):
            if known is not None:
                entry[name] = known.cpu().contiguous()
        if self._size is None:
            self._size = sum(saved.stat().st_size for saved in self.folder.glob("*/*.safetensors"))
        if self._size >= self.most:
            self.counts.not_saved += 1
            return entry
        with (
            saving(file),
            unfinished(file, sync=False) as beside,
        ):  # a file cut short by a power cut is found when read
            save_file(entry, beside)
            share(beside.parent, [beside])
            self._size += beside.stat().st_size
        self.counts.saved += 1
        return entry

    def tell(self) -> None:
        """Say on stderr what was read and saved since the last time."""
        c = self.counts
        if c.read or c.saved or c.not_saved:
            full = f", {c.not_saved} computed and not kept: full (data.features_gib)" if c.not_saved else ""
            damaged = f", {len(c.damaged)} damaged: {c.damaged[0]} ..." if c.damaged else ""
            tell(
                f"features: {c.read} read, {c.saved} computed and kept in {self.folder}{full}{damaged}",
                err=True,
            )
        self.counts = Counts()


def _bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return bytes(flat.view(torch.uint8).numpy().data) if flat.numel() else b""
