"""Next-token prediction on the response, and on nothing else."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from avalign.losses.value import LossValue, PerSampleLoss
from avalign.types import IGNORED


class LanguageModelling(PerSampleLoss):
    """Negative log-likelihood of the response tokens: the mean over each sample's own, then over samples.

    A long caption weighs as much as a one-word answer, and a shard of a batch weighs its share of samples.

        mean_b mean_{t in response of b} -log p(label_t | what comes before)

    Shapes:  logits (b, t, v), where logits[:, t] predicts labels[:, t + 1]; labels (b, t), -100 outside
             the response
    Returns: (), or (b,) with reduction="none", in nats a token. `terms`: a LossValue
    """

    def terms(self, logits: Tensor, labels: Tensor) -> LossValue:
        if logits.ndim != 3 or labels.shape != logits.shape[:2]:
            got = f"{tuple(logits.shape)} and {tuple(labels.shape)}"
            raise ValueError(f"logits must be (b, t, v) and labels (b, t): got {got}")
        labels = labels[:, 1:]
        learned = labels != IGNORED
        count = learned.sum(1)
        if (count == 0).any():
            rows = (count == 0).nonzero().flatten().tolist()
            raise ValueError(f"no response token to learn in row(s) {rows} of labels: all are {IGNORED}")
        # Only the learned positions are taken to fp32: vocabularies are large and responses short.
        chosen = logits[:, :-1][learned].float()
        nll = F.cross_entropy(chosen, labels[learned], reduction="none")
        row = learned.nonzero()[:, 0]
        samples = nll.new_zeros(len(labels)).index_add(0, row, nll) / count
        return LossValue.of(samples, torch.ones_like(count, dtype=torch.bool))
