"""What people write themselves: autograd through Sinkhorn's iterations, and the IPOT that Meerkat
released."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from avalign.bench.competitor import Competitor, Ready, Settings, Unavailable, cosine, torch_ready
from avalign.bench.inputs import Features
from avalign.bench.machine import free_memory

LOOK_EVERY = 10  # iterations
IPOT_ITERATIONS, IPOT_BETA, IPOT_THRESHOLD = 30, 0.5, 0.1


def _autograd(features: Features, settings: Settings) -> Ready:
    """Iterations on logarithms; the value is differentiated through all of them."""

    def iterations(cost: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
        scores = -cost / settings.epsilon
        log_a, log_b = -math.log(cost.shape[1]), -math.log(cost.shape[2])
        v = torch.zeros_like(cost[:, 0])
        for done in range(1, settings.most_iterations + 1):
            u = log_a - (scores + v[:, None, :]).logsumexp(2)
            v = log_b - (scores + u[:, :, None]).logsumexp(1)
            if settings.tolerance is not None and done % LOOK_EVERY == 0:
                with torch.no_grad():
                    rows = (u + (scores + v[:, None, :]).logsumexp(2)).exp()
                    if ((rows - 1 / cost.shape[1]).abs().sum(1) <= settings.tolerance).all():
                        break
        return scores, u, v, done

    def loss(image: Tensor, audio: Tensor) -> Tensor:
        _, u, v, _ = iterations(cosine(image, audio))
        constant = math.log(features.shape.n) + math.log(features.shape.m)
        return settings.epsilon * (u.mean(1) + v.mean(1) + constant)

    def plan() -> Tensor:
        with torch.no_grad():
            scores, u, v, _ = iterations(cosine(features.image, features.audio))
            return (scores + u[:, :, None] + v[:, None, :]).exp()

    with torch.no_grad():
        _, _, _, done = iterations(cosine(features.image, features.audio))
    b, n, m, _ = features.shape.sizes
    _check_memory(done * 2 * b * n * m * 4, features.image.device)
    return torch_ready(loss, features, plan, value_of="dual", engine="torch", iterations=float(done))


def _check_memory(needed: int, device: torch.device) -> None:
    """Each half iteration keeps its scores for the way back; better a row that says so than a killed
    process."""
    free = free_memory(device)
    if free is None:
        return
    if needed > 0.5 * free:  # the way back has intermediates of its own
        raise Unavailable(
            f"keeps about {needed / 2**30:.1f} GiB for the way back; {free / 2**30:.1f} GiB are free"
        )


def _ipot(features: Features, settings: Settings) -> Ready:
    """As released: one threshold for the whole batch, 30 proximal iterations, all of them differentiated.

    Source: Meerkat, arXiv:2407.01851, whose code has it from Xie et al., arXiv:1802.04307
    """

    def thresholded(image: Tensor, audio: Tensor) -> Tensor:
        cost = cosine(image, audio)
        least, most = cost.min(), cost.max()
        return torch.relu(cost - (least + IPOT_THRESHOLD * (most - least)))

    def plan_of(cost: Tensor) -> Tensor:
        b, n, m = cost.shape
        sigma, plan = cost.new_full((b, m, 1), 1 / m), torch.ones_like(cost)
        step = torch.exp(-cost / IPOT_BETA)
        for _ in range(IPOT_ITERATIONS):
            q = step * plan
            delta = 1 / (n * torch.bmm(q, sigma))
            sigma = 1 / (m * torch.bmm(q.transpose(1, 2), delta))
            plan = delta * q * sigma.transpose(1, 2)
        return plan

    def loss(image: Tensor, audio: Tensor) -> Tensor:
        cost = thresholded(image, audio)
        product = torch.bmm(cost.transpose(1, 2), plan_of(cost))  # (b, m, m), of which the trace is taken
        return (torch.eye(product.shape[1], device=product.device) * product).sum((1, 2))

    def plan() -> Tensor:
        with torch.no_grad():
            return plan_of(thresholded(features.image, features.audio))

    return torch_ready(
        loss,
        features,
        plan,
        value_of="exact",
        engine="torch",
        notes=(
            f"{IPOT_ITERATIONS} iterations at beta {IPOT_BETA} whatever is asked for; its cost is "
            "thresholded over the batch, so it is another loss: its errors are against the exact cost",
        ),
        iterations=float(IPOT_ITERATIONS),
    )


PLAIN = [
    Competitor("autograd", "autograd through iterations on logarithms, in torch", _autograd),
    Competitor("meerkat-ipot", "the IPOT of Meerkat's released code", _ipot),
]
