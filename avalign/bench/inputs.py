"""What the losses are given: features structured like an image and its audio, Gaussian noise, or a file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from avalign.errors import AvalignError

Kind = Literal["structured", "gaussian"]
KINDS: tuple[Kind, ...] = get_args(Kind)
CONCEPTS = 8  # shared by the two sides of an item
COMMON, NOISE = 0.6, 0.7  # scale of the mean direction and of a token's own part; a concept's is 1


@dataclass(frozen=True)
class Shape:
    """b items of n patches and m audio tokens, features of size d."""

    b: int
    n: int
    m: int
    d: int

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        return self.b, self.n, self.m, self.d

    def __str__(self) -> str:
        return "x".join(map(str, self.sizes))

    @classmethod
    def read(cls, text: str) -> Shape:
        if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){3}", text):
            raise AvalignError(
                f"--shape: {text!r} is no shape. It is BxNxMxD, items, patches, audio tokens and size of a "
                "feature, as in 64x196x64x512."
            )
        return cls(*map(int, text.split("x")))


@dataclass(frozen=True)
class Features:
    """Shapes: image (b, n, d), audio (b, m, d), one dtype and device."""

    image: Tensor
    audio: Tensor

    @property
    def shape(self) -> Shape:
        return Shape(*self.image.shape[:2], *self.audio.shape[1:])

    def to(self, device: torch.device, dtype: torch.dtype) -> Features:
        return Features(self.image.to(device, dtype), self.audio.to(device, dtype))


def generate(kind: Kind, shape: Shape, seed: int) -> Features:
    """Features generated in float32 on the CPU, the same on every machine."""
    random = torch.Generator().manual_seed(seed)
    b, n, m, d = shape.sizes
    if kind == "gaussian":
        return Features(*(torch.randn(b, k, d, generator=random) for k in (n, m)))
    return _structured(b, n, m, d, random)


def _structured(b: int, n: int, m: int, d: int, random: torch.Generator) -> Features:
    """For every token the item's mean direction, one of the item's concepts, and a part of its own.

    The two sides of an item hold the same concepts in different proportions, so that some mass must go to
    a concept not its own, as an image and its audio have it (a modality gap). Between independent
    Gaussians all costs are alike, and Sinkhorn is done in two or three iterations.
    """
    concepts = torch.randn(b, CONCEPTS, d, generator=random)
    common = COMMON * torch.randn(b, 1, d, generator=random)
    proportions = [torch.randn(b, CONCEPTS, generator=random).softmax(1) for _ in range(2)]
    sides = []
    for k, proportion in zip((n, m), proportions, strict=True):
        which = torch.multinomial(proportion, k, replacement=True, generator=random)
        own = NOISE * torch.randn(b, k, d, generator=random)
        sides.append(common + concepts.take_along_dim(which[:, :, None], 1) + own)
    return Features(*sides)


def load(path: Path) -> Features:
    """Tensors "image" (b, n, d) and "audio" (b, m, d) of a safetensors file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise AvalignError(f"--features: {path} does not exist.")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise AvalignError(f"--features: {path} cannot be read as safetensors: {error}") from error
    for name in ("image", "audio"):
        if name not in tensors:
            raise AvalignError(
                f'--features: {path} holds no tensor "{name}". It needs "image" (b, n, d) and "audio" '
                f"(b, m, d); it holds {', '.join(sorted(tensors)) or 'none'}."
            )
        if tensors[name].ndim != 3 or not tensors[name].is_floating_point() or 0 in tensors[name].shape:
            raise AvalignError(
                f'--features: "{name}" in {path} must be floating point of three sizes above 0, got '
                f"{tensors[name].dtype} of shape {tuple(tensors[name].shape)}."
            )
        if not tensors[name].isfinite().all():
            raise AvalignError(f'--features: "{name}" in {path} holds NaN or infinity.')
    image, audio = tensors["image"].float(), tensors["audio"].float()
    if image.shape[0] != audio.shape[0] or image.shape[2] != audio.shape[2]:
        raise AvalignError(
            f"--features: image {tuple(image.shape)} and audio {tuple(audio.shape)} in {path} must agree in "
            "their first and last size."
        )
    return Features(image, audio)
