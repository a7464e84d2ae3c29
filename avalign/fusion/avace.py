"""Meerkat's adapters: image and audio attend to each other, and the attention is returned to be scored."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from avalign.interfaces import Fusion
from avalign.layers.attention import softmax_over_real
from avalign.layers.position_embedding import FourierEmbedding, spans_of
from avalign.types import Fused, Tokens


def attention(query: Tensor, key: Tensor, mask: Tensor) -> Tensor:
    """Softmax over real keys; rows of zeros where none is real. (b, m, d), (b, n, d), (b, n) -> (b, m, n)"""
    scores = (query @ key.transpose(1, 2)).float() / math.sqrt(query.shape[-1])
    return softmax_over_real(scores, mask[:, None])


class Attend(nn.Module):
    """One direction: queries gather what matches them, and where it lies.

    The position is in the values and in the outgoing token, never in the keys: attention goes by content, and
    what it brings back says where the content was. The product of query and gathered key tells how well
    they match, which a softmax alone cannot (its row sums to 1 even when nothing matches).
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.norm_query, self.norm_key = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query, self.key, self.value = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.mix = nn.Sequential(nn.Linear(3 * dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(
        self, asking: Tokens, asked: Tokens, asking_position: Tensor, asked_position: Tensor
    ) -> tuple[Tensor, Tensor]:
        queries, keys = self.norm_query(asking.values), self.norm_key(asked.values)
        query, key = self.query(queries), self.key(keys)
        weights = attention(query, key, asked.mask)
        position = asked_position.expand_as(key)
        gathered = weights.to(key.dtype) @ torch.cat([self.value(keys) + position, key, position], -1)
        value, match, position_value = gathered.chunk(3, -1)
        mixed = self.mix(torch.cat([queries, value, query * match], -1))
        return asking.values + asking_position + position_value + mixed, weights


class AvaceAdapters(nn.Module, Fusion):
    """Two-way cross attention between patches and audio tokens, with both attention maps.

    The time of a video's frames is said as that of the audio is, so that the two can be compared.

    Shapes: image (b, n, dim), audio (b, m, dim) -> the same, image_map (b, m, n), audio_map (b, n, m)
    Source: Meerkat, arXiv:2407.01851, section 3.3; position and match features are this library's

    hidden:  width inside the mixing layers; 2 * dim when not given
    seconds: length that the time features span
    """

    def __init__(self, dim: int, *, hidden: int | None = None, seconds: float = 10.0) -> None:
        super().__init__()
        hidden = 2 * dim if hidden is None else hidden
        self.image_place = FourierEmbedding(dim, axes=2, unit=1.0)
        self.audio_place = FourierEmbedding(dim, axes=1, unit=seconds, bands=6)
        self.over_image = Attend(dim, hidden)
        self.over_audio = Attend(dim, hidden)

    def forward(self, image: Tokens, audio: Tokens) -> Fused:
        position = self.image_place(image.boxes) if image.boxes is not None else image.values.new_zeros(())
        if image.frame_times is not None:
            position = position + self.audio_place(spans_of(image))
        time = self.audio_place(audio.times) if audio.times is not None else audio.values.new_zeros(())
        audio_values, image_map = self.over_image(audio, image, time, position)
        image_values, audio_map = self.over_audio(image, audio, position, time)
        return Fused(
            replace(image, values=image_values),
            replace(audio, values=audio_values),
            image_map,
            audio_map,
        )
