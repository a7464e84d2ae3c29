"""AVOpT: weak alignment of two sets of tokens by optimal transport."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from avalign.config.recipe import Positive, Share
from avalign.losses.backends import refuse_clash, solver
from avalign.losses.contrastive import Contrastive, Temperature
from avalign.losses.similarity import Price
from avalign.losses.value import LossValue, PerSampleLoss, Reduction
from avalign.ot import Plan, cosine_cost, cosine_sinkhorn, squared_euclidean_cost
from avalign.ot.engine import Engine
from avalign.ot.sinkhorn import check_settings

COSTS = {"cosine": cosine_cost, "squared_euclidean": squared_euclidean_cost}
Part = Annotated[float, Field(gt=0, le=1)]
Ratio = Annotated[float, Field(gt=0, lt=1)]


class AVOpT(PerSampleLoss):
    """Cost of carrying an image's patches onto its clip's audio tokens, averaged over the batch.

        min over T in Pi(u, v) of <T, C>,   C_ij = 1 - cos(image_i, audio_j)

    backend:   "sinkhorn", smoothed by epsilon
               "exact", the network simplex of POT, on the CPU
               "unbalanced", smoothed, with marginals that may be missed at the price rho
               "partial", only the share `mass` is carried: what sounds off screen has no patch to go to
               "ipot", proximal points; with threshold 0.1 over "batch" as Meerkat's released code has it
               "geomloss", that package's Sinkhorn, which does not look whether it has converged
    cost:      "cosine", "squared_euclidean" (|image_i - audio_j|^2) or, in Python, any function of image,
               audio and their masks that gives (b, n, m)
    epsilon:   entropic smoothing in units of the cost; not for exact and ipot
    iterations: at most so many of Sinkhorn's for an item (None: 1000); ipot makes exactly so many (None: 30)
    tolerance: an item is done when its marginals are off by no more than this (L1, total mass 1); sinkhorn,
               unbalanced and partial look
    value:     "dual", the smoothed optimum itself; "primal", <T, C> of the smoothed plan; "entropic",
               <T, C> + epsilon sum T log T (not for unbalanced and partial)

    The rest is each for one backend, None its own default, and an error with any other backend:

    rho:       unbalanced: the price, in units of the cost, of a unit of KL from a marginal; to be given
    mass:      partial: the share of the mass to carry; to be given
    partial_backend: partial: what solves it
    beta, threshold, threshold_over: ipot: the step, in units of the cost; the share of the cost's range
               that counts as 0, and whether that range is an item's or the batch's
    scaling, diameter: geomloss: each epsilon as a share of the one before; the first one, which only when
               given is the same for all items, and they are then solved together
    engine:    sinkhorn: "c++" (built on first use), "triton" (or one tier of it, as "triton-split") or
               "torch"; None, the fastest that can run
    products:  sinkhorn under cosine cost: "bfloat16" factors in the fused engines' products, or "float32";
               None, as the features

    negatives: "none", as in the paper, or "batch"

    With "batch", every image of the batch meets every audio clip, those of other processes too, and
    the loss is InfoNCE over 1 - transport value, as that of the loss `contrastive` by the similarity
    "transport": without negatives the cost is least where all tokens are equal. Backend "sinkhorn" and
    cosine cost only; epsilon (0.1 is a good one), iterations and tolerance as above, and:

    rho_image, rho_audio: each side's price of a unit of KL from its marginal: inf (None), it holds, as in the
               paper; 0, it is free. Most patches make no sound: contrastive's own default is 0.02 and inf
    temperature: of InfoNCE, where it begins (None: 0.07); it is learnt

    Shapes:   image (b, n, d), audio (b, m, d); image_mask (b, n), audio_mask (b, m), True where not
              padding; has_image, has_audio (b,) bool; image_weights (b, n), audio_weights (b, m), the
              marginals u and v, each summing to 1 over real tokens (uniform when not given; of any mass
              when unbalanced). avalign.ot.marginal_from makes them of attention, with gradient
    Returns:  (), or (b,) with reduction="none"; in [0, 2] for cosine distance where all mass is carried (no
              unit). `terms`: a LossValue with each item's; part unconverged, the share of items
    Gradient: that of the value, through C and the marginals; nothing is stored per iteration
    Empty:    a sample that has no image or no audio, as has_image and has_audio tell, adds 0. Without
              being told, all tokens of a sample masked is an error that names it
    Source:   Meerkat, arXiv:2407.01851, section 3.2
    """

    def __init__(
        self,
        *,
        backend: Literal["sinkhorn", "exact", "unbalanced", "partial", "ipot", "geomloss"] = "sinkhorn",
        cost: Literal["cosine", "squared_euclidean"] | Callable[..., Tensor] = "cosine",
        epsilon: Positive = 0.05,
        iterations: PositiveInt | None = None,
        tolerance: Positive = 1e-3,
        value: Literal["dual", "primal", "entropic"] = "dual",
        rho: Positive | None = None,
        mass: Part | None = None,
        partial_backend: Literal["sinkhorn", "exact"] | None = None,
        beta: Positive | None = None,
        threshold: Share | None = None,
        threshold_over: Literal["item", "batch"] | None = None,
        scaling: Ratio | None = None,
        diameter: Positive | None = None,
        engine: Engine | None = None,
        products: Literal["auto", "float32", "bfloat16"] | None = None,
        negatives: Literal["none", "batch"] = "none",
        rho_image: Price | None = None,
        rho_audio: Price | None = None,
        temperature: Temperature | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        if not callable(cost) and cost not in COSTS:
            raise ValueError(f"AVOpT: cost must be 'cosine', 'squared_euclidean' or a function, not {cost!r}")
        self.backend, self.epsilon = backend, epsilon
        self.iterations = 1000 if iterations is None else iterations
        self.tolerance, self.value = tolerance, value
        self.engine, self.products = engine, products
        check_settings(epsilon, self.iterations, tolerance, value)
        options: dict[str, Any] = {"rho_image": rho_image, "rho_audio": rho_audio, "temperature": temperature}
        options |= {"backend": backend, "cost": cost, "value": value, "engine": engine, "products": products}
        _refuse_negatives(negatives, options)
        self.contrastive = None
        if negatives == "batch":
            self.couples_samples = True
            self.contrastive = Contrastive(
                similarity="transport",
                temperature=0.07 if temperature is None else temperature,
                epsilon=epsilon,
                rho_image=math.inf if rho_image is None else rho_image,
                rho_audio=rho_audio,
            )
            compared = self.contrastive.compared
            similarity = replace(
                compared.similarity, tolerance=tolerance, iterations=self.iterations, engine=engine or "auto"
            )
            self.contrastive.compared = replace(compared, similarity=similarity)
        self.cost = cost if callable(cost) else COSTS[cost]
        self.solver = solver(
            backend,
            {
                "epsilon": epsilon,
                "iterations": iterations,
                "tolerance": tolerance,
                "value": value,
                "rho": rho,
                "mass": mass,
                "partial_backend": partial_backend,
                "beta": beta,
                "threshold": threshold,
                "threshold_over": threshold_over,
                "scaling": scaling,
                "diameter": diameter,
                "engine": engine,
                "products": products,
            },
        )

    @staticmethod
    def check_options(options: Mapping[str, Any]) -> None:
        """ValueError for options that do not go together, before anything is built."""
        _refuse_negatives(options["negatives"], options)
        own = ("backend", "cost", "negatives", "rho_image", "rho_audio", "temperature")
        refuse_clash(options["backend"], {k: v for k, v in options.items() if k not in own})

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
        if self.backend != "sinkhorn" or self.cost is not cosine_cost:
            cost = self.cost(image, audio, image_mask, audio_mask)
            return self.solver(cost, image_weights, audio_weights, image_mask, audio_mask)
        return cosine_sinkhorn(
            image,
            audio,
            image_weights,
            audio_weights,
            image_mask,
            audio_mask,
            epsilon=self.epsilon,
            iterations=self.iterations,
            tolerance=self.tolerance,
            value=self.value,
            engine=self.engine or "auto",
            products=self.products or "auto",
            upstream=1 / max(len(image), 1) if self.reduction == "mean" else 1.0,
        )

    def terms(
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
        if self.contrastive is not None:
            return self.contrastive.terms(
                image,
                audio,
                image_mask,
                audio_mask,
                has_image,
                has_audio,
                image_weights=image_weights,
                audio_weights=audio_weights,
            )
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


def _refuse_negatives(negatives: str, options: Mapping[str, Any]) -> None:
    """ValueError where an option is for negatives of a batch and there are none, or cannot go with them."""
    if negatives not in ("none", "batch"):
        raise ValueError(f"AVOpT: negatives must be 'none' or 'batch', not {negatives!r}")
    if negatives == "none":
        for name in ("rho_image", "rho_audio", "temperature"):
            if options[name] is not None:
                raise ValueError(f"AVOpT: {name!r} is for negatives 'batch'")
    elif (options["backend"], options["cost"], options["value"]) != ("sinkhorn", "cosine", "dual"):
        raise ValueError(
            "AVOpT: negatives 'batch' are for backend 'sinkhorn', cost 'cosine' and value 'dual' (with "
            "rho_image and rho_audio where marginals may be missed)"
        )
    elif options["engine"] not in (None, "auto", "c++", "torch") or options["products"] not in (None, "auto"):
        raise ValueError("AVOpT: negatives 'batch' run on engine 'c++' or 'torch', with products in float32")
