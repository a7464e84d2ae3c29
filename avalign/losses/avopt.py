"""AVOpT: weak alignment of two sets of tokens by optimal transport."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from avalign.losses.value import LossValue
from avalign.ot import Plan, cosine_cost, cosine_sinkhorn, exact
from avalign.ot.sinkhorn import check_settings
from avalign.recipe import Positive


class AVOpT(nn.Module):
    """Cost of carrying an image's patches onto its clip's audio tokens, averaged over the batch.

        min over T in Pi(u, v) of <T, C>,   C_ij = 1 - cos(image_i, audio_j)

    backend:   "sinkhorn", smoothed by epsilon; "exact", the network simplex of POT, on the CPU
    epsilon:   entropic smoothing in units of the cost; sinkhorn only, as are the next five
    rounds:    at most so many Sinkhorn rounds for an item
    tolerance: an item is done when its marginals are off by no more than this (L1, total mass 1)
    value:     "dual", the smoothed optimum itself; "primal", <T, C> of the smoothed plan; "entropic",
               <T, C> + epsilon sum T log T
    engine:    "c++" (built on first use), "triton" or "torch"; "auto", the fastest that can run
    products:  "bfloat16" factors in the fused engines' products, or "float32"; "auto", as the features

    Shapes:   image (b, n, d), audio (b, m, d); image_mask (b, n), audio_mask (b, m), True where not
              padding; has_image, has_audio (b,) bool; image_weights (b, n), audio_weights (b, m), the
              marginals u and v, each summing to 1 over real tokens (uniform when not given)
    Returns:  LossValue in [0, 2] (cosine distance, no unit); part unconverged, the share of items
    Gradient: through C at the optimal T (envelope theorem); nothing is stored per iteration
    Empty:    a sample that has no image or no audio, as has_image and has_audio tell, adds 0. Without
              being told, all tokens of a sample masked is an error that names it
    Source:   Meerkat, arXiv:2407.01851, section 3.2
    """

    def __init__(
        self,
        *,
        backend: Literal["sinkhorn", "exact"] = "sinkhorn",
        epsilon: Positive = 0.05,
        rounds: PositiveInt = 1000,
        tolerance: Positive = 1e-3,
        value: Literal["dual", "primal", "entropic"] = "dual",
        engine: Literal["auto", "c++", "triton", "torch"] = "auto",
        products: Literal["auto", "float32", "bfloat16"] = "auto",
    ) -> None:
        super().__init__()
        if backend not in ("sinkhorn", "exact"):
            raise ValueError(f"AVOpT: backend must be 'sinkhorn' or 'exact', not {backend!r}")
        check_settings(epsilon, rounds, tolerance, value)
        self.backend, self.epsilon, self.rounds = backend, epsilon, rounds
        self.tolerance, self.value = tolerance, value
        self.engine, self.products = engine, products

    def solve(
        self,
        image: Tensor,
        audio: Tensor,
        image_mask: Tensor | None = None,
        audio_mask: Tensor | None = None,
        image_weights: Tensor | None = None,
        audio_weights: Tensor | None = None,
    ) -> Plan:
        """The transport plan of every item, with its convergence and its bounds."""
        if self.backend == "exact":
            cost = cosine_cost(image, audio, image_mask, audio_mask)
            return exact(cost, image_weights, audio_weights, image_mask, audio_mask)
        return cosine_sinkhorn(
            image,
            audio,
            image_weights,
            audio_weights,
            image_mask,
            audio_mask,
            epsilon=self.epsilon,
            rounds=self.rounds,
            tolerance=self.tolerance,
            value=self.value,
            engine=self.engine,
            products=self.products,
            upstream=1 / max(len(image), 1),
        )

    def forward(
        self,
        image: Tensor,
        audio: Tensor,
        image_mask: Tensor | None = None,
        audio_mask: Tensor | None = None,
        has_image: Tensor | None = None,
        has_audio: Tensor | None = None,
        image_weights: Tensor | None = None,
        audio_weights: Tensor | None = None,
    ) -> LossValue:
        applies = torch.ones(len(image), dtype=torch.bool, device=image.device)
        for present in (has_image, has_audio):
            applies = applies if present is None else applies & present
        if has_image is not None or has_audio is not None:
            # Where there is nothing to align, stand in a problem of zero vectors, whose gradient is 0.
            absent = ~applies[:, None]
            image, audio = (tokens.masked_fill(absent[:, :, None], 0) for tokens in (image, audio))
            image_mask, audio_mask = (
                None if mask is None else mask | absent for mask in (image_mask, audio_mask)
            )
            image_weights, audio_weights = (
                None if weights is None else torch.where(absent, 1 / weights.shape[1], weights)
                for weights in (image_weights, audio_weights)
            )
        plan = self.solve(image, audio, image_mask, audio_mask, image_weights, audio_weights)
        unconverged = (~plan.converged & applies).sum() / applies.sum().clamp(min=1)
        return LossValue.of(plan.value, applies, {"unconverged": unconverged})
