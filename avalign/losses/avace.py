"""AVACE's attention loss: look at the object that sounds, listen while it does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from avalign.config.recipe import NonNegative
from avalign.losses.value import LossValue, PerSampleLoss, Reduction

TINY = 1e-30  # added inside a logarithm: far below any attention that float32 can still learn from


class AVACE(PerSampleLoss):
    """Attention of the two adapters against the true boxes (space) and the true intervals (time).

        sum            lambda1 * (1 - inside) + lambda2 * outside        (the paper's)
        cross_entropy  lambda1 * KL(target || attention)
        dice           lambda1 * (1 - 2 sum_k a_k t_k / (sum_k a_k^2 + sum_k t_k^2))

    `inside` is the attention on covered patches, each weighted by its covered share, `outside` the rest.
    The "sum" is content with all attention on one patch of the box. The others have as their target t the
    shares, normalised to sum to 1, and so spread attention over the whole box: "cross_entropy" without bound
    where there is none, "dice" from 0 to lambda1, of each query's map a.

    Space: every audio query's map over patches against the boxes. The queries that count are the tokens
    during which the target sounds (weighted by their share), or all real ones where no interval is given.
    Time: the same with the roles exchanged, image queries over audio tokens against the intervals.

    A sample without a box, or whose box covers no patch, adds 0 in space; likewise without an interval
    in time. The value is the mean over all b samples (LossValue says why).

    form:             "sum", "cross_entropy" or "dice", as above
    lambda1, lambda2: weights of the attention missing inside and found outside ("sum" only for lambda2)
    space_weight:     of the part in space; 0 leaves it out: then attention is taught when to listen, alone
    time_weight:      of the part in time; 0 leaves it out

    Shapes:  image_map (b, m, n), audio_map (b, n, m): rows sum to 1 over real keys;
             patch_target (b, n), time_target (b, m) in 0..1, the covered share of each token;
             has_box, has_interval (b,) bool; audio_mask (b, m), image_mask (b, n), True where real
    Returns: (), or (b,) with reduction="none". `terms`: a LossValue; parts space, time, and the attention
             mass inside / inside_time, averaged over the samples that have a box / an interval (nan where
             none has)
    Source:  Meerkat, arXiv:2407.01851, section 3.3; dice as in V-Net, arXiv:1606.04797, section 3
    """

    def __init__(
        self,
        *,
        lambda1: NonNegative = 1.0,
        lambda2: NonNegative = 1.0,
        form: Literal["sum", "cross_entropy", "dice"] = "sum",
        space_weight: NonNegative = 1.0,
        time_weight: NonNegative = 1.0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        if form not in ("sum", "cross_entropy", "dice"):
            raise ValueError(f"AVACE: form must be 'sum', 'cross_entropy' or 'dice', not {form!r}")
        self.check_options({"space_weight": space_weight, "time_weight": time_weight})
        self.lambda1, self.lambda2, self.form = lambda1, lambda2, form
        self.space_weight, self.time_weight = space_weight, time_weight

    @staticmethod
    def check_options(options: Mapping[str, Any]) -> None:
        """ValueError for options that do not go together, before anything is built."""
        if options["space_weight"] == options["time_weight"] == 0:
            raise ValueError("AVACE: space_weight and time_weight are both 0: nothing is left to learn")

    def terms(
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
        samples, applies = torch.zeros_like(patches[:, 0]), torch.zeros_like(has_box)
        parts: dict[str, Tensor] = {}
        for weight, name, inside_name, attention, target, queries in (
            (self.space_weight, "space", "inside", image_map, patches, _queries(times, audio_mask)),
            (self.time_weight, "time", "inside_time", audio_map, times, _queries(patches, image_mask)),
        ):
            if weight != 0:
                part, here, inside = self._part(attention, target, queries)
                parts |= {name: part.mean(), inside_name: _mean_where(inside, here)}
                samples, applies = samples + weight * part, applies | here
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
            if self.form == "cross_entropy":
                expected = _mass((attention + TINY).log(), goal, queries)
                loss = self.lambda1 * (torch.special.xlogy(goal, goal).sum(1) - expected)
            else:
                shared = 2 * (attention * goal[:, None]).sum(2)
                both = attention.square().sum(2) + goal.square().sum(1, keepdim=True)
                loss = self.lambda1 * (queries * (1 - shared / both.clamp(min=TINY))).sum(1)
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
