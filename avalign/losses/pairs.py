"""Every image of a batch against every audio clip, over all processes: what contrastive losses compare."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from avalign.losses.gather import gather, processes, rank
from avalign.losses.similarity import (
    SIMILARITIES,
    Similarity,
    SimilarityName,
    TokenSets,
)
from avalign.ot import marginal_from


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
        for option, known in (("pairs", ("all", "grounded")), ("false_negatives", ("keep", "drop"))):
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
        image_weights: Tensor | None = None,
        audio_weights: Tensor | None = None,
    ) -> Pairs:
        is_pair = torch.ones(len(image), dtype=torch.bool, device=image.device)
        for known in (has_image, has_audio, has_box if self.pairs == "grounded" else None):
            is_pair = is_pair if known is None else is_pair & known
        return compare(
            image,
            audio,
            image_mask,
            audio_mask,
            is_pair,
            classes if self.false_negatives == "drop" else None,
            image_weights,
            audio_weights,
            similarity=self.similarity,
        )


def named_similarity(
    loss: str, name: str, epsilon: float | None, rho_image: float | None, rho_audio: float | None
) -> Similarity:
    """Of a loss's options, None where one is not given. ValueError where one is for other similarities, or is
    no such number."""
    if name not in SIMILARITIES:
        raise ValueError(f"{loss}: similarity must be one of {', '.join(SIMILARITIES)}, not {name!r}")
    options = {"epsilon": epsilon, "rho_image": rho_image, "rho_audio": rho_audio}
    given = {option: number for option, number in options.items() if number is not None}
    for option, number in given.items():
        takers = ("soft_attention", "transport") if option == "epsilon" else ("transport",)
        if name not in takers:
            those = " or ".join(map(repr, takers))
            raise ValueError(f"{loss}: similarity {name!r} takes no {option!r}, which is for {those}")
        if option == "epsilon" and not 0 < number < math.inf:
            raise ValueError(f"{loss}: epsilon must be above 0, not {number}")
        if option != "epsilon" and not number >= 0:
            raise ValueError(f"{loss}: {option} must be 0 or above, not {number}")
    return Similarity(name, **given)  # type: ignore[arg-type]


def compare(
    image: Tensor,
    audio: Tensor,
    image_mask: Tensor | None = None,
    audio_mask: Tensor | None = None,
    is_pair: Tensor | None = None,
    classes: Tensor | None = None,
    image_weights: Tensor | None = None,
    audio_weights: Tensor | None = None,
    *,
    similarity: Similarity | SimilarityName = "mean",
) -> Pairs:
    """Every sample's image with every sample's audio, by a similarity or its name, in at least float32.

    Shapes: image (b, n, d), audio (b, m, d); masks (b, n), (b, m), True where real; is_pair (b,) bool, all
            where not given; classes (b,) integers, of which two that are equal and not negative are of one
            class and so not negatives of each other; weights (b, n), (b, m), of mass 1 over real tokens,
            uniform where not given
    Errors: ValueError where a pair has no real token, or the processes hold batches of different shapes
    """
    b = len(image)
    similarity = similarity if isinstance(similarity, Similarity) else Similarity(similarity)
    is_pair = torch.ones(b, dtype=torch.bool, device=image.device) if is_pair is None else is_pair
    images = similarity.prepared(_token_sets(image, image_mask, image_weights, is_pair, "image"))
    clips = similarity.prepared(_token_sets(audio, audio_mask, audio_weights, is_pair, "audio"))
    forth = similarity(images, clips.everywhere())
    back = forth.T if processes() == 1 else similarity(images.everywhere(), clips).T
    total = processes() * b
    own = torch.arange(b, device=image.device)[:, None] + rank() * b
    own = own == torch.arange(total, device=image.device)
    negative = is_pair[:, None] & gather(is_pair) & ~own
    if classes is not None:
        negative = negative & ~((classes[:, None] == gather(classes)) & (classes[:, None] >= 0))
    return Pairs(forth, back, own, negative, is_pair)


def _token_sets(
    tokens: Tensor, mask: Tensor | None, weights: Tensor | None, is_pair: Tensor, side: str
) -> TokenSets:
    """In at least float32, 0 where padded; a sample that is no pair is all zeros and all real."""
    mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device) if mask is None else mask
    empty = is_pair & ~mask.any(1)
    if empty.any():
        raise ValueError(f"item(s) {empty.nonzero().flatten().tolist()} have no {side} token: all are masked")
    tokens = tokens if tokens.dtype == torch.float64 else tokens.float()
    tokens = tokens.masked_fill(~(mask & is_pair[:, None])[:, :, None], 0)
    mask = mask | ~is_pair[:, None]
    uniform = mask.to(tokens.dtype) / mask.sum(1, keepdim=True)
    if weights is None:
        return TokenSets(tokens, mask, uniform)
    weights = torch.where(is_pair[:, None], marginal_from(weights.to(tokens.dtype), mask), uniform)
    return TokenSets(tokens, mask, weights)
