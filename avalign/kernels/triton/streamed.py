"""Sinkhorn's iterations on a cost and a kernel matrix in memory, streamed in blocks of rows.

An iteration reads the kernel once: the rows of a block are made right, and at once added to the columns'
sums. The barriers are there because threads read what other threads of the program wrote.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from avalign.kernels.solution import Solution
from avalign.kernels.triton.blocks import (
    FEW_ROWS,
    STAGES,
    add,
    add_rows,
    block,
    no_rows,
    powers,
    row_blocks,
    side,
    value_of_rows,
    widest_row,
)
from avalign.kernels.triton.cosine import FAR, LOG2E, per_epsilon
from avalign.kernels.triton.inputs import Inputs, empty
from avalign.kernels.triton.iterations import (
    ROUGH_ITERATIONS,
    WINDOW,
    column_error,
    first_window,
    in_range,
    inverse_of,
    log_rows,
    log_weights,
    next_window,
    stages_of,
    write_answer,
)


def streamed(inputs: Inputs, out: Solution) -> None:
    items, (n, m, *_) = len(inputs.a), inputs.sizes
    scratch = torch.empty_like(inputs.cost), empty(inputs.a, items, n), empty(inputs.a, items, 3, n)
    solve_streamed[(items,)](
        *inputs.sides, inputs.cost, *scratch, inputs.broken, *out, *inputs.sizes, *inputs.settings,
        **inputs.modes, **row_blocks(m),
    )  # fmt: skip


@triton.jit(do_not_specialize=["n", "m", "iterations", "blocks"])
def solve_streamed(
    a, b, init_g, cost, kernel, phi_at, p_at, broken, value_out, f_out, g_out, error_out, iterations_out,
    n, m, width, blocks, epsilon, iterations, tolerance,
    WARM: tl.constexpr, RELAXED: tl.constexpr, ROWS: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """One item a program, m <= width <= BLOCK_M, any n: value and potentials from write_cost's cost.

    Shapes: a, f_out, scratch phi_at (b, n); scratch p_at (b, 3, n); b, init_g, g_out (b, m); cost, scratch
            kernel (b, n, width); broken (b, blocks); the other outputs (b,); all contiguous
    """
    item = tl.program_id(0).to(tl.int64)
    a, phi_at, p_at = a + item * n, phi_at + item * n, p_at + item * 3 * n
    cost, kernel = cost + item * n * width, kernel + item * n * width
    columns = tl.arange(0, BLOCK_M)
    b = tl.load(b + item * m + columns, mask=columns < m, other=0.0)
    log_b = log_weights(b)

    psi = tl.zeros((BLOCK_M,), tl.float32)
    stage = tl.zeros((), tl.int32)
    if WARM:
        psi = tl.load(init_g + item * m + columns, mask=b > 0, other=0.0) * per_epsilon(epsilon)
    elif RELAXED:
        stage = stages_of(widest_row(cost, a, b, 0, n, n, width, ROWS, BLOCK_M) / epsilon)
    psi = psi * tl.exp2(-stage.to(tl.float32))
    error = tl.max(b, 0) * 0
    spent, slot = tl.zeros((), tl.int32), tl.zeros((), tl.int32)
    while stage >= 0:
        inverse = inverse_of(epsilon, stage)
        left = tl.where(stage > 0, ROUGH_ITERATIONS, iterations)
        slot = slot * 0
        _begin(cost, kernel, inverse, a, log_b, psi, phi_at, p_at, n, width, ROWS, BLOCK_M)
        base_psi, q = psi, psi * 0
        relaxation, most, before, best, rises = first_window(inverse)
        while left > 0:
            count = tl.minimum(left, WINDOW)
            end = _slot(slot, count - 1)
            last_q, next_q, error = _window(
                kernel, a, b, p_at, slot, q, relaxation, count, n, width, RELAXED, ROWS, BLOCK_M
            )
            psi = base_psi + last_q
            if error != error:
                psi, next_psi, error = _log_window(
                    cost, inverse, a, b, log_b, phi_at, p_at, slot, base_psi + q,
                    relaxation, count, n, width, RELAXED, ROWS, BLOCK_M,
                )  # fmt: skip
                phi_from, p_to = p_at + end * n, p_at + slot * n
                _absorb(cost, kernel, inverse, a, next_psi, phi_at, phi_from, p_to, n, width, ROWS, BLOCK_M)
                base_psi, next_q = next_psi, psi * 0
                end = slot
            q = next_q
            slot = end
            spent += count
            left -= count
            if RELAXED:
                left, relaxation, most, best, rises = next_window(
                    stage, left, tolerance, relaxation, most, error, before, best, rises
                )
                before = error
        stage -= 1
        if stage >= 0:
            psi = psi * 2  # the same potential, in units of half the epsilon

    g = psi * (epsilon / LOG2E)
    value = _finish(
        cost, a, b, psi, phi_at, p_at + slot * n, f_out + item * n, epsilon, n, width, ROWS, BLOCK_M
    )
    write_answer(
        item,
        columns,
        m,
        b,
        value,
        g,
        error,
        spent,
        broken,
        blocks,
        value_out,
        g_out,
        error_out,
        iterations_out,
    )


@triton.jit
def _settle(
    c, phi, kernel, inverse, psi, phi_at, p_at, first, n, width, ROWS: tl.constexpr, BLOCK_M: tl.constexpr
):
    """A block of the kernel at phi and psi, and its rows' scalings 0."""
    _, at, inside = side(phi_at, first, n, ROWS)
    tl.store(at, phi, mask=inside)
    _, at, inside = side(p_at, first, n, ROWS)
    tl.store(at, phi * 0, mask=inside)
    _, at, inside = block(kernel, first, n, width, 0.0, ROWS, BLOCK_M)
    tl.store(at, tl.exp2(phi[:, None] + psi[None, :] - c * inverse), mask=inside)


