"""The fused engine against the torch engine in float64: the same iterations, in less time and fewer bits."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from avalign.bench.inputs import Shape, generate
from avalign.kernels.cpu import engine as cpu
from avalign.losses import AVOpT
from avalign.ot import NotConverged, Plan, TransportError, cosine_sinkhorn, sinkhorn
from avalign.ot.certificate import balanced
from tests.helpers.strategies import generator, quick, seeds

needs_kernel = pytest.mark.skipif(cpu.why_unavailable() is not None, reason=str(cpu.why_unavailable()))
needs_half = pytest.mark.skipif(
    not cpu.has_bfloat16_products(), reason="no bfloat16 product in this processor, or no compiler"
)
# float32 rounds the cosine by 6e-8, which exp(cosine / epsilon) magnifies.
GRADIENT = {0.3: 1e-5, 0.05: 1e-5, 0.01: 4e-5, 0.002: 2e-4}


def structured(b: int, n: int, m: int, d: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Tokens of a few shared concepts: plans that take work, unlike those of independent noise."""
    random = generator(seed)
    centres = torch.randn(b, 4, d, generator=random)
    sides = []
    for k in (n, m):
        concept = torch.randint(4, (b, k), generator=random)
        sides.append(
            centres.gather(1, concept[..., None].expand(-1, -1, d))
            + 0.5
            + 0.7 * torch.randn(b, k, d, generator=random)
        )
    return sides[0], sides[1]


def far(actual: Tensor, expected: Tensor) -> float:
    """The relative distance, in norm."""
    return float((actual.double() - expected).norm() / expected.norm().clamp(min=1e-12))


def solution(x: Tensor, y: Tensor, upstream: Tensor, **options) -> tuple[Plan, Tensor, Tensor]:
    x, y = x.clone().requires_grad_(), y.clone().requires_grad_()
    plan = cosine_sinkhorn(x, y, **options)
    (plan.value * upstream.to(plan.value)).sum().backward()
    return plan, x.grad, y.grad


