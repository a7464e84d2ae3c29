"""AVOpT against the batch: the contrastive loss over transport, by its paper's name."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from avalign.config.recipe_file import RecipeError, read
from avalign.losses import AVOpT, Contrastive, SigLip
from avalign.ot import sinkhorn
from avalign.ot.cost import cosine_cost
from tests.helpers.strategies import generator
from tests.helpers.tolerances import assert_close


def tokens(b: int = 4, n: int = 6, m: int = 5, d: int = 8) -> list[torch.Tensor]:
    random = generator(0)
    return [torch.randn(b, k, d, generator=random, dtype=torch.float64, requires_grad=True) for k in (n, m)]


def test_it_is_info_nce_over_balanced_transport_by_default() -> None:
    """The paper's marginals and epsilon, every image with every clip, solved pair by pair."""
    image, audio = tokens()
    costs = [cosine_cost(image[i][None].expand(4, -1, -1), audio) for i in range(4)]
    values = torch.stack(
        [sinkhorn(cost, epsilon=0.05, tolerance=1e-6, iterations=9999).value for cost in costs]
    )
    logits = (1 - values) / 0.07
    own = torch.arange(4)
    expected = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    found = AVOpT(negatives="batch", tolerance=1e-6)(image, audio)
    assert_close(found, expected, torch.float32)
    for one, two in zip(
        torch.autograd.grad(found, (image, audio)), torch.autograd.grad(expected, (image, audio)), strict=True
    ):
        assert_close(one, two, torch.float32)


@pytest.mark.parametrize("prices", [(0.02, math.inf), (0.0, None), (0.1, 0.1)])
def test_it_is_the_contrastive_loss_by_its_own_name(prices: tuple[float, float | None]) -> None:
    image, audio = tokens()
    has_image = torch.tensor([True, True, False, True])
    mask = torch.rand(4, 6, generator=generator(1)) < 0.7
    mask[:, 0] = True
    weights = torch.rand(4, 5, generator=generator(2), dtype=torch.float64)
    options: dict[str, Any] = {
        "epsilon": 0.2,
        "rho_image": prices[0],
        "rho_audio": prices[1],
        "temperature": 0.1,
    }
    given = {"image_mask": mask, "has_image": has_image, "audio_weights": weights}
    found = AVOpT(negatives="batch", **options).terms(image, audio, **given)
    expected = Contrastive(similarity="transport", **options).terms(image, audio, **given)
    assert_close(found.samples, expected.samples)
    assert found.parts.keys() == {"accuracy", "temperature"}
    assert AVOpT(negatives="batch").couples_samples
    assert not AVOpT().couples_samples


def test_its_temperature_is_learnt() -> None:
    loss = AVOpT(negatives="batch")
    loss(*tokens()).backward()
    (weight,) = loss.parameters()
    assert weight.grad is not None
    assert weight.grad != 0
    assert not list(AVOpT().parameters())


@pytest.mark.parametrize("kind", [AVOpT, Contrastive, SigLip])
def test_alike_tokens_everywhere_are_its_worst_and_not_its_best(kind: Any) -> None:
    """What the loss without negatives is least at."""
    options = {"negatives": "batch"} if kind is AVOpT else {"similarity": "transport"}
    own = torch.eye(4, 8, dtype=torch.float64)[:, None].expand(-1, 3, -1)
    alike = torch.ones(4, 3, 8, dtype=torch.float64)
    assert kind(**options)(own, own) < 0.5 * kind(**options)(alike, alike)
    assert AVOpT()(alike, alike) < 1e-6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"negatives": "all"}, "negatives must be 'none' or 'batch', not 'all'"),
        ({"rho_image": 0.1}, "'rho_image' is for negatives 'batch'"),
        ({"rho_audio": 0.1}, "'rho_audio' is for negatives 'batch'"),
        ({"temperature": 0.1}, "'temperature' is for negatives 'batch'"),
        ({"negatives": "batch", "backend": "exact"}, "negatives 'batch' are for backend 'sinkhorn'"),
        ({"negatives": "batch", "cost": "squared_euclidean"}, "cost 'cosine'"),
        ({"negatives": "batch", "value": "primal"}, "value 'dual'"),
        ({"negatives": "batch", "engine": "triton"}, "run on engine 'c\\+\\+' or 'torch'"),
        ({"negatives": "batch", "products": "bfloat16"}, "with products in float32"),
    ],
)
def test_options_that_clash_are_refused_alone_and_in_a_recipe(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AVOpT(**options)
    message = message.replace("negatives must be", "should be").partition(", not")[0]
    with pytest.raises(RecipeError, match=message):
        read("recipes/meerkat.yaml", [f"losses.avopt.{name}={value}" for name, value in options.items()])


def test_a_batch_of_one_is_said() -> None:
    with pytest.raises(ValueError, match="a batch of 1 sample has no negatives"):
        AVOpT(negatives="batch")(*tokens(1))
