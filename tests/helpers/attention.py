"""torch's own attention with our weights."""

from __future__ import annotations

import torch
from torch import nn

from avalign.layers.attention import Attention

DIM = 8


def torchs(attention: Attention) -> nn.MultiheadAttention:
    """torch's module with the same weights."""
    reference = nn.MultiheadAttention(DIM, attention.heads, bias=False, batch_first=True)
    with torch.no_grad():
        parts = [attention.query.weight, attention.key.weight, attention.value.weight]
        reference.in_proj_weight.copy_(torch.cat(parts))
        reference.out_proj.weight.copy_(attention.out.weight)
    return reference
