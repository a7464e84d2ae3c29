"""What is compared: a loss by its name, and how it is made ready for one set of features."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from avalign.bench.inputs import Features
from avalign.errors import AvalignError

MOST_ITERATIONS = 2000  # where a tolerance decides
ValueOf = Literal["dual", "entropic", "exact"]
T = TypeVar("T")


class Unavailable(AvalignError):
    """This competitor cannot run here, and why."""


@dataclass(frozen=True)
class Settings:
    """One of tolerance (L1 error of the marginals, total mass 1) and iterations (exactly so many) is
    given."""

    epsilon: float
    tolerance: float | None = None
    iterations: int | None = None

    @property
    def most_iterations(self) -> int:
        return MOST_ITERATIONS if self.iterations is None else self.iterations


@dataclass(frozen=True)
class Answer:
    """Shapes: value (b,), image (b, n, d) and audio (b, m, d), gradients of the value's mean"""

    value: Tensor
    image: Tensor
    audio: Tensor


@dataclass(frozen=True)
class Ready:
    """A competitor with its features, settings and all that is done once.

    forward:  the values alone, without a gradient; whatever it returns holds the result
    step:     the values and both gradients, of the mean over items
    answer:   step's result, as torch tensors
    plan:     () -> (b, n, m), the plan it ends with
    value_of: which of the truth's values its own is: "dual", <T, C> + epsilon KL(T | a x b); "entropic",
              <T, C> + epsilon sum T log T; "exact", the smallest <T, C>
    """

    forward: Callable[[], Any]
    step: Callable[[], Any]
    answer: Callable[[], Answer]
    plan: Callable[[], Tensor]
    value_of: ValueOf
    engine: str
    products: str = "float32"  # the precision its large products read
    notes: tuple[str, ...] = ()
    iterations: float | None = None  # mean over items, where it tells
    converged: float | None = None  # share of items, where it tells


@dataclass(frozen=True)
class Competitor:
    """prepare must pickle: it is called in another process. Those of one `process` share it, which is
    torch's, or that of a library that would take threads or a GPU's memory from all others."""

    name: str
    about: str
    prepare: Callable[[Features, Settings], Ready]
    ours: bool = False
    modules: tuple[str, ...] = ()  # that must be importable
    install: str = ""  # what installs them
    process: str = "torch"


def torch_ready(
    loss: Callable[[Tensor, Tensor], Tensor], features: Features, plan: Callable[[], Tensor], **rest: Any
) -> Ready:
    """A loss written in torch: (b, n, d), (b, m, d) -> (b,), differentiable."""

    def forward() -> Tensor:
        with torch.no_grad():
            return loss(features.image, features.audio)

    def step() -> Answer:
        image, audio = (side.detach().requires_grad_() for side in (features.image, features.audio))
        value = loss(image, audio)
        return Answer(value.detach(), *torch.autograd.grad(value.mean(), (image, audio)))

    return Ready(forward, step, step, plan, **rest)


def cosine(image: Tensor, audio: Tensor) -> Tensor:
    """1 - cos as a user of any of these libraries writes it, in float32. (b, n, d), (b, m, d) -> (b, n, m)"""
    image, audio = (torch.nn.functional.normalize(side.float(), dim=-1) for side in (image, audio))
    return 1 - torch.bmm(image, audio.transpose(1, 2))


def marginal_error(plan: Tensor) -> Tensor:
    """(b,): how far the rows, or the columns if they are worse, are from uniform; L1, total mass 1."""
    plan = plan.detach().double()
    rows = (plan.sum(2) - 1 / plan.shape[1]).abs().sum(1)
    columns = (plan.sum(1) - 1 / plan.shape[2]).abs().sum(1)
    return torch.maximum(rows, columns)


def first_within(tolerance: float, ladder: Iterable[T], plan_of: Callable[[T], Tensor]) -> tuple[T, float]:
    """The first setting on the ladder whose plan is within the tolerance for every item; else the last."""
    setting, error = None, float("inf")
    for setting in ladder:
        error = float(marginal_error(plan_of(setting)).max())
        if error <= tolerance:
            break
    if setting is None:
        raise ValueError("the ladder has no rung")
    return setting, error
