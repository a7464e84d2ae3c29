"""avalign's own losses as competitors, by engine and by the precision of the products."""

from __future__ import annotations

from functools import partial
from typing import get_args

import torch
from torch import Tensor

from avalign.bench.competitor import Competitor, Ready, Settings, Unavailable, torch_ready
from avalign.bench.inputs import Features
from avalign.ot import Plan, TransportError, cosine_cost, cosine_sinkhorn, exact
from avalign.ot.engine import Engine, tier_of
from avalign.ot.features import Products

_BF16_NOTE = "its potentials are of the bfloat16 cost, its plan and so the marginal error of the float32 one"


def _sinkhorn(features: Features, settings: Settings, engine: Engine, products: Products) -> Ready:
    def solve(image: Tensor, audio: Tensor) -> Plan:
        return cosine_sinkhorn(
            image,
            audio,
            epsilon=settings.epsilon,
            tolerance=settings.tolerance,
            iterations=settings.most_iterations,
            engine=engine,
            products=products,
            upstream=1 / len(image),  # of the mean, as AVOpT tells it
        )

    try:
        plan = solve(features.image, features.audio)
    except TransportError as error:
        raise Unavailable(str(error)) from error
    if engine not in ("auto", plan.engine, plan.engine.partition("-")[0]):
        raise Unavailable(f"asked for {engine}, the solver ran {plan.engine}")
    halves = products == "bfloat16" or (products == "auto" and features.image.dtype == torch.bfloat16)
    halves = halves and plan.engine != "torch"
    return torch_ready(
        lambda image, audio: solve(image, audio).value,
        features,
        lambda: solve(features.image, features.audio).matrix,
        value_of="dual",
        engine=plan.engine,
        products="bfloat16" if halves else "float32",
        notes=(_BF16_NOTE,) if halves else (),
        iterations=float(plan.iterations.double().mean()),
        converged=None if settings.tolerance is None else float(plan.converged.double().mean()),
    )


def _exact(features: Features, settings: Settings) -> Ready:
    def solve(image: Tensor, audio: Tensor) -> Plan:
        return exact(cosine_cost(image, audio))

    return torch_ready(
        lambda image, audio: solve(image, audio).value,
        features,
        lambda: solve(features.image, features.audio).matrix,
        value_of="exact",
        engine="pot",
        notes=("the unsmoothed problem; errors are against its float64 solution",),
    )


def _all() -> list[Competitor]:
    found = [
        Competitor(
            "sinkhorn",
            "cosine_sinkhorn, engine auto",
            partial(_sinkhorn, engine="auto", products="auto"),
            ours=True,
        )
    ]
    for engine in get_args(Engine):
        if engine == "auto":
            continue
        products: Products = "auto" if tier_of(engine) else "float32"
        found.append(
            Competitor(
                f"sinkhorn-{engine}",
                f"cosine_sinkhorn on the {engine} engine",
                partial(_sinkhorn, engine=engine, products=products),
                ours=True,
            )
        )
        if engine != "torch" and not tier_of(engine):
            found.append(
                Competitor(
                    f"sinkhorn-{engine}-bf16",
                    f"the same, products in bfloat16, engine {engine}",
                    partial(_sinkhorn, engine=engine, products="bfloat16"),
                    ours=True,
                )
            )
    found.append(Competitor("exact", "the network simplex, avalign.ot.exact", _exact, ours=True))
    return found


OURS = _all()
