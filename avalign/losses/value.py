"""What every loss returns."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class LossValue:
    """A scalar to minimise and what it is made of: `loss = AVOpT()(image, audio).total`.

    The total is the mean over ALL b samples of a batch, and a sample the loss does not apply to counts
    as 0. So the total of a batch is the mean of the totals of its equal shards: gradient accumulation
    and several processes give what one big batch gives.

    Shapes: total (), with gradient; parts (), detached, for the log; samples (b,), with gradient, the
            contribution of each sample (what others call reduction "none"); applies (b,) bool, the
            samples the loss applies to
    """

    total: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)
    samples: Tensor | None = None  # None: the loss does not say
    applies: Tensor | None = None  # None: all of them

    @classmethod
    def of(cls, samples: Tensor, applies: Tensor, parts: dict[str, Tensor] | None = None) -> LossValue:
        """From each sample's contribution (b,), counted where applies (b,) is True and 0 elsewhere."""
        samples = torch.where(applies, samples, torch.zeros_like(samples))
        parts = {name: part.detach() for name, part in (parts or {}).items()}
        return cls(samples.mean(), parts, samples, applies)
