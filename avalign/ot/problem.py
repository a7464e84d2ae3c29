"""What every solver is given: a batch of costs and two marginals, checked once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from avalign.errors import AvalignError

MASS_TOLERANCE = (
    2.5e-3  # a marginal rounded to bfloat16 passes (2e-3), one normalised with the padding does not
)


class TransportError(AvalignError, ValueError):
    """A transport problem that has no answer, and why."""


@dataclass(frozen=True)
class Problem:
    """Shapes: source (b, n), target (b, m), cost (b, n, m); float32 or float64, all of one dtype.

    The cost is worked out when it is first asked for: who solves from features may never ask.
    """

    source: Tensor
    target: Tensor
    make_cost: Callable[[], Tensor]

    @cached_property
    def cost(self) -> Tensor:
        return self.make_cost()

    @cached_property
    def support(self) -> Tensor:
        """Where mass may flow, (b, n, m) bool: both marginals are positive."""
        return (self.source > 0)[:, :, None] & (self.target > 0)[:, None, :]


def problem(
    cost: Tensor,
    source: Tensor | None = None,
    target: Tensor | None = None,
    source_mask: Tensor | None = None,
    target_mask: Tensor | None = None,
    *,
    unit_mass: bool = True,
) -> Problem:
    """Check what a caller gave, and fill in uniform marginals over the real entries.

    unit_mass: each marginal must sum to 1; otherwise any mass above 0 will do

    Shapes: cost (b, n, m); source, source_mask (b, n); target, target_mask (b, m), masks True where real
    """
    if cost.ndim != 3:
        raise TransportError(f"cost must be (batch, n, m), got shape {tuple(cost.shape)}")
    if not cost.is_floating_point():
        raise TransportError(f"cost must hold floating point numbers, got {cost.dtype}")
    cost = cost if cost.dtype == torch.float64 else cost.float()
    b, n, m = cost.shape
    source = marginal("source", source, source_mask, (b, n), cost, unit_mass)
    target = marginal("target", target, target_mask, (b, m), cost, unit_mass)
    inputs = Problem(source, target, lambda: cost)
    # One reduction in the usual case; which item it was is asked only when something is wrong.
    finite = torch.where(inputs.support, cost.detach(), torch.zeros_like(cost)).isfinite()
    if not finite.all():
        raise TransportError(f"cost holds NaN or infinity in item(s) {items(~finite.flatten(1).all(1))}")
    return inputs


def marginal(
    name: str,
    weights: Tensor | None,
    mask: Tensor | None,
    shape: tuple[int, int],
    like: Tensor,
    unit_mass: bool = True,
) -> Tensor:
    """The weights of one side, shape (b, k): given, or uniform of mass 1 over what is not masked."""
    if mask is not None and (mask.shape != shape or mask.dtype != torch.bool):
        raise TransportError(
            f"{name}_mask must be bool of shape {shape}, got {mask.dtype} of shape {tuple(mask.shape)}"
        )
    if mask is not None and may_synchronize(mask) and (empty := ~mask.any(1)).any():
        raise TransportError(f"{name}: every entry is masked in item(s) {items(empty)}")
    if shape[1] == 0:
        raise TransportError(f"{name} has no entry: its shape is {shape}")
    if weights is None:
        weights = like.new_ones(shape) if mask is None else mask.to(like.dtype)
        return weights / weights.sum(1, keepdim=True)
    if weights.shape != shape:
        raise TransportError(f"{name} must have shape {shape}, got {tuple(weights.shape)}")
    weights = weights.to(like.dtype)
    if mask is not None:
        weights = torch.where(mask, weights, torch.zeros_like(weights))
    mass = weights.detach().sum(1)
    if may_synchronize(mass):
        _check(name, weights.detach(), mass, unit_mass)
    # What rounding left off is divided out, so that both sides carry equal mass.
    return weights / mass[:, None] if unit_mass else weights


def _check(name: str, weights: Tensor, mass: Tensor, unit_mass: bool) -> None:
    if not (weights >= 0).all() or not weights.isfinite().all():
        wrong = ~((weights >= 0) & weights.isfinite()).all(1)
        raise TransportError(f"{name} must be finite and not negative: see item(s) {items(wrong)}")
    if not unit_mass and not (mass > 0).all():
        raise TransportError(f"{name} must have some mass: item(s) {items(mass <= 0)} have none")
    if unit_mass and ((mass - 1).abs() > MASS_TOLERANCE).any():
        wrong = (mass - 1).abs() > MASS_TOLERANCE
        raise TransportError(
            f"{name} must sum to 1 over real entries: item(s) {items(wrong)} sum to "
            f"{[round(x, 4) for x in mass[wrong].tolist()[:8]]}"
        )


def marginal_from(weights: Tensor, mask: Tensor | None = None) -> Tensor:
    """Any weights (attention, loudness) as a marginal: divided by their sum, which the gradient goes through.

    In float32, or float64 when given it. `image_weights=marginal_from(attention, image_mask)`

    Shapes: weights, mask (b, k), weights not negative and not all 0, mask True where real -> (b, k), summing
            to 1 over what is real and 0 elsewhere
    """
    if weights.ndim != 2 or not weights.is_floating_point():
        raise TransportError(
            f"weights must be floating point of shape (batch, k), got {weights.dtype} of shape "
            f"{tuple(weights.shape)}"
        )
    like = weights if weights.dtype == torch.float64 else weights.float()
    shape = (weights.shape[0], weights.shape[1])
    real = marginal("weights", like, mask, shape, like, unit_mass=False)
    return real / real.sum(1, keepdim=True)


def may_synchronize(tensor: Tensor) -> bool:
    """Whether its numbers can be asked for now: not while a CUDA graph is being recorded."""
    return not (tensor.is_cuda and torch.cuda.is_current_stream_capturing())


def items(wrong: Tensor) -> list[int]:
    return wrong.nonzero().flatten().tolist()
