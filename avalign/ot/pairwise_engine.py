"""What solves a block of all pairs from their similarities: the fused CPU engine, or torch on logarithms."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from avalign.kernels.cpu import engine as cpu_engine
from avalign.kernels.cpu import pairwise as cpu
from avalign.ot.problem import TransportError

LEAST_EPSILON = 0.03  # of the fused engine, which holds exp(-2 / epsilon) as a float
MOST_SHIFT = 1e5  # in units of epsilon: beyond, float32 cannot tell two masses apart well enough
DENSE = 0.5  # share of a row's pairs from which all of them are multiplied


@dataclass(frozen=True)
class Settings:
    epsilon: float
    rho_source: float
    rho_target: float
    iterations: int
    tolerance: float | None
    engine: str

    @property
    def shift(self) -> float:
        """log(mass of the rows / mass of the columns) times this, added to f and taken from g, makes the
        value largest and leaves the plan as it is; 0 where both sides are held, or one is free.

        It is what plain iterations are slowest at.
        """
        prices = (self.rho_source, self.rho_target)
        if 0 in prices or prices == (math.inf, math.inf):
            return 0.0
        return 1 / (1 / self.rho_source + 1 / self.rho_target)

    def exponent(self, rho: float) -> float:
        """Of a side's answer to a sum: 1 where its marginal holds, 0 where it is free."""
        return 1.0 if math.isinf(rho) else rho / (rho + self.epsilon)


class Inputs(NamedTuple):
    """r row sets against c column sets. Shapes: similarity (r * n, c * m); source (r, n), target (c, m)"""

    similarity: Tensor
    source: Tensor
    target: Tensor

    def blocks(self) -> Tensor:
        """The similarities pair by pair, (r, c, n, m)."""
        (r, n), (c, m) = self.source.shape, self.target.shape
        return self.similarity.view(r, n, c, m).transpose(1, 2)


class Found(NamedTuple):
    """Shapes: value, error, made (r, c); f (r, c, n); g (r, c, m)"""

    value: Tensor
    f: Tensor
    g: Tensor
    error: Tensor
    made: Tensor


def choose(engine: str, x: Tensor, epsilon: float) -> str:
    """The engine that will run. One that was named and cannot run is an error."""
    if engine not in ("auto", "c++", "torch"):
        raise TransportError(f"engine must be one of auto, c++, torch, not {engine!r}")
    why = None
    if x.dtype == torch.float64:
        why = "it computes in float32, and the input is float64"
    elif x.device.type != "cpu":
        why = f"it is for the CPU, and the input is on {x.device}"
    elif epsilon < LEAST_EPSILON:
        why = f"it takes an epsilon of {LEAST_EPSILON} or above, not {epsilon}"
    else:
        why = cpu_engine.why_unavailable()
    if engine == "c++" and why is not None:
        raise TransportError(f"engine 'c++' cannot run here: {why}")
    return "torch" if engine == "torch" or why is not None else "c++"


def solve(inputs: Inputs, start: Tensor | None, settings: Settings) -> Found:
    """Values and potentials of every pair of a block. start (r, c, m): g to begin with."""
    if settings.engine == "torch":
        return _by_torch(inputs.blocks(), inputs.source[:, None], inputs.target[None], start, settings)
    found = Found(*cpu.solve(*inputs, start, settings))
    for i, j in (found.made < 0).nonzero().tolist():  # sums beyond a float's range
        block = inputs.blocks()[i, j][None, None]
        again = _by_torch(block, inputs.source[i][None, None], inputs.target[j][None, None], None, settings)
        for into, part in zip(found, again, strict=True):
            into[i, j] = part[0, 0]
    return found


