"""The text of a component's file."""

from __future__ import annotations

LOSS = '''
"""A loss of someone's own."""
import torch
from torch import nn
from avalign.losses import LossValue

class Nearness(nn.Module):
    """Mean squared distance of mean tokens.

    scale: what it is multiplied with
    """
    def __init__(self, *, scale: float = 1.0):
        super().__init__()
        self.scale = scale

    def terms(self, image, audio):
        samples = self.scale * (image.mean(1) - audio.mean(1)).square().mean(1)
        return LossValue.of(samples, torch.ones(len(samples), dtype=torch.bool), {})
'''
