"""More of what holds for every solver."""

from __future__ import annotations

import pytest
import torch

from avalign.kernels.cpu import engine as cpu
from avalign.ot import (
    TransportError,
    cosine_cost,
    cosine_sinkhorn,
    exact,
    sinkhorn,
)
from tests.helpers.transport import random_cost


def bad(**changes: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"cost": random_cost(3, 4, 2)} | changes


def bad_cost(item: int, entry: float) -> dict[str, torch.Tensor]:
    return bad(cost=random_cost(3, 4, 2).index_fill(0, torch.tensor([item]), entry))


def bad_target(second: float, third: float) -> dict[str, torch.Tensor]:
    return bad(target=torch.tensor([[0.5, 0.5], [1.0 - second, second], [third, 1.0 - third]]))


half = torch.tensor([[True, True], [False, False], [True, True]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (bad(cost=random_cost(4, 2)), r"\(batch, n, m\), got shape \(4, 2\)"),
        (bad(cost=random_cost(3, 4, 0)), "target has no entry"),
        (bad(target_mask=half), r"target: every entry is masked in item\(s\) \[1\]"),
        (bad(target_mask=half[:2]), r"target_mask must be bool of shape \(3, 2\)"),
        (bad(target_mask=half.int()), "target_mask must be bool"),
        (bad(target=torch.ones(3, 2) * 0.4), r"target must sum to 1.*\[0, 1, 2\] sum to \[0.8, 0.8, 0.8\]"),
        (bad_target(0.5, 1.5), r"not negative: see item\(s\) \[2\]"),
        (bad_target(torch.nan, 0.5), r"finite.*item\(s\) \[1\]"),
        (bad(source=torch.ones(3, 3) / 3), r"source must have shape \(3, 4\), got \(3, 3\)"),
        (bad_cost(2, torch.nan), r"NaN or infinity in item\(s\) \[2\]"),
        (bad_cost(0, torch.inf), r"NaN or infinity in item\(s\) \[0\]"),
    ],
)
@pytest.mark.parametrize("solver", [sinkhorn, exact])
def test_a_problem_without_an_answer_is_named(solver, arguments: dict, message: str) -> None:
    with pytest.raises(TransportError, match=message):
        solver(**arguments)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epsilon": 0}, "epsilon must be above 0, got 0"),
        ({"epsilon": -1.0}, "epsilon must be above 0"),
        ({"epsilon": float("nan")}, "epsilon must be above 0"),
        ({"iterations": 0}, "iterations must be at least 1"),
        ({"tolerance": 0.0}, "tolerance must be above 0"),
        ({"value": "duel"}, "'primal' or 'entropic', not 'duel'"),
    ],
)
def test_a_setting_that_solves_nothing_is_named(settings: dict, message: str) -> None:
    with pytest.raises(TransportError, match=message):
        sinkhorn(random_cost(1, 2, 2), **settings)


@pytest.mark.parametrize("shapes", [((2, 3), (2, 3)), ((1, 2, 3), (2, 2, 3)), ((1, 2, 3), (1, 2, 4))])
def test_features_that_do_not_fit_are_named(shapes) -> None:
    with pytest.raises(TransportError, match=r"\(b, n, d\) and \(b, m, d\)"):
        cosine_cost(*(torch.ones(shape) for shape in shapes))


@pytest.mark.parametrize("engine", ["torch", "c++"])
def test_an_epsilon_that_float32_cannot_tell_is_refused(engine: str) -> None:
    """Its iterations would call themselves converged, with marginals off by any amount."""
    if engine == "c++" and cpu.why_unavailable() is not None:
        pytest.skip("no compiler")
    cost = torch.rand(2, 8, 6, generator=torch.Generator().manual_seed(0))
    features = (torch.randn(2, k, 4, generator=torch.Generator().manual_seed(k)) for k in (8, 6))
    x, y = features
    for solve, words in ((sinkhorn, (cost,)), (cosine_sinkhorn, (x, y))):
        with pytest.raises(TransportError, match="too small for float32 beside costs or potentials of"):
            solve(*words, epsilon=1e-9, engine=engine)
        plan = solve(*words, epsilon=1e-4, engine=engine)
        off = (plan.matrix.sum(2) - 1 / 8).abs().sum(1).max(), (plan.matrix.sum(1) - 1 / 6).abs().sum(1).max()
        assert max(off) < 3e-3
    assert sinkhorn(cost.double(), epsilon=1e-9).converged.all()
