"""How alike images and audio clips are, every one with every one, from their tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Literal, get_args

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from avalign.losses.gather import gather
from avalign.ot import all_pairs

SimilarityName = Literal["mean", "max", "max_mean", "max_mean_both", "soft_attention", "transport"]
SIMILARITIES: tuple[str, ...] = get_args(SimilarityName)
Price = Annotated[float, Field(ge=0)]  # of missing a marginal: 0, it is free; inf, it holds
EPSILON, RHO_IMAGE, RHO_AUDIO = 0.1, 0.02, math.inf
BLOCK = 2**24  # similarities of tokens that are held at a time: 64 MB of float32


@dataclass(frozen=True)
class TokenSets:
    """Shapes: tokens (b, k, d), in at least float32, 0 where padded; mask (b, k), True where real;
    weights (b, k), each set's of mass 1, 0 where padded"""

    tokens: Tensor
    mask: Tensor
    weights: Tensor

    def everywhere(self) -> TokenSets:
        """Those of all processes."""
        return TokenSets(gather(self.tokens), gather(self.mask), gather(self.weights))


@dataclass(frozen=True)
class Similarity:
    """A cosine similarity of every image with every audio clip: (b, n, d) and (c, m, d) -> (b, c).

    mean, max:      of the mean, or of the largest value of each feature, of a sample's real tokens
    max_mean:       each audio token takes its most similar patch; the mean over audio tokens
    max_mean_both:  the mean of that and its mirror, in which each patch takes its most similar audio token
    soft_attention: each audio token takes the mean similarity of patches by softmax(cos / epsilon); the mean
                    over audio tokens
    transport:      1 - the transport value of avalign.ot.all_pairs, smoothed by epsilon, from patches, whose
                    marginal may be missed at the price rho_image, to audio tokens, at the price rho_audio
                    (inf, the marginal holds; 0, it is free), each pair to
                    `tolerance` in at most so many `iterations`, by an `engine`

    Weights of tokens stand for uniform ones: in transport as marginals, else where tokens' own similarities
    are averaged.

    Source: max_mean, FILIP, arXiv:2111.07783; soft_attention, SCAN, arXiv:1803.08024 (image-text, whose
            sentence is the query); transport, Meerkat's AVOpT, arXiv:2407.01851, between all pairs
    """

    name: SimilarityName = "mean"
    epsilon: float = EPSILON
    rho_image: float = RHO_IMAGE
    rho_audio: float = RHO_AUDIO
    tolerance: float = 1e-3
    iterations: int = 1000
    engine: str = "auto"

    def prepared(self, sets: TokenSets) -> TokenSets:
        """What is done to a side alone, before processes exchange it: pooled to one token, or normalised."""
        if self.name in ("mean", "max"):
            one = torch.ones_like(sets.mask[:, :1])
            return TokenSets(self._pooled(sets)[:, None], one, one.to(sets.weights.dtype))
        if self.name == "transport":
            return sets
        return replace(sets, tokens=F.normalize(sets.tokens, dim=2, eps=1e-6))

    def __call__(self, image: TokenSets, audio: TokenSets) -> Tensor:
        """(b, c), of sides that are prepared."""
        if self.name in ("mean", "max"):
            return image.tokens[:, 0] @ audio.tokens[:, 0].T
        if self.name == "transport":
            plans = all_pairs(
                image.tokens,
                audio.tokens,
                image.weights,
                audio.weights,
                image.mask,
                audio.mask,
                epsilon=self.epsilon,
                rho_source=self.rho_image,
                rho_target=self.rho_audio,
                tolerance=self.tolerance,
                iterations=self.iterations,
                engine=self.engine,
            )
            return 1 - plans.value
        return torch.cat([self._of_tokens(some, audio) for some in _blocks(image, audio)])

    def _pooled(self, sets: TokenSets) -> Tensor:
        """One vector of length 1 for each sample: (b, k, d) -> (b, d)"""
        if self.name == "mean":
            pooled = sets.tokens.sum(1) / sets.mask.sum(1, keepdim=True)
        else:
            pooled = sets.tokens.masked_fill(~sets.mask[:, :, None], -torch.inf).amax(1)
        return F.normalize(pooled, dim=1, eps=1e-6)

    def _of_tokens(self, image: TokenSets, audio: TokenSets) -> Tensor:
        alike = torch.einsum("bnd,cmd->bcnm", image.tokens, audio.tokens)
        patches = image.mask[:, None, :, None]
        if self.name == "soft_attention":
            attention = (alike / self.epsilon).masked_fill(~patches, -torch.inf).softmax(2)
            return ((attention * alike).sum(2) * audio.weights).sum(2)
        found = (_largest(alike, patches) * audio.weights).sum(2)
        if self.name == "max_mean_both":
            mirrored = _largest(alike.mT, audio.mask[None, :, :, None]) * image.weights[:, None]
            found = (found + mirrored.sum(2)) / 2
        return found


def _blocks(image: TokenSets, audio: TokenSets) -> Iterator[TokenSets]:
    """Some images at a time."""
    size = max(1, BLOCK // (image.tokens.shape[1] * audio.tokens.shape[0] * audio.tokens.shape[1]))
    parts = (each.split(size) for each in (image.tokens, image.mask, image.weights))
    for tokens, mask, weights in zip(*parts, strict=True):
        yield TokenSets(tokens, mask, weights)


def _largest(alike: Tensor, keys: Tensor) -> Tensor:
    """Each query's largest similarity: (b, c, keys, queries) -> (b, c, queries)"""
    return alike.masked_fill(~keys, -torch.inf).max(2).values  # amax would keep all of `alike` for backward
