"""The Perceiver resampler of Flamingo: however many tokens come in, a few learnt ones go out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avalign.interfaces import Projector
from avalign.layers.attention import Attention, FeedForward
from avalign.layers.position_embedding import PositionEmbedding
from avalign.types import Tokens


class ResamplerLayer(nn.Module):
    """Latents (b, q, dim) gather from tokens (b, n, dim) and from each other, then think. -> (b, q, dim)"""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm_latents, self.norm_tokens = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)
        self.feed = FeedForward(dim, 4 * dim)

    def forward(self, latents: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        asking = self.norm_latents(latents)
        asked = torch.cat([self.norm_tokens(tokens), asking], 1)
        latents = latents + self.attention(asking, asked, mask)
        thought: Tensor = latents + self.feed(latents)
        return thought


class Resampler(nn.Module, Projector):
    """`queries` learnt latents that attend to the tokens and to each other, layer by layer.

    (b, n, dim_in) -> (b, queries, dim_out). Position and time are added to tokens that have them (Flamingo
    has time only); tokens without either are an unordered set. All frames of a video are read at once. What
    comes out has no position, and is masked where a sample has no real token.

    Source: Flamingo, arXiv:2204.14198, section 2.1 and appendix A.1.1 (64 latents, 6 layers)

    queries: how many latents, and so tokens that come out
    hidden:  width of the latents; dim_in when not given
    layers:  how often the latents look
    heads:   of each attention; they share `hidden`
    seconds: length that the time features span
    """

    joins_frames = True

    def __init__(
        self,
        dim_in: int,
        dim_out: int,
        *,
        queries: int = 64,
        hidden: int | None = None,
        layers: int = 2,
        heads: int = 8,
        seconds: float = 10.0,
    ) -> None:
        super().__init__()
        for name, count in (("queries", queries), ("layers", layers)):
            if count < 1:
                raise ValueError(f"{name} is {count}: at least one is needed")
        width = dim_in if hidden is None else hidden
        self.read = nn.Identity() if width == dim_in else nn.Linear(dim_in, width)
        self.norm = nn.LayerNorm(width)  # so that positions are as large beside any encoder's tokens
        self.place = PositionEmbedding(width, seconds=seconds)
        self.latents = nn.Parameter(torch.randn(queries, width))
        self.layers = nn.ModuleList(ResamplerLayer(width, heads) for _ in range(layers))
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, dim_out))

    def token_count(self, n: int, frames: int = 1) -> int:
        return len(self.latents)

    def forward(self, tokens: Tokens) -> Tokens:
        values = tokens.values.masked_fill(~tokens.mask[..., None], 0.0)
        values = self.norm(self.read(values)) + self.place(tokens)
        latents = self.latents.expand(len(values), -1, -1)
        mask = torch.cat([tokens.mask, tokens.mask.new_ones(latents.shape[:2])], 1)
        for layer in self.layers:
            latents = layer(latents, values, mask)
        real = tokens.mask.any(1, keepdim=True).expand(latents.shape[:2])
        return Tokens(self.out(latents), real)