@needs_kernel
class TestFused:
    @quick
    @given(
        st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40), st.integers(2, 70)),
        seeds,
        st.sampled_from(sorted(GRADIENT)),
        st.integers(1, 20),
        st.booleans(),
        st.booleans(),
    )
    def test_it_does_the_iterations_of_the_reference(
        self,
        shape: tuple[int, int, int, int],
        seed: int,
        epsilon: float,
        iterations: int,
        masked: bool,
        weighted: bool,
    ) -> None:
        """Odd shapes, masks over junk, uneven and zero weights, an upstream gradient that is not 1."""
        b, n, m, _ = shape
        random = generator(seed)
        x, y = structured(*shape, seed)
        given_ = {}
        for side, tokens, k in (("source", x, n), ("target", y, m)):
            mask = torch.rand(b, k, generator=random) < 0.7
            mask[:, 0] = True
            weights = torch.rand(b, k, generator=random, dtype=torch.float64) + 0.05
            weights[:, k // 2 :: 3] = 0
            weights[:, 0] = 0.5
            if masked:
                given_[f"{'x' if side == 'source' else 'y'}_mask"] = mask
                weights = weights * mask
                tokens[~mask] = torch.nan
            if weighted:
                given_[side] = weights / weights.sum(1, keepdim=True)
        settings = {"epsilon": epsilon, "iterations": iterations, "tolerance": None, **given_}
        upstream = torch.rand(b, generator=random) + 0.5
        right, *slopes = solution(x.double(), y.double(), upstream, engine="torch", **settings)
        plan, *near = solution(x, y, upstream, engine="c++", **settings)
        assert (plan.engine, right.engine) == ("c++", "torch")
        assert plan.iterations.tolist() == right.iterations.tolist() == [iterations] * b
        assert (plan.value - right.value).abs().max() < 1e-6
        assert (plan.source_potential - right.source_potential).abs().max() < 1e-5
        assert (plan.target_potential - right.target_potential).abs().max() < 1e-5
        assert far(plan.matrix, right.matrix) < GRADIENT[epsilon]
        assert (plan.marginal_error - right.marginal_error).abs().max() < GRADIENT[epsilon]
        # Where a plan is nearly the independent one, gradients are small differences of large terms.
        for slope, exact, tokens in zip(near, slopes, (x, y), strict=True):
            lengths = torch.where(tokens.isnan(), 0, tokens).norm(dim=2)
            scale = (
                (upstream[:, None] / lengths.clamp(min=1e-6) / tokens.shape[1]).where(lengths > 0, 0).norm()
            )
            assert (slope - exact).norm() < GRADIENT[epsilon] * max(float(exact.norm()), 0.1 * float(scale))
            assert (slope[tokens.isnan()] == 0).all()

    @pytest.mark.parametrize("epsilon", [0.05, 0.01, 0.002])
    @pytest.mark.parametrize("shape", [(3, 41, 13, 200), (2, 70, 130, 64)])
    def test_it_stops_where_the_reference_stops(self, epsilon: float, shape) -> None:
        x, y = structured(*shape)
        settings = {"epsilon": epsilon, "iterations": 5000}
        right, *slopes = solution(x.double(), y.double(), torch.ones(shape[0]), engine="torch", **settings)
        plan, *near = solution(x, y, torch.ones(shape[0]), engine="c++", **settings)
        # Over hundreds of iterations a rounding may decide whether an error is below the tolerance yet.
        late = (plan.iterations - right.iterations).abs()
        assert (late <= (0 if epsilon > 0.005 else 12)).all()
        assert plan.converged.all()
        assert (plan.value - right.value).abs().max() < 1e-6
        same = late == 0
        for slope, exact in zip(near, slopes, strict=True):
            assert far(slope[same], exact[same]) < GRADIENT[epsilon]
        assert same.sum() >= 2

    def test_its_plan_has_the_marginals_and_the_bounds_it_says(self) -> None:
        x, y = structured(3, 50, 20, 32)
        plan = cosine_sinkhorn(x, y, engine="c++")
        assert (plan.matrix.sum(2) - 1 / 50).abs().sum(1).max() < 1e-5
        error = (plan.matrix.sum(1) - 1 / 20).abs().sum(1)
        assert (error - plan.marginal_error).abs().max() < 1e-5
        assert (plan.marginal_error <= 1e-3).all()
        assert (plan.lower <= plan.value).all()
        assert (plan.gap > 0).all()
        assert (plan.gap < 0.2 * plan.upper).all()

    @pytest.mark.parametrize("epsilon", [0.3, 0.01])
    @pytest.mark.parametrize("iterations", [1, 200])
    def test_its_bounds_are_those_of_the_certificate(self, epsilon: float, iterations: int) -> None:
        """From features and from a cost; converged or not, weighted, masked."""
        x, y = structured(3, 37, 21, 18)
        random = generator(1)
        weights = torch.rand(3, 37, generator=random)
        weights[:, ::5] = 0
        mask = torch.rand(3, 21, generator=random) < 0.7
        y[~mask] = torch.nan
        sides = {"source": weights / weights.sum(1, keepdim=True)}
        settings = {"epsilon": epsilon, "iterations": iterations, "tolerance": None, "engine": "c++"}
        plan = cosine_sinkhorn(x, y, **sides, y_mask=mask, **settings)
        direct = sinkhorn(plan.problem.cost, **sides, target_mask=mask, **settings)
        for found in (plan, direct):
            lower, upper = balanced(found)
            assert torch.allclose(found.lower, lower, atol=1e-6)
            assert torch.allclose(found.upper, upper, atol=1e-6)
            assert (found.gap > 0).all()

    @pytest.mark.parametrize("half", [False, pytest.param(True, marks=needs_half)])
    def test_neighbours_padding_and_threads_change_no_bit(self, half: bool) -> None:
        x, y = structured(5, 37, 21, 48)
        settings = {"engine": "c++", "products": "bfloat16" if half else "float32"}
        together, slope_x, slope_y = solution(x, y, torch.ones(5), **settings)
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(3)
            again, *slopes = solution(x, y, torch.ones(5), **settings)
        finally:
            torch.set_num_threads(threads)
        assert torch.equal(again.value, together.value)
        assert torch.equal(slopes[0], slope_x)
        alone, one_x, one_y = solution(x[3:4], y[3:4], torch.ones(1), **settings)
        assert torch.equal(alone.value, together.value[3:4])
        assert torch.equal(one_x, slope_x[3:4])
        assert torch.equal(one_y, slope_y[3:4])
        wide_x = torch.cat([x, torch.full((5, 9, 48), torch.nan)], 1)
        wide_y = torch.cat([y, torch.full((5, 14, 48), torch.inf)], 1)
        masks = [torch.arange(k).expand(5, -1) < real for k, real in ((46, 37), (35, 21))]
        padded, wide_slope_x, wide_slope_y = solution(
            wide_x, wide_y, torch.ones(5), x_mask=masks[0], y_mask=masks[1], **settings
        )
        assert torch.equal(padded.value, together.value)
        assert torch.equal(padded.iterations, together.iterations)
        assert torch.equal(wide_slope_x[:, :37], slope_x)
        assert torch.equal(wide_slope_y[:, :21], slope_y)
        assert (wide_slope_x[:, 37:] == 0).all()

    @pytest.mark.parametrize("features", [torch.float32, torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("products", ["float32", pytest.param("bfloat16", marks=needs_half)])
    def test_rounded_features_and_products(self, features: torch.dtype, products: str) -> None:
        """A plan of rounded features is that plan to the precision of its products."""
        x, y = (t.to(features) for t in structured(3, 41, 13, 203))
        right, *slopes = solution(
            x.double(), y.double(), torch.ones(3), engine="torch", iterations=40, tolerance=None
        )
        plan, *near = solution(
            x, y, torch.ones(3), engine="c++", products=products, iterations=40, tolerance=None
        )
        exact = products == "float32" or features == torch.bfloat16  # factors that are not rounded again
        assert (plan.value - right.value).abs().max() < (1e-6 if exact else 2e-4)
        for slope, true in zip(near, slopes, strict=True):
            assert slope.dtype == features
            assert far(slope, true) < (1e-5 if products == "float32" and features == torch.float32 else 5e-3)

    def test_numbers_too_far_for_the_kernel_are_taken_on_logarithms(self) -> None:
        """Costs of hundreds of epsilons, from the start at 0: exp(-cost / epsilon) is 0 in whole columns."""
        random = generator(0)
        cost = torch.rand(4, 30, 20, generator=random) * torch.tensor([1, 10, 100, 1000.0])[:, None, None]
        for iterations, tolerance in ((7, None), (20_000, 1e-3)):
            settings = {"epsilon": 0.5, "iterations": iterations, "tolerance": tolerance}
            right = sinkhorn(cost.double(), engine="torch", **settings)
            plan = sinkhorn(cost, engine="c++", **settings)
            assert plan.matrix.isfinite().all()
            assert ((plan.value - right.value).abs() <= 2e-6 * cost.amax((1, 2))).all()
            assert plan.converged.tolist() == right.converged.tolist()

    def test_another_pass_backward_gives_the_same(self) -> None:
        x, y = (t.requires_grad_() for t in structured(2, 9, 7, 16))
        value = cosine_sinkhorn(x, y, engine="c++").value
        first = torch.autograd.grad(value.sum(), (x, y), retain_graph=True)
        kept = [slope.clone() for slope in first]
        for slope in first:
            slope.zero_()
        for slope, before in zip(torch.autograd.grad(3 * value.sum(), (x, y)), kept, strict=True):
            assert torch.allclose(slope, 3 * before, rtol=1e-6, atol=0)

    def test_a_gradient_of_the_gradient_is_refused(self) -> None:
        x, y = (t.requires_grad_() for t in structured(2, 9, 7, 16))
        (slope,) = torch.autograd.grad(cosine_sinkhorn(x, y, engine="c++").value.sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="no gradient of its gradient"):
            slope.sum().backward()

    def test_only_one_side_may_learn(self) -> None:
        x, y = structured(2, 9, 7, 16)
        both = solution(x, y, torch.ones(2), engine="c++")
        y = y.clone().requires_grad_()
        cosine_sinkhorn(x, y, engine="c++").value.sum().backward()
        assert torch.equal(y.grad, both[2])
        assert not cosine_sinkhorn(x, y.detach(), engine="c++").value.requires_grad

    def test_learned_weights_have_the_gradient_of_the_value(self) -> None:
        x, y = structured(2, 9, 7, 16)
        scores = torch.randn(2, 9, generator=generator(3))
        slopes = []
        for dtype, engine in ((torch.float32, "c++"), (torch.float64, "torch")):
            s = scores.to(dtype).requires_grad_()
            plan = cosine_sinkhorn(
                x.to(dtype), y.to(dtype), s.softmax(1), value="entropic", tolerance=1e-5, engine=engine
            )
            slopes.append(torch.autograd.grad(plan.value.sum(), s)[0])
        assert far(slopes[0], slopes[1]) < 1e-3

    @pytest.mark.parametrize("value", ["dual", "primal", "entropic"])
    def test_every_value_is_that_of_the_reference(self, value: str) -> None:
        x, y = structured(2, 19, 17, 16)
        right, *slopes = solution(x.double(), y.double(), torch.ones(2), engine="torch", value=value)
        plan, *near = solution(x, y, torch.ones(2), engine="c++", value=value)
        assert plan.value_name == value
        assert (plan.value - right.value).abs().max() < 1e-6
        for slope, exact in zip(near, slopes, strict=True):
            assert far(slope, exact) < 3e-5

    @pytest.mark.parametrize("entry", [torch.nan, torch.inf, 1e30])
    def test_features_that_are_no_numbers_are_named(self, entry: float) -> None:
        x, y = structured(4, 9, 7, 16)
        y[2, 3, 1] = entry
        with pytest.raises(TransportError, match=r"item\(s\) \[2\]"):
            cosine_sinkhorn(x, y, engine="c++")

    def test_a_plan_to_start_from_saves_iterations(self) -> None:
        x, y = structured(4, 60, 40, 16)
        settings = {"epsilon": 0.01, "iterations": 5000}
        for engine in ("c++", "torch"):
            cold = cosine_sinkhorn(x, y, engine=engine, **settings)
            same = cosine_sinkhorn(x, y, engine=engine, init=cold, **settings)
            near = cosine_sinkhorn(x + 0.001, y, engine=engine, init=cold, **settings)
            assert (same.iterations <= 6).all()
            assert near.iterations.sum() < 0.7 * cold.iterations.sum()
            assert torch.allclose(same.value, cold.value, atol=1e-5)
        with pytest.raises(TransportError, match=r"init is a plan of another shape"):
            cosine_sinkhorn(x, y[:, 1:], init=cold)

    @pytest.mark.parametrize("engine", ["c++", "torch"])
    def test_relaxation_that_swings_is_taken_back(self, engine: str) -> None:
        """From nothing at a small epsilon the error goes round in circles; with less relaxation it ends."""
        features = generate("structured", Shape(4, 196, 256, 64), 0)
        poor = cosine_sinkhorn(features.image, features.audio, iterations=1, tolerance=None)
        poor = replace(poor, target_potential=torch.zeros(4, 256))
        settings = {"epsilon": 0.001, "iterations": 3000, "init": poor, "engine": engine}
        assert cosine_sinkhorn(features.image, features.audio, **settings).converged.all()

    def test_it_says_so_when_it_did_not_converge(self) -> None:
        x, y = structured(2, 40, 30, 16)
        with pytest.warns(NotConverged, match="0.001 in 3 iterations at epsilon 0.01"):
            plan = cosine_sinkhorn(x, y, epsilon=0.01, iterations=3, engine="c++")
        assert not plan.converged.any()


@needs_kernel
class TestInTraining:
    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return AVOpT()(x * 1.5, y)

    @pytest.mark.parametrize("reentrant", [False, True])
    def test_under_gradient_checkpointing(self, reentrant: bool) -> None:
        x, y = (t.requires_grad_() for t in structured(2, 9, 7, 16))
        plain = torch.autograd.grad(self.loss(x, y), (x, y))
        checkpoint(self.loss, x, y, use_reentrant=reentrant).backward()
        for tokens, slope in zip((x, y), plain, strict=True):
            assert torch.allclose(tokens.grad, slope, rtol=1e-6, atol=0)

    @pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's own, at a graph break
    def test_under_compile(self) -> None:
        x, y = (t.requires_grad_() for t in structured(2, 9, 7, 16))
        plain = torch.autograd.grad(self.loss(x, y), (x, y))
        compiled = torch.autograd.grad(torch.compile(self.loss, backend="aot_eager")(x, y), (x, y))
        for one, two in zip(plain, compiled, strict=True):
            assert torch.allclose(one, two, rtol=1e-6, atol=0)

    def test_under_autocast(self) -> None:
        x, y = structured(2, 9, 7, 16)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = AVOpT()(x, y)
        assert torch.equal(value, AVOpT()(x, y))


class TestChoice:
    def test_double_precision_is_for_torch(self) -> None:
        x, y = (t.double() for t in structured(2, 9, 7, 16))
        assert cosine_sinkhorn(x, y).engine == "torch"
        with pytest.raises(TransportError, match=r"engine 'c\+\+' cannot run here: .* float64"):
            cosine_sinkhorn(x, y, engine="c++")

    def test_a_misspelt_choice_is_named(self) -> None:
        x, y = structured(2, 9, 7, 16)
        with pytest.raises(TransportError, match=r"one of auto, c\+\+, triton, .*torch, not 'cpp'"):
            cosine_sinkhorn(x, y, engine="cpp")
        if cpu.why_unavailable() is None:
            with pytest.raises(TransportError, match="products must be"):
                cosine_sinkhorn(x, y, products="fp8")

    def test_what_an_engine_lacks_is_named(self) -> None:
        x, y = structured(2, 9, 7, 16)
        with pytest.raises(TransportError, match=r"'triton' cannot run here: (it is for CUDA|triton is not)"):
            cosine_sinkhorn(x, y, engine="triton")
        with pytest.raises(TransportError, match="it solves from features, not from a cost"):
            sinkhorn(torch.rand(1, 2, 2), engine="triton")
        for options in ({"engine": "torch"}, {"value": "primal"}):
            with pytest.raises(TransportError, match="bfloat16 products need a fused engine"):
                cosine_sinkhorn(x, y, products="bfloat16", **options)

    @pytest.mark.parametrize(
        ("environment", "reason"),
        [
            ({"CXX": "no-such-compiler"}, "no C++ compiler was found (no-such-compiler)"),
            ({"CXX": "false"}, "could not build the CPU kernel"),
        ],
    )
    def test_without_a_compiler_torch_does_it_and_says_so(
        self, environment: dict[str, str], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, entry in (environment | {"AVALIGN_CACHE": str(tmp_path)}).items():
            monkeypatch.setenv(name, entry)
        cpu._outcome.cache_clear()
        try:
            x, y = structured(2, 9, 7, 16)
            assert cosine_sinkhorn(x, y).engine == "torch"
            with pytest.raises(TransportError) as caught:
                cosine_sinkhorn(x, y, engine="c++")
            assert reason in str(caught.value)
            assert list(tmp_path.iterdir()) == [], "a failed build leaves nothing behind"
        finally:
            monkeypatch.undo()
            cpu._outcome.cache_clear()

    @needs_kernel
    def test_two_processes_that_build_at_once_both_succeed(self, tmp_path: Path) -> None:
        code = "from avalign.kernels.cpu.engine import why_unavailable as why; assert why() is None, why()"
        compiler, folder = tmp_path / "c++", tmp_path / "cache"
        compiler.write_text(f'#!/bin/sh\nexec {os.environ.get("CXX", "c++")} "$@" -O0\n')  # takes less time
        compiler.chmod(0o755)
        environment = {**os.environ, "AVALIGN_CACHE": str(folder), "CXX": str(compiler)}
        runs = [subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(2)]
        assert [run.wait() for run in runs] == [0, 0]
        assert len(list(folder.iterdir())) == 1
