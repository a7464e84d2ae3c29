"""docs/transport.md's table: by which parameters other libraries have the plan of all_pairs, or have not."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import numpy as np
import ot as pot
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from avalign.ot import all_pairs, cosine_cost
from tests.helpers.strategies import generator

EPSILON, PRICE, INF = 0.1, 0.05, math.inf
X, Y = (torch.randn(1, k, 5, generator=generator(k), dtype=torch.float64) for k in (7, 4))
COST = cosine_cost(X, Y)[0]
PRICES = [(INF, INF), (PRICE, INF), (PRICE, PRICE), (0.0, INF)]


def plan(rho_source: float, rho_target: float) -> Tensor:
    found = all_pairs(
        X,
        Y,
        epsilon=EPSILON,
        rho_source=rho_source,
        rho_target=rho_target,
        tolerance=1e-11,
        iterations=50_000,
    )
    return found.plan(0, 0)


@pytest.mark.parametrize(("rho_source", "rho_target"), PRICES[:3])
def test_pot(rho_source: float, rho_target: float) -> None:
    a, b = np.full(7, 1 / 7), np.full(4, 1 / 4)
    exact: dict[str, Any] = {"numItermax": 50_000, "stopThr": 1e-13}
    if rho_source == INF:
        theirs = pot.sinkhorn(a, b, COST.numpy(), EPSILON, **exact)
    else:
        theirs = pot.unbalanced.sinkhorn_unbalanced(
            a, b, COST.numpy(), EPSILON, (rho_source, rho_target), reg_type="kl", c=np.outer(a, b), **exact
        )
    torch.testing.assert_close(plan(rho_source, rho_target), torch.from_numpy(theirs), atol=1e-9, rtol=0)


@pytest.mark.parametrize("reach", [None, PRICE])
def test_geomloss(reach: float | None) -> None:
    """At p = 1, where its cost is ours and its reach the price; it stops where it stops."""
    from geomloss import SamplesLoss

    def cost(x: Tensor, y: Tensor) -> Tensor:
        return 1 - F.normalize(x, dim=-1) @ F.normalize(y, dim=-1).mT

    loss = SamplesLoss(
        "sinkhorn", p=1, blur=EPSILON, reach=reach, debias=False, cost=cost, scaling=0.999,
        backend="tensorized", potentials=True,
    )  # fmt: skip
    f, g = loss(X, Y)
    theirs = ((f[0][:, None] + g[0][None] - COST) / EPSILON).exp() / 28
    price = INF if reach is None else reach
    torch.testing.assert_close(plan(price, price), theirs, atol=1e-3, rtol=0)


OTT = """
import json, sys
import jax, numpy
from ott.geometry import geometry
from ott.problems.linear import linear_problem
from ott.solvers.linear import sinkhorn
cost, epsilon, taus = json.load(sys.stdin)
cost = geometry.Geometry(cost_matrix=jax.numpy.array(cost), epsilon=epsilon)
solve = sinkhorn.Sinkhorn(threshold=1e-6, max_iterations=5000)
plans = [solve(linear_problem.LinearProblem(cost, tau_a=a, tau_b=b)).matrix for a, b in taus]
print(json.dumps([numpy.array(plan).tolist() for plan in plans]))
"""


@pytest.mark.skipif(find_spec("ott") is None, reason="needs pip install avalign[bench]")
def test_ott() -> None:
    """Its entropy is plain, ours relative to the marginals: with both at a price the plans are far apart."""
    taus = [[1.0 if rho == INF else rho / (rho + EPSILON) for rho in prices] for prices in PRICES]
    given = json.dumps([COST.tolist(), EPSILON, taus])
    command = [sys.executable, "-c", OTT]  # jax has threads: no process that forks may import it
    said = subprocess.run(command, input=given, check=True, capture_output=True, text=True).stdout
    for prices, theirs in zip(PRICES, torch.tensor(json.loads(said), dtype=torch.float64), strict=True):
        if prices == (PRICE, PRICE):
            assert theirs.sum() > 4 * plan(*prices).sum()
        else:
            torch.testing.assert_close(plan(*prices), theirs, atol=1e-4, rtol=0)
