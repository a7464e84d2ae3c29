"""Flamingo's gated cross attention, both ways: closed at first, it changes nothing until it has learnt to."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from avalign.interfaces import Fusion
from avalign.layers.attention import Attention, FeedForward, softmax_over_real
from avalign.layers.position_embedding import PositionEmbedding
from avalign.types import Fused, Tokens


class GatedAttend(nn.Module):
    """One direction. asking (b, m, dim), asked (b, n, dim) -> (b, m, dim) and the map (b, m, n)

    Both gates are tanh of a number that begins at 0. Attention goes by content; positions are in what it
    brings, and in what the feed-forward layer reads.
    """

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm_asking, self.norm_asked = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)
        self.feed = FeedForward(dim, hidden)
        self.gate_attention = nn.Parameter(torch.zeros(1))
        self.gate_feed = nn.Parameter(torch.zeros(1))

    def forward(
        self, asking: Tokens, asked: Tokens, asking_position: Tensor, asked_position: Tensor
    ) -> tuple[Tensor, Tensor]:
        query, key = self.norm_asking(asking.values), self.norm_asked(asked.values)
        weights = softmax_over_real(self.attention.scores(query, key), asked.mask[:, None, None])
        brought = self.attention.gather(weights, key + asked_position)
        values = asking.values + self.gate_attention.tanh() * brought
        values = values + self.gate_feed.tanh() * self.feed(values + asking_position)
        return values, weights.mean(1)


class GatedCrossAttention(nn.Module, Fusion):
    """Patches and audio tokens attend to each other, layer by layer, through gates that begin closed.

        x = x + tanh(a) attention(x, y);   x = x + tanh(b) feed_forward(x)

    with a = b = 0 at first, so that training begins from the tokens as they came. The maps are those of the
    last layer, averaged over heads.

    Shapes: image (b, n, dim), audio (b, m, dim) -> the same, image_map (b, m, n), audio_map (b, n, m)
    Source: Flamingo, arXiv:2204.14198, section 2.2. There text asks and images answer; here each modality
            asks the other, and tokens with a position or a time bring it along

    layers:  of attention, both ways each
    heads:   of each attention; they share dim
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
        width = 4 * dim if hidden is None else hidden
        self.place = PositionEmbedding(dim, seconds=seconds)
        self.over_image = nn.ModuleList(GatedAttend(dim, heads, width) for _ in range(layers))
        self.over_audio = nn.ModuleList(GatedAttend(dim, heads, width) for _ in range(layers))

    def forward(self, image: Tokens, audio: Tokens) -> Fused:
        image_positions, audio_positions = self.place(image), self.place(audio)
        for over_image, over_audio in zip(self.over_image, self.over_audio, strict=True):
            audio_values, image_map = over_image(audio, image, audio_positions, image_positions)
            image_values, audio_map = over_audio(image, audio, image_positions, audio_positions)
            image, audio = replace(image, values=image_values), replace(audio, values=audio_values)
        return Fused(image, audio, image_map, audio_map)
