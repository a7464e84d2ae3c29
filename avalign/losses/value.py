"""What a loss gives: a tensor, as torch's own do, or all of its terms."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from avalign.interfaces import Loss
from avalign.registry import NO_OPTION

# Of a loss used alone. A recipe's terms are means over samples: LossValue says why
Reduction = Annotated[Literal["mean", "sum", "none"], NO_OPTION]


@dataclass(frozen=True)
class LossValue:
    """A scalar to minimise and what it is made of: `value = AVOpT().terms(image, audio)`.

    The total is the mean over ALL b samples of a batch, and a sample the loss does not apply to counts
    as 0. So the total of a batch is the mean of the totals of its equal shards: gradient accumulation
    and several processes give what one big batch gives.

    Shapes: total (), with gradient; parts (), detached, for the log; samples (b,), with gradient, the
            contribution of each sample; applies (b,) bool, the samples the loss applies to
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


class PerSampleLoss(nn.Module, Loss):
    """What the shipped losses share: called, they give a tensor, as torch's own do; `terms` gives more.

    A subclass has `terms`, which takes tensors and returns a LossValue with its samples; forward takes the
    same.

    reduction: "mean", over all b samples, of which those that the loss does not apply to count as 0; "sum",
               of the same; "none", each sample's own, (b,)

    Returns:   (), or (b,) with "none"; with gradient
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        if reduction not in ("mean", "sum", "none"):
            kind = type(self).__name__
            raise ValueError(f"{kind}: reduction must be 'mean', 'sum' or 'none', not {reduction!r}")
        self.reduction = reduction

    def terms(self, *tensors: Any, **named: Any) -> LossValue:
        raise NotImplementedError(f"{type(self).__name__} has no method `terms`")

    def forward(self, *tensors: Tensor, **named: Tensor | None) -> Tensor:
        value = self.terms(*tensors, **named)
        if self.reduction == "mean":
            return value.total
        assert value.samples is not None
        return value.samples if self.reduction == "none" else value.samples.sum()
