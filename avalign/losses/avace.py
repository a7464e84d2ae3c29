"""AVACE's attention loss: look at the object that sounds, listen while it does."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from avalign.losses.value import LossValue
from avalign.recipe import NonNegative

TINY = 1e-30  # added inside a logarithm: far below any attention that float32 can still learn from


class AVACE(nn.Module):
    """Attention of the two adapters against the true boxes (space) and the true intervals (time).

        sum            lambda1 * (1 - inside) + lambda2 * outside        (the paper's)
        cross_entropy  lambda1 * KL(target || attention)

    `inside` is the attention on covered patches, each weighted by its covered share, `outside` the rest.
    The "sum" is content with all attention on one patch of the box; "cross_entropy" has the shares,
    normalised to sum to 1, as its target and so spreads attention over the whole box.

    Space: every audio query's map over patches against the boxes. The queries that count are the tokens
    during which the target sounds (weighted by their share), or all real ones where no interval is given.
    Time: the same with the roles exchanged, image queries over audio tokens against the intervals.

    A sample without a box, or whose box covers no patch, adds 0 in space; likewise without an interval
    in time. The value is the mean over all b samples (LossValue says why).

    form:             "sum" or "cross_entropy", as above
    lambda1, lambda2: weights of the attention missing inside and found outside ("sum" only for lambda2)
    time_weight:      of the part in time; 0 leaves it out

    Shapes:  image_map (b, m, n), audio_map (b, n, m): rows sum to 1 over real keys;
             patch_target (b, n), time_target (b, m) in 0..1, the covered share of each token;
             has_box, has_interval (b,) bool; audio_mask (b, m), image_mask (b, n), True where real
    Returns: LossValue; parts space, time, and the attention mass inside / inside_time, averaged over
             the samples that have a box / an interval (nan where none has)
    Source:  Meerkat, arXiv:2407.01851, section 3.3
    """

    def __init__(
        self,
        *,
        lambda1: NonNegative = 1.0,
        lambda2: NonNegative = 1.0,
        form: Literal["sum", "cross_entropy"] = "sum",
        time_weight: NonNegative = 1.0,
    ) -> None:
        super().__init__()
        if form not in ("sum", "cross_entropy"):
            raise ValueError(f"AVACE: form must be 'sum' or 'cross_entropy', not {form!r}")
        self.lambda1, self.lambda2, self.form, self.time_weight = lambda1, lambda2, form, time_weight

    def forward(
        self,
        image_map: Tensor,
        audio_map: Tensor,
        patch_target: Tensor,
        has_box: Tensor,
        time_target: Tensor,
        has_interval: Tensor,
        audio_mask: Tensor,
        image_mask: Tensor,
    ) -> LossValue:
        patches = _target(patch_target, image_mask, has_box)
        times = _target(time_target, audio_mask, has_interval)
        space, in_space, inside = self._part(image_map, patches, _queries(times, audio_mask))
        parts = {"space": space.mean(), "inside": _mean_where(inside, in_space)}
        samples, applies = space, in_space
        if self.time_weight != 0:
            time, in_time, inside_time = self._part(audio_map, times, _queries(patches, image_mask))
            parts |= {"time": time.mean(), "inside_time": _mean_where(inside_time, in_time)}
            samples, applies = space + self.time_weight * time, in_space | in_time
        return LossValue.of(samples, applies, parts)

    def _part(self, attention: Tensor, target: Tensor, queries: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, whether it applies, and the attention inside, of each sample: (b,) each.

        Shapes: attention (b, q, k), target (b, k) in 0..1, queries (b, q), weights that sum to 1 or to 0
        """
        attention = attention.to(target.dtype)
        applies = (target.sum(1) > 0) & (queries.sum(1) > 0)
        inside = _mass(attention, target, queries)
        if self.form == "sum":
            loss = self.lambda1 * (1 - inside) + self.lambda2 * _mass(attention, 1 - target, queries)
        else:
            goal = target / target.sum(1, keepdim=True).clamp(min=TINY)
            expected = _mass((attention + TINY).log(), goal, queries)
            loss = self.lambda1 * (torch.special.xlogy(goal, goal).sum(1) - expected)
        return torch.where(applies, loss, torch.zeros_like(loss)), applies, inside


def _mass(attention: Tensor, weight: Tensor, queries: Tensor) -> Tensor:
    """sum_qk queries_q attention_qk weight_k of each item (b,). No product, which autocast would round."""
    return ((attention * weight[:, None, :]).sum(2) * queries).sum(1)


def _target(share: Tensor, mask: Tensor, known: Tensor) -> Tensor:
    """The share of each real token that is covered; all 0 where no truth is known. (b, k)"""
    share = share if share.dtype == torch.float64 else share.float()
    return torch.where(mask & known[:, None], share, torch.zeros_like(share))


def _queries(target: Tensor, mask: Tensor) -> Tensor:
    """Weights (b, q) that sum to 1: the covered share where there is any, else equal over real tokens."""
    covered = target.sum(1, keepdim=True) > 0
    weight = torch.where(covered, target, mask.to(target.dtype))
    return weight / weight.sum(1, keepdim=True).clamp(min=TINY)


def _mean_where(values: Tensor, applies: Tensor) -> Tensor:
    values = torch.where(applies, values, torch.zeros_like(values))
    return values.detach().sum() / applies.sum()