def _by_torch(
    similarity: Tensor, source: Tensor, target: Tensor, start: Tensor | None, settings: Settings
) -> Found:
    """Iterations on logarithms. Shapes: similarity (r, c, n, m); source (r, 1, n); target (1, c, m)"""
    epsilon = settings.epsilon
    by_row, by_column = settings.exponent(settings.rho_source), settings.exponent(settings.rho_target)
    score = (similarity - 1) / epsilon
    shift = settings.shift / epsilon
    if score.dtype == torch.float32 and shift > MOST_SHIFT:
        shift = 0.0
    r, c, n, m = score.shape
    log_a, log_b = source.log(), target.log()
    v = score.new_zeros(r, c, m) if start is None else start / epsilon  # g / epsilon
    done = torch.zeros(r, c, dtype=torch.bool, device=score.device)
    made = torch.zeros(r, c, dtype=torch.long, device=score.device)
    u, error = score.new_zeros(r, c, n), score.new_full((r, c), torch.inf)
    rows = score.new_zeros(r, c, n)
    for count in range(1, settings.iterations + 1):
        new_rows = torch.logsumexp(score + (log_b + v)[:, :, None, :], 3)
        new_u = torch.where(source > 0, -by_row * new_rows, 0)
        columns = torch.logsumexp(score + (log_a + new_u)[:, :, :, None], 2)
        next_v = torch.where(target > 0, -by_column * columns, 0)
        share = (log_b + columns + next_v).softmax(2)
        off = (share * (v - next_v).expm1().abs()).sum(2)
        rows, u = torch.where(done[:, :, None], rows, new_rows), torch.where(done[:, :, None], u, new_u)
        error, made = torch.where(done, error, off), torch.where(done, made, count)
        if settings.tolerance is not None:
            done = done | (off <= settings.tolerance)
        if count == settings.iterations or bool(done.all()):
            break
        if shift:
            sent = torch.logsumexp(log_a + new_u + new_rows, 2) - torch.logsumexp(log_b + columns + next_v, 2)
            next_v = torch.where(target > 0, next_v - (shift * sent)[:, :, None], 0)
        v = torch.where(done[:, :, None], v, next_v)
    carried = (log_a + u + rows).double().exp().sum(2)
    mass = source.double().sum(2) * target.double().sum(2)
    f, g = epsilon * u, epsilon * v
    value = (
        (source.double() * paid(f.double(), settings.rho_source)).sum(2)
        + (target.double() * paid(g.double(), settings.rho_target)).sum(2)
        - epsilon * (carried - mass)
    )
    return Found(value.to(score.dtype), f, g, error, made)


def paid(potential: Tensor, rho: float) -> Tensor:
    """What a unit of a marginal adds to the dual value: -rho (exp(-potential / rho) - 1), and its limits."""
    if rho == 0:
        return torch.zeros_like(potential)
    return potential if math.isinf(rho) else -rho * (-potential / rho).expm1()


def plan(
    inputs: Inputs, f: Tensor, g: Tensor, weight: Tensor, settings: Settings, carried: bool, room: Tensor
) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
    """Every pair's plan times its weight, (r * n, c * m), and the plans' own sums (r, c, n) and (r, c, m).

    room: at least as many numbers, in which the plans may be written
    """
    if settings.engine == "c++":
        out = room[: inputs.similarity.numel()].view(inputs.similarity.shape)
        return out, cpu.plan(*inputs, f, g, weight, settings.epsilon, carried, out)
    a, b = inputs.source[:, None, :, None], inputs.target[None, :, None, :]
    exponent = f[:, :, :, None] + g[:, :, None, :] + (inputs.blocks() - 1)
    plans = a * b * (exponent / settings.epsilon).exp()
    sums = (plans.sum(3), plans.sum(2)) if carried else None
    weighed = (weight[:, :, None, None] * plans).transpose(1, 2)
    return weighed.reshape(inputs.similarity.shape), sums


def to_marginals(
    inputs: Inputs, f: Tensor, g: Tensor, rows: Tensor, columns: Tensor, upstream: Tensor, settings: Settings
) -> tuple[Tensor, Tensor]:
    """The value's gradient to both marginals, (r, n) and (c, m): what stands beside them in it."""
    a, b = inputs.source[:, None], inputs.target[None]

    def slope(own: Tensor, other: Tensor, potential: Tensor, sums: Tensor, rho: float) -> Tensor:
        share = sums / own.clamp(min=torch.finfo(own.dtype).tiny)
        each = paid(potential, rho) - settings.epsilon * (share - other.sum(2, keepdim=True))
        return torch.where(own > 0, upstream[:, :, None] * each, 0)

    to_a = slope(a, b, f, rows, settings.rho_source)
    return to_a.sum(1), slope(b, a, g, columns, settings.rho_target).sum(0)


def parts(weight: Tensor, step: int) -> Iterator[tuple[int, int, Tensor | None]]:
    """What to multiply in the backward pass, of (r, c) pairs of which those of weight 0 are left out.

    Row sets from `begin` to `end` with all column sets (None), or one row set with those that are named.
    """
    counts = weight != 0
    number = counts.sum(1).tolist()
    dense = [each > DENSE * weight.shape[1] for each in number]
    begin = 0
    while begin < len(dense):
        end = begin + 1
        if dense[begin]:
            while end < len(dense) and dense[end] and end - begin < step:
                end += 1
            yield begin, end, None
        elif number[begin]:
            yield begin, end, counts[begin].nonzero().flatten()
        begin = end
