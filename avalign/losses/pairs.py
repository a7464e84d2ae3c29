"""Every image of a batch against every audio clip, over all processes: what contrastive losses compare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from avalign.losses.gather import gather, processes, rank

Similarity = Literal["mean", "max", "max_mean", "max_mean_both"]
SIMILARITIES = ("mean", "max", "max_mean", "max_mean_both")
BLOCK = 2**24  # similarities of tokens that are held at a time: 64 MB of float32


@dataclass(frozen=True)
class Pairs:
    """How alike the images and audio clips of b samples are to those of all `total` samples, in -1..1.

    Shapes: forth (b, total), a sample's image with every audio; back (b, total), its audio with every image;
            own (b, total) bool, True where the other is the sample itself; negative (b, total) bool, True
            where the two are of different pairs; is_pair (b,) bool, samples with an image and audio
    """

    forth: Tensor
    back: Tensor
    own: Tensor
    negative: Tensor
    is_pair: Tensor


@dataclass(frozen=True)
class Compared:
    """Which samples of a batch a contrastive loss compares, and how: its options of the same names."""

    loss: str
    similarity: Similarity
    pairs: Literal["all", "grounded"]
    false_negatives: Literal["keep", "drop"]

    def __post_init__(self) -> None:
        for option, known in (
            ("similarity", SIMILARITIES),
            ("pairs", ("all", "grounded")),
            ("false_negatives", ("keep", "drop")),
        ):
            said = getattr(self, option)
            if said not in known:
                raise ValueError(f"{self.loss}: {option} must be one of {', '.join(known)}, not {said!r}")

    def __call__(
        self,
        image: Tensor,
        audio: Tensor,
        image_mask: Tensor | None,
        audio_mask: Tensor | None,
        has_image: Tensor | None,
        has_audio: Tensor | None,
        has_box: Tensor | None,
        classes: Tensor | None,
    ) -> Pairs:
        is_pair = torch.ones(len(image), dtype=torch.bool, device=image.device)
        for known in (has_image, has_audio, has_box if self.pairs == "grounded" else None):
            is_pair = is_pair if known is None else is_pair & known
        alike = classes if self.false_negatives == "drop" else None
        return compare(image, audio, image_mask, audio_mask, is_pair, alike, similarity=self.similarity)


def compare(
    image: Tensor,
    audio: Tensor,
    image_mask: Tensor | None = None,
    audio_mask: Tensor | None = None,
    is_pair: Tensor | None = None,
    classes: Tensor | None = None,
    *,
    similarity: Similarity = "mean",
) -> Pairs:
    """Cosine similarity of whole samples, or of their tokens, in at least float32.

    mean, max:     the mean, or the largest value of each feature, of a sample's real tokens
    max_mean:      each audio token takes its most similar patch; the mean over audio tokens
    max_mean_both: the mean of that and its mirror, in which each patch takes its most similar audio token

    Shapes: image (b, n, d), audio (b, m, d); masks (b, n), (b, m), True where real; is_pair (b,) bool, all
            where not given; classes (b,) integers, of which two that are equal and not negative are of one
            class and so not negatives of each other
    Errors: ValueError where a pair has no real token, or the processes hold batches of different shapes
    """
    b = len(image)
    is_pair = torch.ones(b, dtype=torch.bool, device=image.device) if is_pair is None else is_pair
    image, image_mask = _tokens(image, image_mask, is_pair, "image")
    audio, audio_mask = _tokens(audio, audio_mask, is_pair, "audio")
    if similarity in ("mean", "max"):
        image, audio = (_pool(x, m, similarity) for x, m in ((image, image_mask), (audio, audio_mask)))
        forth, back = image @ gather(audio).T, audio @ gather(image).T
    else:
        both = similarity == "max_mean_both"
        image, audio = (F.normalize(tokens, dim=2, eps=1e-6) for tokens in (image, audio))
        everywhere = gather(image), gather(audio), gather(image_mask), gather(audio_mask)
        forth = _max_mean(image, everywhere[1], image_mask, everywhere[3], both)
        if processes() == 1:
            back = forth.T
        else:
            back = _max_mean(everywhere[0], audio, everywhere[2], audio_mask, both).T
    total = processes() * b
    own = torch.arange(b, device=image.device)[:, None] + rank() * b
    own = own == torch.arange(total, device=image.device)
    negative = is_pair[:, None] & gather(is_pair) & ~own
    if classes is not None:
        negative = negative & ~((classes[:, None] == gather(classes)) & (classes[:, None] >= 0))
    return Pairs(forth, back, own, negative, is_pair)


def _tokens(tokens: Tensor, mask: Tensor | None, is_pair: Tensor, side: str) -> tuple[Tensor, Tensor]:
    """In at least float32, 0 where padded; a sample that is no pair is all zeros and all real."""
    mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device) if mask is None else mask
    empty = is_pair & ~mask.any(1)
    if empty.any():
        raise ValueError(f"item(s) {empty.nonzero().flatten().tolist()} have no {side} token: all are masked")
    tokens = tokens if tokens.dtype == torch.float64 else tokens.float()
    tokens = tokens.masked_fill(~(mask & is_pair[:, None])[:, :, None], 0)
    return tokens, mask | ~is_pair[:, None]


def _pool(tokens: Tensor, mask: Tensor, how: str) -> Tensor:
    """One vector of length 1 for each sample: (b, k, d) -> (b, d)"""
    if how == "mean":
        pooled = tokens.sum(1) / mask.sum(1, keepdim=True)
    else:
        pooled = tokens.masked_fill(~mask[:, :, None], -torch.inf).amax(1)
    return F.normalize(pooled, dim=1, eps=1e-6)


def _max_mean(image: Tensor, audio: Tensor, image_mask: Tensor, audio_mask: Tensor, both: bool) -> Tensor:
    """Every image with every audio: (b, n, d) and (c, m, d) of length 1 -> (b, c), in blocks of images."""
    images = max(1, BLOCK // (image.shape[1] * audio.shape[0] * audio.shape[1]))
    rows = []
    for patches, real in zip(image.split(images), image_mask.split(images), strict=True):
        alike = torch.einsum("bnd,cmd->bcnm", patches, audio)
        found = _best(alike, real[:, None, :, None], audio_mask[None])
        if both:
            found = (found + _best(alike.mT, audio_mask[None, :, :, None], real[:, None])) / 2
        rows.append(found)
    return torch.cat(rows)


def _best(alike: Tensor, keys: Tensor, queries: Tensor) -> Tensor:
    """Each query's largest similarity, the mean over queries: (b, c, keys, queries) -> (b, c)"""
    largest = (
        alike.masked_fill(~keys, -torch.inf).max(2).values
    )  # amax would keep all of `alike` for backward
    return largest.masked_fill(~queries, 0).sum(2) / queries.sum(2)
