"""Sinkhorn's iterations in torch, on any device and in any precision: batched, each item stopped by itself.

In units of epsilon: the plan is a_i b_j exp(phi_i + psi_j - C_ij / epsilon). An iteration makes the rows of
the plan right by phi, then its columns by psi. Iterations go in windows of WINDOW on the kernel
exp(phi_0 + psi_0 - C / epsilon), where an iteration is two products with a vector; potentials that leave the
kernel's range, or numbers that are none, send the window to logarithms, where nothing overflows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

WINDOW = 6  # iterations between two looks at the error
# Single precision keeps exp(-87); a scaling up to exp(30) on either side leaves what underflowed below 1e-11.
MOST_SCALING = 30.0
# Relaxation: an iteration goes so many times as far as Sinkhorn's. 1.5 never failed from the start; further
# only as far as the observed rate calls for, and less for good once the error grew or swung.
FIRST_RELAXATION, MOST_RELAXATION = 1.5, 1.97
GROWTH, RISES = 2.0, 5
# A problem that spans more than so many epsilon is first solved at doubled epsilons, roughly.
EASY_REACH, ROUGH_ERROR, ROUGH_ITERATIONS = 20.0, 0.03, 60


@dataclass(frozen=True)
class Potentials:
    """Shapes: f (b, n) and g (b, m) in units of the cost, 0 where there is no mass; error, iterations (b,)"""

    f: Tensor
    g: Tensor
    error: Tensor  # L1 of the columns; the rows are exact
    iterations: Tensor


def solve(
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    epsilon: float,
    iterations: int,
    tolerance: float | None,
    init_g: Tensor | None = None,
) -> Potentials:
    """Potentials of every item, from g = init_g (0 when not given).

    tolerance: iterations are relaxed, and small epsilons approached from larger ones, until the error is no
               more than this. None: exactly `iterations` of Sinkhorn's own iterations, the last one left
               after its rows, so that the rows of the plan are exact

    Shapes: cost (b, n, m), a (b, n), b, init_g (b, m), all of one dtype, detached; entries of cost where a
            or b is 0 may hold anything
    """
    support = (a > 0)[:, :, None] & (b > 0)[:, None, :]
    cost = torch.where(support, cost, torch.inf)
    g = torch.zeros_like(b) if init_g is None else torch.where(b > 0, init_g, 0)
    if tolerance is None:
        state = _run(cost / epsilon, a, b, g / epsilon, iterations, -1.0, relax=False)
    else:
        f = (cost - g[:, None, :]).amin(2)
        reach = torch.where(support, cost - f[:, :, None] - g[:, None, :], 0).amax((1, 2)) / epsilon
        stages = (
            torch.zeros_like(reach) if init_g is not None else (reach / EASY_REACH).log2().ceil().clamp(0)
        )
        spent = torch.zeros(len(a), dtype=torch.long, device=a.device)
        for stage in range(int(stages.max()), 0, -1):
            scale, now = epsilon * 2.0**stage, stages >= stage
            rough = _run(cost[now] / scale, a[now], b[now], g[now] / scale, ROUGH_ITERATIONS, ROUGH_ERROR)
            g[now], spent[now] = rough.psi * scale, spent[now] + rough.iterations
        state = _run(cost / epsilon, a, b, g / epsilon, iterations, tolerance)
        state.iterations += spent
    return Potentials(
        torch.where(a > 0, epsilon * state.phi, 0),
        torch.where(b > 0, epsilon * state.psi, 0),
        state.error,
        state.iterations,
    )


@dataclass
class _State:
    phi: Tensor  # (b, n)
    psi: Tensor  # (b, m)
    error: Tensor  # (b,) of the last iteration made
    iterations: Tensor  # (b,)


def _run(
    cost: Tensor, a: Tensor, b: Tensor, psi: Tensor, iterations: int, tolerance: float, relax: bool = True
) -> _State:
    """Iterations at one epsilon, in units of it."""
    out = _State(torch.zeros_like(a), psi.clone(), torch.full_like(a[:, 0], torch.inf), _counts(a))
    left = torch.arange(len(a), device=a.device)
    phi = _rows(cost, b, psi)
    kernel = _Kernel.at(cost, phi, psi)
    relaxation = torch.full_like(a[:, 0], FIRST_RELAXATION if relax else 1.0)
    most = torch.full_like(relaxation, MOST_RELAXATION)
    before = best = torch.full_like(relaxation, torch.inf)
    rises = torch.zeros_like(relaxation)
    done = 0
    while True:
        count = min(WINDOW, iterations - done)
        done += count
        phi, psi, next_psi, error = _window(kernel, cost, a, b, phi, psi, relaxation, count)
        stop = (error <= tolerance) | (done == iterations)
        if stop.any():
            ended = left[stop]
            out.phi[ended], out.psi[ended] = phi[stop], psi[stop]
            out.error[ended], out.iterations[ended] = error[stop], done
            if stop.all():
                return out
            go = ~stop
            left, cost, a, b = left[go], cost[go], a[go], b[go]
            phi, next_psi, error, kernel = phi[go], next_psi[go], error[go], kernel.take(go)
            relaxation, most, rises = relaxation[go], most[go], rises[go]
            before, best = before[go], best[go]
        psi = next_psi
        if relax:
            relaxation, most, best, rises = _relax(relaxation, most, error, before, best, rises)
            before = error


def _counts(a: Tensor) -> Tensor:
    return torch.zeros(len(a), dtype=torch.long, device=a.device)


@dataclass
class _Kernel:
    """exp(phi_0 + psi_0 - C / epsilon), both ways round, and the potentials it was made at."""

    phi: Tensor
    psi: Tensor
    matrix: Tensor  # (b, n, m)
    flipped: Tensor  # (b, m, n)

    @classmethod
    def at(cls, cost: Tensor, phi: Tensor, psi: Tensor) -> _Kernel:
        matrix = torch.exp(phi[:, :, None] + psi[:, None, :] - cost)
        return cls(phi, psi, matrix, matrix.transpose(1, 2).contiguous())

    def take(self, items: Tensor) -> _Kernel:
        return _Kernel(self.phi[items], self.psi[items], self.matrix[items], self.flipped[items])

    def put(self, items: Tensor, other: _Kernel) -> None:
        self.phi[items], self.psi[items] = other.phi, other.psi
        self.matrix[items], self.flipped[items] = other.matrix, other.flipped


def _window(
    kernel: _Kernel,
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    phi: Tensor,
    psi: Tensor,
    relaxation: Tensor,
    count: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`count` iterations from phi, psi: phi with exact rows, the psi it is exact for, the next psi, the
    error.

    So the last iteration relaxes its columns alone: its error is then that of the plan, and comparable from
    window to window. Items that leave the kernel's range do this window on logarithms, and their kernel
    is made anew.
    """
    p, q = phi - kernel.phi, psi - kernel.psi
    error, worst = torch.full_like(relaxation, torch.inf), torch.zeros_like(relaxation)
    omega = relaxation[:, None]
    next_q = q
    for k in range(count):
        q = next_q
        rows = -_sums(kernel.flipped, b * q.exp()).log()
        p = rows if k == count - 1 else p + omega * (rows - p)
        columns = -_sums(kernel.matrix, a * p.exp()).log()
        next_q = q + omega * (columns - q)
        # Also NaN and infinity, which `where` turns into what is surely too far.
        for scaling, mass in ((p, a), (next_q, b)):
            far = torch.where(mass > 0, scaling, 0).abs().amax(1)
            worst = torch.maximum(worst, torch.where(far.isfinite(), far, torch.inf))
    error = (b * ((q - columns).exp() - 1).abs()).sum(1)
    p, q, next_q = (torch.where(mass > 0, scaling, 0) for scaling, mass in ((p, a), (q, b), (next_q, b)))
    new = [kernel.phi + p, kernel.psi + q, kernel.psi + next_q, error]
    if (out := worst > MOST_SCALING).any():
        again = _log_window(cost[out], a[out], b[out], phi[out], psi[out], relaxation[out], count)
        for tensor, right in zip(new, again, strict=True):
            tensor[out] = right
        kernel.put(out, _Kernel.at(cost[out], again[0], again[2]))
    return new[0], new[1], new[2], new[3]


