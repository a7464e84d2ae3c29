"""GeomLoss: SamplesLoss with the cosine cost, not debiased.

It has no stopping rule: epsilon falls from the cost's largest value, 2, to the one asked for, by the same
factor each iteration, and there it makes one more. How many iterations that takes follows from `scaling`;
with a tolerance it is the first of a growing ladder whose plan is within it, and where none is, the scaling
that its manual calls accurate.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from avalign.bench.competitor import Competitor, Ready, Settings, cosine, first_within, torch_ready
from avalign.bench.inputs import Features

LARGEST_COST = 2.0
FEWEST, GROWTH = 8, 1.3  # of the ladder
MOST = 400  # iterations
ACCURATE = 0.9  # the scaling from which its manual speaks of accuracy


def _samples_loss(features: Features, settings: Settings) -> Ready:
    from geomloss import SamplesLoss

    b, n, m, _ = features.shape.sizes
    weights = tuple(torch.full((b, k), 1 / k, device=features.image.device) for k in (n, m))

    def samples_loss(iterations: int, potentials: bool = False) -> torch.nn.Module:
        # One iteration at 2, `iterations - 3` on the way (2 among them), one at epsilon, and one with the
        # gradient.
        steps = max(1, iterations - 3)
        return SamplesLoss(
            "sinkhorn",
            p=2,
            blur=math.sqrt(settings.epsilon),
            diameter=math.sqrt(LARGEST_COST),
            scaling=(settings.epsilon / LARGEST_COST) ** (0.5 / steps),
            cost=cosine,
            debias=False,
            potentials=potentials,
            backend="tensorized",
        )

    def plan(iterations: int) -> Tensor:
        image, audio = features.image.float(), features.audio.float()
        with torch.no_grad():
            f, g = samples_loss(iterations, potentials=True)(weights[0], image, weights[1], audio)
            f, g = (side.detach() for side in (f, g))
            exponent = (f[:, :, None] + g[:, None, :] - cosine(image, audio)) / settings.epsilon
        return exponent.exp() / (n * m)

    iterations, notes = settings.most_iterations, []
    if settings.tolerance is not None:
        ladder = [FEWEST]
        while ladder[-1] < MOST:
            ladder.append(math.ceil(ladder[-1] * GROWTH))
        iterations, error = first_within(settings.tolerance, ladder, plan)
        if error <= settings.tolerance:
            notes.append(f"no stopping rule: {iterations} iterations were chosen beforehand")
        else:
            notes.append(
                f"not within the tolerance even after {iterations} iterations; this is scaling {ACCURATE}"
            )
            iterations = 3 + math.ceil(math.log(settings.epsilon / LARGEST_COST) / (2 * math.log(ACCURATE)))
    loss = samples_loss(iterations)
    return torch_ready(
        lambda image, audio: loss(weights[0], image.float(), weights[1], audio.float()),
        features,
        lambda: plan(iterations),
        value_of="dual",
        engine="torch",
        notes=tuple(notes),
        iterations=float(iterations),
    )


GEOMLOSS = [
    Competitor(
        "geomloss",
        "SamplesLoss, tensorized, not debiased",
        _samples_loss,
        modules=("geomloss",),
        install="geomloss",
    )
]
