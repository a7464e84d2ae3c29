"""Contrastive alignment: an image is nearer to its own audio than to any other of the batch, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from avalign.config.recipe import Positive
from avalign.losses.pairs import Compared, Pairs, named_similarity
from avalign.losses.similarity import Price, SimilarityName
from avalign.losses.value import LossValue, PerSampleLoss, Reduction

LEAST = 0.01  # temperature: CLIP's bound on what is learnt
Temperature = Annotated[float, Field(ge=LEAST, allow_inf_nan=False)]


class Contrastive(PerSampleLoss):
    """InfoNCE over the pairs of a batch, in both directions: images find their audio and audio its images.

        1/2 mean_i [ -log softmax_j(s(image_i, audio_j) / T)_i - log softmax_j(s(image_j, audio_i) / T)_i ]

    similarity:        s, a cosine: of the "mean" of real tokens, or of the "max" of each feature over them;
                       "max_mean", each audio token takes its most similar patch, mean over audio tokens;
                       "max_mean_both", the mean of that and of each patch with its most similar token;
                       "soft_attention", each audio token attends to the patches by softmax(cos / epsilon);
                       "transport", 1 - the value of optimal transport from patches to audio tokens
    epsilon:           soft_attention: temperature of its softmax; transport: smoothing, in units of the cost
    rho_image:         transport: price, in units of the cost, of a unit of KL from the patches' marginal: 0,
                       it is free, as in attention; inf, it holds, as in the paper; 0.02 by default, as
                       most patches make no sound
    rho_audio:         transport: the same of the audio tokens' marginal; by default inf
    temperature:       T, or where T begins
    learn_temperature: T is a weight (its logarithm is), kept at 0.01 or above
    pairs:             "all", every sample with an image and audio; "grounded", only those with a box:
                       a question may be about an image that its audio does not belong to
    false_negatives:   "keep"; "drop", samples that the data give the same class are no negatives of each
                       other. An image that shows the object of another's audio beside its own still is

    Negatives: every other pair of the batch: of all processes, which exchange features with gradient, but of
              one forward pass. So train.gradient_accumulation: k leaves each sample a k-th of the negatives,
              and does not give what one big batch gives; more processes do
    Shapes:   image (b, n, d), audio (b, m, d); image_mask (b, n), audio_mask (b, m), True where not padding;
              has_image, has_audio, has_box (b,) bool; classes (b,), one number for each class, -1 unknown;
              image_weights (b, n), audio_weights (b, m), not negative, in place of uniform ones
    Returns:  (), or (b,) with reduction="none", in nats. `terms`: a LossValue; parts accuracy, the share of
              images and audio clips that find their own (nan where nothing is compared), and temperature
    Empty:    a sample that is no pair, or has no negative, adds 0; a whole batch of 1 is an error
    Processes: each returns the mean over its own samples, of which the mean over processes is the joined
              batch's loss; gathered features return their gradient to where they came from. So what
              DistributedDataParallel averages is the joined batch's gradient, the temperature's too
    Source:   InfoNCE, arXiv:1807.03748; symmetric with T learnt, CLIP, arXiv:2103.00020; max_mean, FILIP,
              arXiv:2111.07783
    """

    couples_samples = True

    def __init__(
        self,
        *,
        similarity: SimilarityName = "mean",
        temperature: Temperature = 0.07,
        learn_temperature: bool = True,
        pairs: Literal["all", "grounded"] = "all",
        false_negatives: Literal["keep", "drop"] = "keep",
        epsilon: Positive | None = None,
        rho_image: Price | None = None,
        rho_audio: Price | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        if not LEAST <= temperature < math.inf:
            raise ValueError(f"contrastive: temperature must be {LEAST} or above, not {temperature}")
        self.compared = Compared(
            "contrastive",
            named_similarity("contrastive", similarity, epsilon, rho_image, rho_audio),
            pairs,
            false_negatives,
        )
        log_temperature = torch.tensor(math.log(temperature))
        if learn_temperature:
            self.log_temperature = nn.Parameter(log_temperature)
        else:
            self.register_buffer("log_temperature", log_temperature, persistent=False)

    @staticmethod
    def check_options(options: Mapping[str, Any]) -> None:
        """ValueError for options that do not go together, before anything is built."""
        names = ("similarity", "epsilon", "rho_image", "rho_audio")
        named_similarity("contrastive", *(options[name] for name in names))

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
            if found.own.shape[1] == 1:
                raise ValueError("a batch of 1 sample has no negatives: raise train.batch_size")
            with torch.no_grad():  # not where it is used: at the bound a clamp would pass no gradient back
                self.log_temperature.clamp_(min=math.log(LEAST))
            temperature = self.log_temperature.exp()
            forth, forth_found = _among(found.forth / temperature, found)
            back, back_found = _among(found.back / temperature, found)
        applies = found.is_pair & found.negative.any(1)
        right = torch.where(applies, (forth_found.float() + back_found.float()) / 2, 0)
        parts = {"accuracy": right.sum() / applies.sum(), "temperature": temperature}
        return LossValue.of((forth + back) / 2, applies, parts)


def _among(logits: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """-log softmax of each sample's own among its negatives, and whether it is the largest: (b,) each."""
    candidates = logits.masked_fill(~(pairs.negative | pairs.own), -torch.inf)
    own = logits.masked_fill(~pairs.own, 0).sum(1)
    return candidates.logsumexp(1) - own, candidates.argmax(1) == pairs.own.int().argmax(1)