def _log_window(
    cost: Tensor, a: Tensor, b: Tensor, phi: Tensor, psi: Tensor, relaxation: Tensor, count: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same iterations on logarithms: slower, and right for any epsilon."""
    omega = relaxation[:, None]
    next_psi = psi
    for k in range(count):
        psi = next_psi
        rows = _rows(cost, b, psi)
        phi = rows if k == count - 1 else phi + omega * (rows - phi)
        columns = _rows(cost.transpose(1, 2), a, phi)
        next_psi = psi + omega * (columns - psi)
    return phi, psi, next_psi, (b * ((psi - columns).exp() - 1).abs()).sum(1)


def _rows(cost: Tensor, b: Tensor, psi: Tensor) -> Tensor:
    """phi_i = -log sum_j b_j exp(psi_j - C_ij): what makes the rows right; 0 where a row carries nothing."""
    phi = -torch.logsumexp((b.log() + psi)[:, None, :] - cost, 2)
    return torch.where(phi.isfinite(), phi, 0)


def _sums(kernel: Tensor, weight: Tensor) -> Tensor:
    """sum_i weight_i kernel_ij of each item: (b, n, m), (b, n) -> (b, m)"""
    if kernel.device.type == "cpu":  # a row times a matrix: 2-3 times as quick as a matrix times a column
        return torch.bmm(weight[:, None, :], kernel)[:, 0]
    return (kernel * weight[:, :, None]).sum(1)  # a product there could be rounded to TF32


def _relax(
    relaxation: Tensor, most: Tensor, error: Tensor, before: Tensor, best: Tensor, rises: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The next window's relaxation, from the rate of the last one; the most it may be; the least error; how
    often it rose since it last fell by a tenth. (An error that stands still is well: mass
    on its way between two groups of tokens takes as many iterations as the potentials have to go.)

    Relaxed by omega, an eigenvalue theta of the plain iteration becomes the lambda that solves
    (lambda + omega - 1)^2 = lambda omega^2 theta (Young); seen from lambda, theta gives the best omega,
    2 / (1 + sqrt(1 - theta)).

    Source: Hageman and Young, Applied Iterative Methods, 1981, section 9; for Sinkhorn's iterations Lehmann
            et al., arXiv:2012.12562
    """
    rate = (error / before) ** (1 / WINDOW)
    theta = ((rate + relaxation - 1).square() / (rate * relaxation.square())).clamp(max=1 - 1e-4)
    called_for = 2 / (1 + (1 - theta).sqrt())
    slow = (rate > relaxation - 1) & (rate < 1)
    raised = torch.where(slow, torch.maximum(relaxation, called_for), relaxation)
    rises = torch.where(error < 0.9 * best, 0, rises + (error > 1.05 * before))
    failing = ((error > GROWTH * best) & best.isfinite()) | (rises >= RISES)
    most = torch.where(failing, 1 + 0.8 * (relaxation - 1), most)
    best = torch.where(failing, error, torch.minimum(best, error))
    return torch.minimum(raised, most), most, best, torch.where(failing, 0, rises)
