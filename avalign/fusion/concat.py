"""Patches and audio tokens as one sequence, under self-attention."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from avalign.interfaces import Fusion
from avalign.layers.attention import Attention, FeedForward, softmax_over_real
from avalign.layers.position_embedding import PositionEmbedding
from avalign.types import Fused, Tokens


class SelfAttend(nn.Module):
    """A pre-norm transformer layer over real tokens. (b, n, dim), (b, n) -> (b, n, dim)"""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)
        self.feed = FeedForward(dim, hidden)

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        asked = self.norm(values)
        values = values + self.attention(asked, asked, mask)
        thought: Tensor = values + self.feed(values)
        return thought

    def scores(self, asking: Tensor, asked: Tensor) -> Tensor:
        """Before the softmax, by head, of one part of the sequence for another. -> (b, heads, m, n)"""
        return self.attention.scores(self.norm(asking), self.norm(asked))


class Concat(nn.Module, Fusion):
    """Self-attention over both token sets together, told apart by modality, position and time.

    A map is the cross-modal block of the last layer's attention: of each query, what it gives to the keys of
    the other modality, divided by all that it gives to that modality, then averaged over heads. How it shares
    its attention between the two modalities is therefore not in the map.

    Shapes: image (b, n, dim), audio (b, m, dim) -> the same, image_map (b, m, n), audio_map (b, n, m)
    Source: arXiv:1706.03762 over joined sequences, as VisualBERT's (arXiv:1908.03557)

    layers:  of self-attention
    heads:   of each; they share dim
    hidden:  width inside the feed-forward layers; 4 * dim when not given
    seconds: length that the time features span
    """

    def __init__(
        self,
        dim: int,
        *,
        layers: int = 1,
        heads: int = 4,
        hidden: int | None = None,
        seconds: float = 10.0,
    ) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"layers is {layers}: at least one is needed")
        self.place = PositionEmbedding(dim, seconds=seconds)
        self.image_kind = nn.Parameter(0.02 * torch.randn(dim))
        self.audio_kind = nn.Parameter(0.02 * torch.randn(dim))
        width = 4 * dim if hidden is None else hidden
        self.layers = nn.ModuleList(SelfAttend(dim, heads, width) for _ in range(layers))

    def forward(self, image: Tokens, audio: Tokens) -> Fused:
        image_values = image.values + self.place(image) + self.image_kind
        audio_values = audio.values + self.place(audio) + self.audio_kind
        n, m = image_values.shape[1], audio_values.shape[1]
        values, mask = torch.cat([image_values, audio_values], 1), torch.cat([image.mask, audio.mask], 1)
        for layer in self.layers:
            image_values, audio_values = values.split([n, m], 1)  # as the last layer finds them
            values = layer(values, mask)
        last = self.layers[-1]
        image_map = softmax_over_real(
            last.scores(audio_values, image_values), image.mask[:, None, None]
        ).mean(1)
        audio_map = softmax_over_real(
            last.scores(image_values, audio_values), audio.mask[:, None, None]
        ).mean(1)
        image_values, audio_values = values.split([n, m], 1)
        return Fused(
            replace(image, values=image_values), replace(audio, values=audio_values), image_map, audio_map
        )