@triton.jit
def _begin(
    cost, kernel, inverse, a, log_b, psi, phi_at, p_at, n, width, ROWS: tl.constexpr, BLOCK_M: tl.constexpr
):
    """Rows made right for psi, and the kernel there."""
    tl.debug_barrier()
    for first in range(0, n, ROWS):
        c, _, _ = block(cost, first, n, width, FAR, ROWS, BLOCK_M)
        weight, _, _ = side(a, first, n, ROWS)
        phi = log_rows(c * inverse, weight, log_b, psi)
        _settle(c, phi, kernel, inverse, psi, phi_at, p_at, first, n, width, ROWS, BLOCK_M)
    tl.debug_barrier()


@triton.jit
def _absorb(
    cost, kernel, inverse, a, psi, phi_at, phi_from, p_at, n, width, ROWS: tl.constexpr, BLOCK_M: tl.constexpr
):
    """The kernel made anew at psi and the phi that phi_from holds, so that the scalings p_at are 0."""
    tl.debug_barrier()
    for first in range(0, n, ROWS):
        c, _, _ = block(cost, first, n, width, FAR, ROWS, BLOCK_M)
        phi, _, _ = side(phi_from, first, n, ROWS)
        _settle(c, phi, kernel, inverse, psi, phi_at, p_at, first, n, width, ROWS, BLOCK_M)
    tl.debug_barrier()


