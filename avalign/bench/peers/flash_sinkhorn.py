"""FlashSinkhorn: Triton kernels for the squared Euclidean cost, which on unit vectors, halved, is 1 - cos.

Its threshold is on the change of the potentials and bounds no marginal error; with a tolerance the iterations
are the first of a growing ladder whose plan is within it. Its batches are a loop over items.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from avalign.bench.competitor import (
    Competitor,
    Ready,
    Settings,
    Unavailable,
    cosine,
    first_within,
    torch_ready,
)
from avalign.bench.inputs import Features

FEWEST, GROWTH = 10, 1.3  # of the ladder


def _samples_loss(features: Features, settings: Settings) -> Ready:
    if features.image.device.type != "cuda":
        raise Unavailable("its kernels need a GPU: --device cuda")
    from flash_sinkhorn import SamplesLoss

    def samples_loss(iterations: int, potentials: bool = False) -> torch.nn.Module:
        return SamplesLoss(
            "sinkhorn",
            blur=math.sqrt(settings.epsilon),
            eps=settings.epsilon,
            n_iters=iterations,
            use_epsilon_scaling=False,
            backend="alternating",
            half_cost=True,
            debias=False,
            potentials=potentials,
            allow_tf32=False,
        )

    def units(image: Tensor, audio: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.nn.functional.normalize(side.float(), dim=-1) for side in (image, audio))

    def plan(iterations: int) -> Tensor:
        with torch.no_grad():
            f, g = samples_loss(iterations, potentials=True)(*units(features.image, features.audio))
            cost = cosine(features.image, features.audio)
            exponent = (f[:, :, None] + g[:, None, :] - cost) / settings.epsilon
        return exponent.exp() / (features.shape.n * features.shape.m)

    iterations, notes = settings.most_iterations, []
    if settings.tolerance is not None:
        ladder = [FEWEST]
        while ladder[-1] < settings.most_iterations:
            ladder.append(math.ceil(ladder[-1] * GROWTH))
        iterations, error = first_within(settings.tolerance, ladder, plan)
        notes.append(
            f"its threshold bounds no marginal error: {iterations} iterations were chosen beforehand"
        )
        if not error <= settings.tolerance:
            notes.append("which does not reach the tolerance")
    loss = samples_loss(iterations)
    return torch_ready(
        lambda image, audio: loss(*units(image, audio)),
        features,
        lambda: plan(iterations),
        value_of="dual",
        engine="triton",
        notes=tuple(notes),
        iterations=float(iterations),
    )


FLASH_SINKHORN = [
    Competitor(
        "flash-sinkhorn",
        "FlashSinkhorn's SamplesLoss, alternating, float32",
        _samples_loss,
        modules=("flash_sinkhorn",),
        install="flash-sinkhorn",
    )
]
