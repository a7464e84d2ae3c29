"""AVOpT as anyone would use it in a loop of their own, and with samples that lack a modality."""

from __future__ import annotations

import importlib.util
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from avalign.config.recipe_file import RecipeError, dump, read
from avalign.losses import AVOpT
from avalign.model.build import build_objective
from avalign.ot import (
    NotConverged,
    TransportError,
    by_geomloss,
    cosine_cost,
    exact,
    ipot,
    marginal_from,
    sinkhorn,
    squared_euclidean_cost,
    unbalanced,
)
from avalign.ot import partial as partially
from tests.helpers.objectives import example
from tests.helpers.strategies import generator, quick, seeds
from tests.helpers.tolerances import assert_close


def tokens(b: int, n: int, m: int, d: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    random = generator(seed)
    return tuple(
        torch.randn(b, k, d, generator=random, dtype=torch.float64, requires_grad=True) for k in (n, m)
    )


def masks(b: int, n: int, m: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    random = generator(seed)
    pair = [torch.rand(b, k, generator=random) < 0.7 for k in (n, m)]
    for mask in pair:
        mask[:, -1] = True
    return tuple(pair)


NEEDED = {"unbalanced": {"rho": 1.0}, "partial": {"mass": 0.7}}
needs_geomloss = pytest.mark.skipif(
    importlib.util.find_spec("geomloss") is None, reason="geomloss is not installed"
)
looking = pytest.mark.parametrize("backend", ["sinkhorn", "exact", "unbalanced", "partial"])
every = pytest.mark.parametrize(
    "backend",
    ["sinkhorn", "exact", "unbalanced", "partial", "ipot", pytest.param("geomloss", marks=needs_geomloss)],
)


@every
def test_a_recipe_names_any_backend(backend: str, tmp_path: Path) -> None:
    """And all that it trains with is made of the recipe, as it is written out."""
    options = "".join(f", {name}: {value}" for name, value in NEEDED.get(backend, {}).items())
    (tmp_path / "r.yaml").write_text(f"name: r\nlosses:\n  avopt: {{backend: {backend}{options}}}\n")
    (tmp_path / "again.yaml").write_text(dump(read(tmp_path / "r.yaml")))
    objective = build_objective(read(tmp_path / "again.yaml"))
    outputs, batch, parameters = example()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConverged)
        total, log = objective(outputs, batch)
    total.backward()
    pair = build(backend)(outputs.image.values[:2], outputs.audio.values[:2])
    assert_close(log["avopt"], pair / 2, torch.float32)
    assert parameters["image"].grad[:2].all()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (
            "backend: geomloss, engine: torch",
            "backend 'geomloss' takes no 'engine', which is for 'sinkhorn'.",
        ),
        ("backend: exact, scaling: 0.5", "backend 'exact' takes no 'scaling', which is for 'geomloss'."),
        ("beta: 1", "backend 'sinkhorn' takes no 'beta', which is for 'ipot'."),
        ("backend: partial", "backend 'partial' needs 'mass'."),
    ],
)
def test_a_recipe_whose_options_clash_is_refused_when_read(
    options: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text(f"name: r\nlosses:\n  avopt: {{{options}}}\n")
    with pytest.raises(RecipeError) as caught:
        read("r.yaml")
    assert caught.value.problems == [f"r.yaml:3  losses.avopt: AVOpT: {problem}"]


def build(backend: str, **options: object) -> AVOpT:
    return AVOpT(backend=backend, **NEEDED.get(backend, {}) | options)


@every
class TestEveryBackend:
    def test_its_gradient_reaches_both_sets_of_features(self, backend: str) -> None:
        """Fault 1 of the released code: there its gradient was zero."""
        image, audio = tokens(3, 9, 5)
        build(backend)(image, audio).backward()
        assert (image.grad.abs().sum(2) > 0).all()
        assert (audio.grad.abs().sum(2) > 0).all()

    def test_samples_without_a_modality_add_zero_and_learn_nothing(self, backend: str) -> None:
        image, audio = tokens(4, 6, 5)
        image_mask, audio_mask = masks(4, 6, 5)
        has_image = torch.tensor([True, False, True, True])
        has_audio = torch.tensor([True, True, False, True])
        image_mask, audio_mask = image_mask & has_image[:, None], audio_mask & has_audio[:, None]
        loss = build(backend)
        value = loss.terms(image, audio, image_mask, audio_mask, has_image, has_audio)
        value.total.backward()
        there = has_image & has_audio
        alone = loss.terms(image[there], audio[there], image_mask[there], audio_mask[there])
        assert_close(value.total, alone.total * 2 / 4)
        assert value.applies.tolist() == there.tolist()
        assert (value.samples[~there] == 0).all()
        for tensor in (image, audio):
            assert tensor.grad.isfinite().all()
            assert (tensor.grad[~there] == 0).all()
            assert (tensor.grad[there] != 0).any()

    def test_a_batch_without_any_sound_is_zero_and_can_be_differentiated(self, backend: str) -> None:
        image, audio = tokens(2, 6, 5)
        nothing = torch.zeros(2, dtype=torch.bool)
        value = build(backend).terms(image, audio, None, nothing[:, None].expand(2, 5), has_audio=nothing)
        value.total.backward()
        assert value.total == 0
        assert (image.grad == 0).all()
        assert value.parts["unconverged"] == 0

    def test_nobody_said_that_there_is_no_sound(self, backend: str) -> None:
        image, audio = tokens(3, 6, 5)
        mask = torch.ones(3, 5, dtype=torch.bool).index_fill(0, torch.tensor([1]), False)
        with pytest.raises(TransportError, match=r"target: every entry is masked in item\(s\) \[1\]"):
            build(backend).terms(image, audio, audio_mask=mask)

    def test_features_that_are_no_numbers_are_named(self, backend: str) -> None:
        image, audio = tokens(3, 6, 5)
        broken = audio.detach().clone()
        broken[2, 0, 0] = torch.nan
        there = torch.tensor([False, True, True])
        with pytest.raises(TransportError, match=r"item\(s\) \[2\]"):
            build(backend).terms(image, broken, has_audio=there)
        assert build(backend)(image, broken, has_audio=~there).isfinite()


@looking
def test_a_step_against_the_gradient_brings_the_sets_together(backend: str) -> None:
    image, audio = tokens(3, 9, 5)
    loss = build(backend, tolerance=1e-9, iterations=5000)
    before = loss(image, audio)
    before.backward()
    after = loss(image - 0.1 * image.grad, audio - 0.1 * audio.grad)
    promised = 0.1 * (image.grad.square().sum() + audio.grad.square().sum())
    assert_close(before - after, promised, torch.bfloat16)


@looking
def test_its_gradient_is_that_of_its_value(backend: str) -> None:
    loss = build(backend, epsilon=0.2, tolerance=1e-13, iterations=5000)
    mask = masks(2, 4, 3)

    def total(image: Tensor, audio: Tensor) -> Tensor:
        return 3 * loss(image, audio, *mask)

    assert torch.autograd.gradcheck(total, tokens(2, 4, 3, 3), atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("backend", ["sinkhorn", "exact"])
def test_one_set_twice_costs_nothing_and_its_opposite_two(backend: str) -> None:
    image, _ = tokens(2, 6, 6)
    loss = build(backend, epsilon=0.01)
    assert 0 <= loss(image, image.flip(1)) < 0.02
    one = image[:, :1].expand(-1, 4, -1)
    assert_close(loss(one, -one), 2.0)


@pytest.mark.parametrize("backend", ["sinkhorn", "exact"])
def test_given_weights_are_the_marginals(backend: str) -> None:
    image, audio = tokens(2, 4, 3)
    weights = torch.rand(2, 4, generator=generator(1)).double().softmax(1)
    plan = build(backend, tolerance=1e-9, iterations=5000).solve(image, audio, image_weights=weights)
    assert_close(plan.matrix.sum(2), weights)
    # Where there is nothing to align, the weights may be nothing too.
    weights = weights * torch.tensor([[1.0], [0.0]])
    value = build(backend).terms(image, audio, has_image=weights.any(1), image_weights=weights)
    assert value.applies.tolist() == [True, False]


@quick
@given(
    st.integers(1, 9),
    st.integers(1, 9),
    seeds,
    st.sampled_from([0.5, 0.3]),
    st.sampled_from(["dual", "primal"]),
)
def test_it_is_the_mean_of_transport_under_cosine_distance(
    n: int, m: int, seed: int, epsilon: float, value: str
) -> None:
    image, audio = tokens(2, n, m, seed=seed)
    mask = masks(2, n, m, seed)
    cost = 1 - torch.cosine_similarity(image[:, :, None], audio[:, None], dim=3)
    settings = {"epsilon": epsilon, "value": value, "tolerance": 1e-8, "iterations": 5000}
    loss = AVOpT(**settings).terms(image, audio, *mask)
    assert_close(loss.total, sinkhorn(cost, None, None, *mask, **settings).value.mean(), torch.float32)
    assert_close(AVOpT(backend="exact")(image, audio, *mask), exact(cost, None, None, *mask).value.mean())
    assert 0 <= loss.total <= 2


@pytest.mark.parametrize(
    ("options", "solve"),
    [
        ({"backend": "unbalanced", "rho": 0.3, "epsilon": 0.2}, partial(unbalanced, rho=0.3, epsilon=0.2)),
        ({"backend": "partial", "mass": 0.4}, partial(partially, mass=0.4)),
        (
            {"backend": "partial", "mass": 0.4, "partial_backend": "exact"},
            partial(partially, mass=0.4, backend="exact"),
        ),
        ({"backend": "ipot"}, ipot),
        (
            {"backend": "ipot", "iterations": 7, "beta": 0.2, "threshold": 0.1, "threshold_over": "batch"},
            partial(ipot, iterations=7, beta=0.2, threshold=0.1, threshold_over="batch"),
        ),
        pytest.param(
            {"backend": "geomloss", "scaling": 0.8, "diameter": 2.0, "value": "primal"},
            partial(by_geomloss, scaling=0.8, diameter=2.0, value="primal"),
            marks=needs_geomloss,
        ),
    ],
)
@pytest.mark.parametrize("cost", ["cosine", "squared_euclidean"])
def test_every_option_reaches_the_solver_it_is_for(options: dict, solve, cost: str) -> None:
    image, audio = tokens(3, 7, 5)
    mask = masks(3, 7, 5)
    between = {"cosine": cosine_cost, "squared_euclidean": squared_euclidean_cost}[cost]
    expected = solve(between(image, audio, *mask), None, None, *mask)
    found = AVOpT(cost=cost, **options).solve(image, audio, *mask)
    assert_close(found.value, expected.value)
    assert_close(found.matrix, expected.matrix)


def test_a_cost_may_be_any_function_of_features_and_masks() -> None:
    def manhattan(image: Tensor, audio: Tensor, image_mask: Tensor, audio_mask: Tensor) -> Tensor:
        assert image_mask.shape == image.shape[:2]
        assert audio_mask.shape == audio.shape[:2]
        return (image[:, :, None] - audio[:, None]).abs().sum(3)

    image, audio = tokens(2, 4, 3)
    mask = masks(2, 4, 3)
    cost = (image[:, :, None] - audio[:, None]).abs().sum(3)
    assert_close(
        AVOpT(cost=manhattan).terms(image, audio, *mask).samples, sinkhorn(cost, None, None, *mask).value
    )


def test_each_sample_carries_the_gradient_of_its_own_loss() -> None:
    image, audio = tokens(3, 6, 5)
    there = torch.tensor([True, False, True])
    value = AVOpT().terms(image, audio, has_audio=there)
    whole = torch.autograd.grad(value.total, image, retain_graph=True)[0]
    weighted = torch.autograd.grad(value.samples @ value.samples.new_tensor([1.0, 5.0, -2.0]), image)[0]
    assert_close(weighted, whole * 3 * image.new_tensor([1.0, 0.0, -2.0])[:, None, None])
    assert weighted[0].norm() > 0


def test_attention_of_any_sum_can_weigh_the_patches_and_learns() -> None:
    image, audio = tokens(2, 4, 3)
    attention = torch.rand(2, 4, generator=generator(1), dtype=torch.float64).requires_grad_()
    mask = torch.tensor([[True, True, True, False], [True] * 4])

    def total(attention: Tensor) -> Tensor:
        loss = AVOpT(epsilon=0.2, tolerance=1e-13, iterations=5000)
        return loss(image, audio, mask, image_weights=marginal_from(attention, mask))

    assert torch.autograd.gradcheck(total, [attention], atol=1e-7, rtol=1e-5)
    (gradient,) = torch.autograd.grad(total(attention), attention)
    assert gradient[mask].abs().min() > 0


@quick
@given(st.sampled_from([2, 4]), seeds)
def test_shards_of_a_batch_average_to_the_batch(shards: int, seed: int) -> None:
    image, audio = tokens(4, 7, 5, seed=seed)
    there = torch.rand(4, generator=generator(seed)) < 0.7
    loss = AVOpT(epsilon=0.3)
    parts = [
        loss(i, a, has_audio=h)
        for i, a, h in zip(image.chunk(shards), audio.chunk(shards), there.chunk(shards), strict=True)
    ]
    assert_close(torch.stack(parts).mean(), loss(image, audio, has_audio=there))


def test_features_in_bfloat16_give_nearly_the_same_loss_and_gradient() -> None:
    image, audio = (t.detach() for t in tokens(4, 30, 20, 64))
    whole = [t.clone().requires_grad_() for t in (image, audio)]
    rounded = [t.bfloat16().requires_grad_() for t in (image, audio)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = AVOpT()(*rounded)
    value.backward()
    reference = AVOpT()(*whole)
    reference.backward()
    assert value.dtype == torch.float32
    assert_close(value, reference, torch.bfloat16)
    for near, right in zip(rounded, whole, strict=True):
        assert near.grad.dtype == torch.bfloat16
        assert (near.grad - right.grad).norm() < 0.02 * right.grad.norm()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "sinkhron"}, "'ipot' or 'geomloss', not 'sinkhron'"),
        ({"cost": "cosin"}, "cost must be 'cosine', 'squared_euclidean' or a function, not 'cosin'"),
        ({"rho": 1.0}, "backend 'sinkhorn' takes no 'rho', which is for 'unbalanced'"),
        ({"backend": "ipot", "mass": 0.5}, "backend 'ipot' takes no 'mass', which is for 'partial'"),
        ({"backend": "unbalanced"}, "backend 'unbalanced' needs 'rho'"),
        ({"backend": "partial"}, "backend 'partial' needs 'mass'"),
        ({"backend": "unbalanced", "rho": -1.0}, "rho must be above 0"),
        ({"backend": "partial", "mass": 1.1}, "mass must be above 0 and at most 1"),
        ({"backend": "partial", "mass": 0.5, "value": "entropic"}, "'dual' or 'primal', not 'entropic'"),
        ({"backend": "ipot", "threshold": 2.0}, "threshold must be in 0..1"),
        ({"epsilon": 0.0}, "epsilon must be above 0"),
        ({"iterations": 0}, "iterations must be at least 1"),
        ({"value": "both"}, "'primal' or 'entropic', not 'both'"),
    ],
)
def test_an_option_that_cannot_be_is_refused_when_it_is_built(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AVOpT(**options)
