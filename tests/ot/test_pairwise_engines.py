"""The engines of all pairs agree; blocks, and pairs that are left out, change nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from avalign.ot import TransportError, all_pairs
from avalign.ot import pairwise as room
from avalign.ot import pairwise_engine as engines
from tests.helpers.strategies import generator
from tests.helpers.token_sets import ENGINES, PRICES, sets
from tests.helpers.tolerances import assert_close


class TestEngines:
    @pytest.mark.parametrize(
        "shape", [(3, 4, 41, 13, 20), (1, 5, 16, 16, 8), (2, 1, 33, 1, 5), (2, 3, 1, 40, 3)]
    )
    @pytest.mark.parametrize(("rho_source", "rho_target"), PRICES)
    def test_agree_on_values_potentials_and_gradients(
        self, shape: tuple[int, ...], rho_source: float, rho_target: float
    ) -> None:
        """Odd shapes, masks, weights, and a non-unit upstream gradient that is 0 for some."""
        inputs = sets(12, *shape)
        upstream = torch.randn(shape[:2], generator=generator(3), dtype=torch.float64)
        upstream[0, 0] = 0
        found = []
        for engine, dtype in ENGINES:
            x, y, source, target, *masks = inputs.to(dtype)
            leaves = [each.requires_grad_() for each in (x, y, source, target)]
            got = all_pairs(
                *leaves, *masks, epsilon=0.1, rho_source=rho_source, rho_target=rho_target, tolerance=1e-5,
                iterations=5000, engine=engine,
            )  # fmt: skip
            assert got.engine == engine
            assert got.converged.all()
            slopes = torch.autograd.grad((got.value * upstream.to(dtype)).sum(), leaves)
            found.append((got.value, got.f, got.g, *slopes))
        for other in found[:2]:
            for one, two in zip(other, found[2], strict=True):
                torch.testing.assert_close(one.double(), two, atol=1e-4, rtol=1e-3)

    def test_a_pair_beyond_a_floats_range_is_solved_in_the_log_domain(self) -> None:
        """Masses of 1e-12, all of it 2 away: sums of 1e-41. Its neighbours, near, stay where they are."""
        x = torch.tensor([[[1.0, 0.0]], [[-1.0, 0.0]]])
        y = torch.tensor([[[-1.0, 0.0]], [[-1.0, 0.1]]])
        mass = torch.full((2, 1), 1e-12)
        prices = {"epsilon": 0.03, "rho_source": 0.5, "rho_target": 0.5}
        fused = all_pairs(x, y, mass, mass, **prices, engine="c++")
        real = all_pairs(x.double(), y.double(), mass.double(), mass.double(), **prices)
        torch.testing.assert_close(fused.f.double(), real.f, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(fused.value.double(), real.value, atol=0, rtol=1e-4)
        raw = engines.cpu.solve(
            (x[:, 0] @ torch.nn.functional.normalize(y, dim=2)[:, 0].T).contiguous(), mass, mass, None,
            engines.Settings(0.03, 0.5, 0.5, 100, 1e-3, "c++"),
        )  # fmt: skip
        assert raw[4].tolist()[0] == [-1, -1]
        assert (raw[4][1] > 0).all()

    def test_an_engine_that_cannot_run_is_an_error_that_says_why(self) -> None:
        x, y, *_ = sets(13).to(torch.float64)
        with pytest.raises(TransportError, match="the input is float64"):
            all_pairs(x, y, engine="c++")
        with pytest.raises(TransportError, match=r"takes an epsilon of 0\.03 or above"):
            all_pairs(x.float(), y.float(), epsilon=0.02, engine="c++")
        with pytest.raises(TransportError, match="one of auto, c\\+\\+, torch, not 'cuda'"):
            all_pairs(x, y, engine="cuda")  # type: ignore[arg-type]
        assert all_pairs(x.float(), y.float(), epsilon=0.02).engine == "torch"
        assert all_pairs(x.float(), y.float()).engine == "c++"


@pytest.mark.parametrize("engine", ["c++", "torch"])
class TestBlocks:
    def gradients(self, engine: str, upstream: Tensor) -> tuple[Tensor, ...]:
        x, y, source, target, *masks = sets(14, r=5, c=6).to(torch.float32)
        leaves = [each.requires_grad_() for each in (x, y, source, target)]
        found = all_pairs(*leaves, *masks, epsilon=0.1, rho_source=0.05, engine=engine)  # type: ignore[arg-type]
        return (found.value, *torch.autograd.grad((found.value * upstream).sum(), leaves))

    def test_of_any_size_saved_or_made_again_give_the_same(
        self, engine: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        upstream = torch.randn(5, 6, generator=generator(4))
        all_at_once = self.gradients(engine, upstream)
        for block, saved in ((1, room.SAVED), (room.BLOCK, 0), (2 * 5 * 6 * 3 * 4, 0)):
            monkeypatch.setattr(room, "BLOCK", block)
            monkeypatch.setattr(room, "SAVED", saved)
            for one, two in zip(self.gradients(engine, upstream), all_at_once, strict=True):
                assert_close(one, two, torch.float32)

    def test_pairs_without_an_upstream_gradient_cost_nothing_and_change_nothing(
        self, engine: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        upstream = torch.zeros(5, 6)
        upstream[1, 2], upstream[3, 5], upstream[4] = 2.0, -1.0, 1.0
        upstream[0, 0] = 1e-9  # together below 6e-8 of all
        solved = []
        plan = engines.plan

        def counted(inputs: engines.Inputs, *rest: Any) -> Any:
            solved.append((len(inputs.source), len(inputs.target)))
            return plan(inputs, *rest)

        monkeypatch.setattr(engines, "plan", counted)
        few = self.gradients(engine, upstream)
        assert solved == [(1, 1), (1, 1), (1, 6)]
        monkeypatch.setattr(engines, "DENSE", -1.0)
        for one, two in zip(few, self.gradients(engine, upstream), strict=True):
            assert_close(one, two, torch.float32)
