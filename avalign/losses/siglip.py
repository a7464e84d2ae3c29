"""Contrastive alignment without a softmax: each pair of an image and audio is right or wrong by itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from avalign.config.recipe import Positive
from avalign.losses.contrastive import LEAST, Temperature
from avalign.losses.pairs import Compared, named_similarity
from avalign.losses.similarity import Price, SimilarityName
from avalign.losses.value import LossValue, PerSampleLoss, Reduction

Finite = Annotated[float, Field(allow_inf_nan=False)]


class SigLip(PerSampleLoss):
    """SigLIP's pairwise sigmoid loss: every image with every audio clip of the batch, told apart one by one.

        mean_i sum_j -log sigmoid(z_ij (s(image_i, audio_j) / T + bias)),   z_ii = 1, z_ij = -1 elsewhere

    similarity:      s, as for the loss contrastive, with the options that are for some of them:
    epsilon, rho_image, rho_audio: as for contrastive
    temperature:     where T begins, which is learnt (its logarithm is) and kept at 0.01 or above
    bias:            where the bias begins, which is learnt; far below 0, as nearly all pairs are wrong ones
    pairs:           "all", every sample with an image and audio; "grounded", only those with a box
    false_negatives: "keep"; "drop", two samples that the data give the same class are not told apart

    Negatives: as for contrastive: of all processes, but of one forward pass. The sum grows with them
    Shapes:   image (b, n, d), audio (b, m, d); image_mask (b, n), audio_mask (b, m), True where not padding;
              has_image, has_audio, has_box (b,) bool; classes (b,), one number for each class, -1 unknown;
              image_weights (b, n), audio_weights (b, m), not negative, in place of uniform ones
    Returns:  (), or (b,) with reduction="none", in nats: a sample's own is half of what its image and half of
              what its audio meets. `terms`: a LossValue; parts temperature and bias
    Empty:    a sample that is no pair adds 0, and meets nobody
    Processes: as for contrastive
    Source:   arXiv:2303.15343, algorithm 1 (whose temperature is 1 / T here)
    """

    couples_samples = True

    def __init__(
        self,
        *,
        similarity: SimilarityName = "mean",
        temperature: Temperature = 0.1,
        bias: Finite = -10.0,
        pairs: Literal["all", "grounded"] = "all",
        false_negatives: Literal["keep", "drop"] = "keep",
        epsilon: Positive | None = None,
        rho_image: Price | None = None,
        rho_audio: Price | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        if not LEAST <= temperature < math.inf or not math.isfinite(bias):
            got = f"{temperature} and {bias}"
            raise ValueError(f"siglip: temperature must be {LEAST} or above and bias a number, not {got}")
        self.compared = Compared(
            "siglip",
            named_similarity("siglip", similarity, epsilon, rho_image, rho_audio),
            pairs,
            false_negatives,
        )
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))
        self.bias = nn.Parameter(torch.tensor(bias))

    @staticmethod
    def check_options(options: Mapping[str, Any]) -> None:
        """ValueError for options that do not go together, before anything is built."""
        names = ("similarity", "epsilon", "rho_image", "rho_audio")
        named_similarity("siglip", *(options[name] for name in names))

    def terms(
        self,
        image: Tensor,
        audio: Tensor,
        image_mask: Tensor | None = None,
        audio_mask: Tensor | None = None,
        has_image: Tensor | None = None,
        has_audio: Tensor | None = None,
        has_box: Tensor | None = None,
        classes: Tensor | None = None,
        image_weights: Tensor | None = None,
        audio_weights: Tensor | None = None,
    ) -> LossValue:
        with torch.autocast(image.device.type, enabled=False):
            found = self.compared(
                image,
                audio,
                image_mask,
                audio_mask,
                has_image,
                has_audio,
                has_box,
                classes,
                image_weights,
                audio_weights,
            )
            with torch.no_grad():  # not where it is used: at the bound a clamp would pass no gradient back
                self.log_temperature.clamp_(min=math.log(LEAST))
            temperature = self.log_temperature.exp()
            sign = torch.where(found.own, 1.0, -1.0)
            counts = found.own | found.negative
            met = [
                (-F.logsigmoid(sign * (alike / temperature + self.bias))).masked_fill(~counts, 0).sum(1)
                for alike in (found.forth, found.back)
            ]
        parts = {"temperature": temperature, "bias": self.bias}
        return LossValue.of((met[0] + met[1]) / 2, found.is_pair, parts)
