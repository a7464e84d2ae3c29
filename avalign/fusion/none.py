"""No fusion: both token sets pass as they are."""

from __future__ import annotations

from torch import nn

from avalign.interfaces import Fusion
from avalign.types import Fused, Tokens


class NoFusion(nn.Module, Fusion):
    """The base of an ablation: tokens unchanged, no attention maps (AVACE cannot be used with it)."""

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, image: Tokens, audio: Tokens) -> Fused:
        return Fused(image, audio)