@triton.jit
def _window(
    kernel, a, b, p_at, slot, q, relaxation, count, n, width,
    RELAXED: tl.constexpr, ROWS: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """`count` iterations by products with the kernel, from scalings p (that slot of p_at) and q, logarithms.

    Returns the q that the last p is exact for, the next q, the error, all NaN if a scaling left the
    kernel's range; the last p is in _slot(slot, count - 1). The first is left as it was.
    """
    next_q = q + 0.0  # a value of its own: Triton takes a name for unchanged that is bound to another's value
    for k in range(count):
        q = next_q
        weights = b * tl.exp2(q)
        lost = q * 0
        sums = no_rows(ROWS, BLOCK_M)
        p_from, p_to = p_at + _slot(slot, k - 1) * n, p_at + _slot(slot, k) * n
        for first in tl.range(0, n, ROWS, num_stages=STAGES):
            part, _, _ = block(kernel, first, n, width, 0.0, ROWS, BLOCK_M)
            weight, _, _ = side(a, first, n, ROWS)
            p = -tl.log2(tl.sum(part * weights[None, :], 1))
            if RELAXED:
                old, _, _ = side(p_from, first, n, ROWS)
                p = tl.where(k == count - 1, p, old + relaxation * (p - old))
            p = in_range(tl.where(weight > 0, p, 0.0))
            sums, lost = add_rows(sums, lost, part * (weight * tl.exp2(p))[:, None], ROWS)
            _, at, inside = side(p_to, first, n, ROWS)
            tl.store(at, p, mask=inside)
        tl.debug_barrier()
        if ROWS > FEW_ROWS:
            sums = tl.sum(sums, 0)
        columns = -tl.log2(sums)
        if RELAXED:
            columns = q + relaxation * (columns - q)
        next_q = in_range(tl.where(b > 0, columns, 0.0))
    return q, next_q, column_error(b, q, next_q, relaxation, RELAXED)


@triton.jit
def _slot(slot, k):
    """Where iteration k of a window that began from `slot` of three leaves its rows; `slot` itself for k =
    -1.

    No iteration writes what it reads, and what a window began from outlives it.
    """
    return tl.where(k < 0, slot, (slot + 1 + k % 2) % 3)


@triton.jit
def _log_window(
    cost, inverse, a, b, log_b, phi_at, p_at, slot, psi, relaxation, count, n, width,
    RELAXED: tl.constexpr, ROWS: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """The same iterations on logarithms: slower, and right for any epsilon.

    The slots then hold phi itself; columns are summed as blocks come in, below the largest term so far.
    """
    next_psi = psi + 0.0  # a value of its own, as in _window
    for k in range(count):
        psi = next_psi
        top, sums, lost = psi * 0 - FAR, psi * 0, psi * 0
        p_from, p_to = p_at + _slot(slot, k - 1) * n, p_at + _slot(slot, k) * n
        for first in range(0, n, ROWS):
            c, _, _ = block(cost, first, n, width, FAR, ROWS, BLOCK_M)
            weight, _, _ = side(a, first, n, ROWS)
            phi = log_rows(c * inverse, weight, log_b, psi)
            if RELAXED:
                old, _, _ = side(p_from, first, n, ROWS)
                base, _, _ = side(phi_at, first, n, ROWS)
                old += tl.where(k == 0, base, 0.0)
                phi = tl.where(k == count - 1, phi, old + relaxation * (phi - old))
            _, at, inside = side(p_to, first, n, ROWS)
            tl.store(at, phi, mask=inside)
            top, fall, more = powers(top, (log_weights(weight) + phi)[:, None] - c * inverse)
            sums, lost = add(sums * fall, lost * fall, more)
        tl.debug_barrier()
        columns = tl.where(b > 0, -top - tl.log2(sums), 0.0)
        if RELAXED:
            columns = psi + relaxation * (columns - psi)
        next_psi = columns
    return psi, next_psi, column_error(b, psi, next_psi, relaxation, RELAXED)


@triton.jit
def _finish(
    cost, a, b, psi, phi_at, p_at, f_out, epsilon, n, width, ROWS: tl.constexpr, BLOCK_M: tl.constexpr
):
    """Writes f; the part of the value that rows have: sum f a - epsilon (sum T - 1)."""
    tl.debug_barrier()
    inverse = per_epsilon(epsilon)
    value, mass = tl.zeros((ROWS,), tl.float32), tl.zeros((ROWS,), tl.float32)
    value_lost, mass_lost = value * 0, mass * 0
    for first in range(0, n, ROWS):
        c, _, _ = block(cost, first, n, width, FAR, ROWS, BLOCK_M)
        weight, _, _ = side(a, first, n, ROWS)
        base, _, _ = side(phi_at, first, n, ROWS)
        p, _, _ = side(p_at, first, n, ROWS)
        phi = base + p
        more_value, more_mass = value_of_rows(c, weight, b, phi, psi, inverse)
        value, value_lost = add(value, value_lost, more_value)
        mass, mass_lost = add(mass, mass_lost, more_mass)
        _, at, inside = side(f_out, first, n, ROWS)
        tl.store(at, phi / inverse, mask=inside)
    return tl.sum(value, 0) - epsilon * (tl.sum(mass, 0) - 1)
