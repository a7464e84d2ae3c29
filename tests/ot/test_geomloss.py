"""geomloss as a back end: its potentials, our evidence. Skipped where geomloss is not installed."""

from __future__ import annotations

import builtins
import importlib.util

import pytest
import torch
from torch import Tensor

from avalign.ot import TransportError, by_geomloss, sinkhorn
from tests.helpers.strategies import generator
from tests.helpers.tolerances import assert_close

installed = pytest.mark.skipif(
    importlib.util.find_spec("geomloss") is None, reason="geomloss is not installed"
)


TIGHT = {"tolerance": 1e-9, "iterations": 5000}


def random_cost(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=generator(seed), dtype=torch.float64)


@installed
class TestGeomloss:
    @pytest.mark.parametrize("diameter", [None, 1.0])
    def test_run_slowly_it_is_sinkhorn(self, diameter: float | None) -> None:
        cost, mask = random_cost(2, 6, 4), torch.ones(2, 6, dtype=torch.bool)
        mask[0, 2:4] = False
        for value in ("dual", "primal"):
            settings = {"source_mask": mask, "epsilon": 0.3, "value": value}
            ours = sinkhorn(cost, **settings, **TIGHT)
            theirs = by_geomloss(cost, **settings, scaling=0.99, diameter=diameter)
            assert theirs.engine == "geomloss"
            assert_close(theirs.value, ours.value, torch.float32)
            assert (theirs.matrix - ours.matrix).abs().max() < 1e-3
            assert theirs.converged.all()

    def test_at_its_default_it_says_how_far_off_it_is(self) -> None:
        cost = random_cost(3, 40, 30)
        plan = by_geomloss(cost, epsilon=0.02)
        off = (plan.matrix.sum(2) - 1 / 40).abs().sum(1) + (plan.matrix.sum(1) - 1 / 30).abs().sum(1)
        assert_close(plan.marginal_error, off)
        assert not plan.converged.any()
        best = sinkhorn(cost, epsilon=0.02, tolerance=1e-6, iterations=9000)
        assert (plan.value < best.value).all(), "a dual value off its optimum is below it"
        assert (plan.lower <= best.lower + 0.1).all()
        assert (plan.lower <= best.upper).all()
        assert (plan.upper >= best.lower).all()

    def test_it_counts_geomloss_iterations(self) -> None:
        """One to begin with, one at each epsilon, one to end with."""
        from geomloss._legacy.sinkhorn_divergence import epsilon_schedule

        for width, epsilon, scaling in ((2.0, 0.05, 0.5), (0.3, 0.01, 0.9), (0.9, 1.0, 0.5)):
            cost = torch.tensor([[[0.0, width]]])
            plan = by_geomloss(cost, epsilon=epsilon, scaling=scaling)
            schedule = epsilon_schedule(1, max(width, epsilon), epsilon, scaling)
            assert plan.iterations.tolist() == [len(schedule) + 2]

    def test_an_item_does_not_depend_on_its_neighbours(self) -> None:
        cost = random_cost(3, 6, 4) * torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64)[:, None, None]
        for diameter in (None, 10.0):
            together = by_geomloss(cost, diameter=diameter)
            for k in range(3):
                alone = by_geomloss(cost[k : k + 1], diameter=diameter)
                assert_close(together.value[k], alone.value[0])
                assert together.iterations[k] == alone.iterations[0]

    @pytest.mark.parametrize("value", ["dual", "primal"])
    def test_its_gradient_is_sinkhorns_as_far_as_it_converged(self, value: str) -> None:
        """geomloss's own, to a cost, would be twice the plan: it differentiates each potential's side."""
        slopes = []
        for solve, more in ((sinkhorn, TIGHT), (by_geomloss, {"scaling": 0.998, "diameter": 1.0})):
            inputs = [x.requires_grad_() for x in (random_cost(2, 6, 4), random_cost(2, 6, seed=1))]
            plan = solve(inputs[0], inputs[1].softmax(1), epsilon=0.3, value=value, **more)
            slopes.append(torch.autograd.grad(plan.value @ plan.value.new_tensor([1.0, -3.0]), inputs))
        for right, found in zip(*slopes, strict=True):
            assert (found - right).norm() < 1e-3 * right.norm()

    def test_one_cost_for_all_has_no_width_and_an_answer(self) -> None:
        plan = by_geomloss(torch.full((1, 3, 2), 0.7, dtype=torch.float64))
        assert_close(plan.value, [0.7])
        assert_close(plan.matrix, torch.full((1, 3, 2), 1 / 6, dtype=torch.float64))

    def test_it_leaves_gradients_switched_as_they_were(self) -> None:
        """geomloss switches them on when it is done, whoever had switched them off."""
        with torch.no_grad():
            plan = by_geomloss(random_cost(1, 3, 2))
            assert not torch.is_grad_enabled()
        assert not plan.value.requires_grad


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scaling": 1.0}, "scaling must be above 0 and below 1, got 1.0"),
        ({"diameter": 0.0}, "diameter must be above 0 and finite, or None, got 0.0"),
        ({"epsilon": 0.0}, "epsilon must be above 0"),
    ],
)
def test_a_setting_that_solves_nothing_is_named(settings: dict, message: str) -> None:
    with pytest.raises(TransportError, match=message):
        by_geomloss(random_cost(2, 3, 3), **settings)


def test_without_it_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *arguments, **more):
        if name == "geomloss":
            raise ModuleNotFoundError("no module named geomloss", name=name)
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ImportError, match="pip install geomloss"):
        by_geomloss(random_cost(1, 2, 2))
