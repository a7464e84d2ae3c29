"""OTT-JAX: jitted, mapped over the batch, value and gradient at once, with kernel products or on logarithms.

Its threshold is the L1 error of one marginal of total mass 1, as ours, looked at every 10 iterations
(inner_iterations, its default); an item that is done waits for the worst, as vmap's loops do. The
gradient is Danskin's, its default.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from avalign.bench.competitor import Answer, Competitor, Ready, Settings, Unavailable
from avalign.bench.inputs import Features
from avalign.bench.machine import all_cores

INNER_ITERATIONS = 10


def _ott(features: Features, settings: Settings, log_domain: bool) -> Ready:
    jax = _started()

    wanted, runs_on = features.image.device.type, jax.default_backend().replace("gpu", "cuda")
    if wanted != runs_on:
        raise Unavailable(f"jax runs on {runs_on}, the features lie on {wanted}: pip install 'jax[cuda13]'")
    solve = _solver(settings, log_domain)

    def loss(image: Any, audio: Any) -> Any:
        value, (plan, iterations) = jax.vmap(solve)(image, audio)
        return value.mean(), (value, plan, iterations)

    def without_plan(image: Any, audio: Any) -> Any:
        mean, (value, _, _) = loss(image, audio)
        return mean, value

    values = jax.jit(lambda image, audio: without_plan(image, audio)[1])
    gradients = jax.jit(jax.value_and_grad(without_plan, argnums=(0, 1), has_aux=True))
    plans = jax.jit(lambda image, audio: loss(image, audio)[1])
    image, audio = (_array(side) for side in (features.image, features.audio))

    def step() -> Any:
        return jax.block_until_ready(gradients(image, audio))

    def answer() -> Answer:
        (_, value), (to_image, to_audio) = step()
        return Answer(*(_tensor(each, features.image) for each in (value, to_image, to_audio)))

    _, _, iterations = plans(image, audio)
    return Ready(
        forward=lambda: jax.block_until_ready(values(image, audio)),
        step=step,
        answer=answer,
        plan=lambda: _tensor(plans(image, audio)[1], features.image),
        value_of="dual",
        engine="jax",
        iterations=float(iterations.mean()) if settings.iterations is None else float(settings.iterations),
    )


@cache
def _started() -> Any:
    """jax, with as many threads as torch has, on the cores that torch's threads are on."""
    os.environ.setdefault("NPROC", str(torch.get_num_threads()))  # read once, when the threads start
    with all_cores():
        import jax

        jax.jit(lambda x: x @ x)(jax.numpy.ones((256, 256))).block_until_ready()
    return jax


def _solver(settings: Settings, log_domain: bool) -> Callable[[Any, Any], Any]:
    """(n, d), (m, d) -> value, (plan (n, m), iterations)"""
    import jax.numpy as jnp
    from ott.geometry import geometry
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import sinkhorn

    if settings.tolerance is None:  # equal least and most iterations: a scan, without a look at the error
        solver = sinkhorn.Sinkhorn(
            lse_mode=log_domain,
            threshold=0.0,
            min_iterations=settings.most_iterations,
            max_iterations=settings.most_iterations,
            inner_iterations=settings.most_iterations,
        )
    else:
        solver = sinkhorn.Sinkhorn(
            lse_mode=log_domain,
            threshold=settings.tolerance,
            max_iterations=settings.most_iterations,
            inner_iterations=INNER_ITERATIONS,
        )

    def solve(image: Any, audio: Any) -> Any:
        image, audio = (side.astype(jnp.float32) for side in (image, audio))
        image, audio = (side / jnp.linalg.norm(side, axis=1, keepdims=True) for side in (image, audio))
        cost = 1 - jnp.matmul(image, audio.T, precision="highest")  # not rounded to TF32 on a GPU
        found = solver(linear_problem.LinearProblem(geometry.Geometry(cost, epsilon=settings.epsilon)))
        return found.reg_ot_cost, (found.matrix, found.n_iters)

    return solve


def _array(tensor: Tensor) -> Any:
    """As a jax array of the same dtype; by way of float32, as numpy has no bfloat16."""
    import jax.numpy as jnp

    dtype = str(tensor.dtype).removeprefix("torch.")
    return jnp.asarray(tensor.float().cpu().numpy()).astype(dtype)


def _tensor(array: Any, like: Tensor) -> Tensor:
    import numpy as np

    return torch.from_numpy(np.array(array.astype("float32"))).to(like.device)


OTT = [
    Competitor(
        f"ott-{name}",
        f"OTT-JAX, jit of vmap, {about}",
        partial(_ott, log_domain=log),
        modules=("jax", "ott"),
        install="ott-jax",
        process="jax",
    )
    for name, about, log in (("kernel", "kernel products", False), ("log", "on logarithms", True))
]
