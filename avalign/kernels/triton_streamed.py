"""Sinkhorn's rounds on a cost and a kernel matrix in memory, streamed in blocks of rows.

A round reads the kernel once: the rows of a block are made right, and at once added to the columns' sums.
The barriers are there because threads read what other threads of the program wrote.
"""

from __future__ import annotations

import triton
import triton.language as tl

from avalign.kernels.triton_cosine import (
    FAR,
    FIRST_RELAXATION,
    LOG2E,
    MOST_RELAXATION,
    ROUGH_ERROR,
    ROUGH_ROUNDS,
    WINDOW,
    column_error,
    count_broken,
    in_range,
    relax,
    stages_of,
)

STAGES = tl.constexpr(3)  # blocks under way at a time, so that a round waits for bandwidth, not for answers


@triton.jit(do_not_specialize=["n", "m", "rounds", "blocks"])
def solve_streamed(
    a, b, start, cost, kernel, phi_at, p_at, broken, value_out, f_out, g_out, error_out, rounds_out,
    n, m, width, blocks, epsilon, rounds, tolerance,
    STARTED: tl.constexpr, RELAXED: tl.constexpr, ROWS: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """One item a program, m <= width <= BLOCK_M, any n: value and potentials from write_cost's cost.

    Shapes: a, f_out, scratch phi_at (b, n); scratch p_at (b, 3, n); b, start, g_out (b, m); cost, scratch
            kernel (b, n, width); broken (b, blocks); the other outputs (b,); all contiguous
    """
    item = tl.program_id(0).to(tl.int64)
    a, phi_at, p_at = a + item * n, phi_at + item * n, p_at + item * 3 * n
    cost, kernel = cost + item * n * width, kernel + item * n * width
    columns = tl.arange(0, BLOCK_M)
    b = tl.load(b + item * m + columns, mask=columns < m, other=0.0)
    log_b = tl.where(b > 0, tl.log2(b), -FAR)

    psi = tl.zeros((BLOCK_M,), tl.float32)
    stage = tl.zeros((), tl.int32)
    if STARTED:
        psi = tl.load(start + item * m + columns, mask=b > 0, other=0.0) * (LOG2E / epsilon)
    elif RELAXED:
        stage = stages_of(_widest_row(cost, a, b, n, width, ROWS, BLOCK_M) / epsilon)
    psi = psi * tl.exp2(-stage.to(tl.float32))
    error = tl.max(b, 0) * 0
    spent, slot = tl.zeros((), tl.int32), tl.zeros((), tl.int32)
    while stage >= 0:
        inverse = LOG2E / (epsilon * tl.exp2(stage.to(tl.float32)))
        left = tl.where(stage > 0, ROUGH_ROUNDS, rounds)
        wanted = tl.where(stage > 0, ROUGH_ERROR, tolerance)
        slot = slot * 0
        _begin(cost, kernel, inverse, a, log_b, psi, phi_at, p_at, n, width, ROWS, BLOCK_M)
        base_psi, q = psi, psi * 0
        relaxation, most = error * 0 + FIRST_RELAXATION, error * 0 + MOST_RELAXATION
        before, best, rises = error * 0 + FAR, error * 0 + FAR, error * 0
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
                left = tl.where(error <= wanted, 0, left)
                relaxation, most, best, rises = relax(relaxation, most, error, before, best, rises)
                before = error
        stage -= 1
        if stage >= 0:
            psi = psi * 2  # the same potential, in units of half the epsilon

    nothing = tl.where(count_broken(broken + item * blocks, blocks) > 0, float("nan"), 0.0)
    g = psi * (epsilon / LOG2E)
    value = _finish(
        cost, a, b, psi, phi_at, p_at + slot * n, f_out + item * n, epsilon, n, width, ROWS, BLOCK_M
    )
    tl.store(value_out + item, value + tl.sum(g * b, 0) + nothing)
    tl.store(error_out + item, error + nothing)
    tl.store(rounds_out + item, spent)
    tl.store(g_out + item * m + columns, g, mask=columns < m)


@triton.jit
def _block(matrix, first, n, width, other, ROWS: tl.constexpr, BLOCK_M: tl.constexpr):
    """Rows `first` and on of a matrix, and where they are."""
    rows, columns = first + tl.arange(0, ROWS), tl.arange(0, BLOCK_M)
    at = matrix + rows.to(tl.int64)[:, None] * width + columns[None, :]
    inside = (rows < n)[:, None] & (columns < width)[None, :]
    return tl.load(at, mask=inside, other=other), at, inside


@triton.jit
def _side(vector, first, n, ROWS: tl.constexpr):
    rows = first + tl.arange(0, ROWS)
    return tl.load(vector + rows, mask=rows < n, other=0.0), vector + rows, rows < n


@triton.jit
def _widest_row(cost, a, b, n, width, ROWS: tl.constexpr, BLOCK_M: tl.constexpr):
    """The most that one row's costs differ by."""
    widest = tl.zeros((ROWS,), tl.float32)
    for first in range(0, n, ROWS):
        c, _, _ = _block(cost, first, n, width, FAR, ROWS, BLOCK_M)
        weight, _, _ = _side(a, first, n, ROWS)
        most = tl.max(tl.where((b > 0)[None, :], c, -FAR), 1)
        widest = tl.maximum(widest, tl.where(weight > 0, most - tl.min(c, 1), 0.0))
    return tl.max(widest, 0)


@triton.jit
def _settle(
    c, phi, kernel, inverse, psi, phi_at, p_at, first, n, width, ROWS: tl.constexpr, BLOCK_M: tl.constexpr
):
    """A block of the kernel at phi and psi, and its rows' scalings 0."""
    _, at, inside = _side(phi_at, first, n, ROWS)
    tl.store(at, phi, mask=inside)
    _, at, inside = _side(p_at, first, n, ROWS)
    tl.store(at, phi * 0, mask=inside)
    _, at, inside = _block(kernel, first, n, width, 0.0, ROWS, BLOCK_M)
    tl.store(at, tl.exp2(phi[:, None] + psi[None, :] - c * inverse), mask=inside)


@triton.jit
def _begin(
    cost, kernel, inverse, a, log_b, psi, phi_at, p_at, n, width, ROWS: tl.constexpr, BLOCK_M: tl.constexpr
):
    """Rows made right for psi, and the kernel there."""
    tl.debug_barrier()
    for first in range(0, n, ROWS):
        c, _, _ = _block(cost, first, n, width, FAR, ROWS, BLOCK_M)
        weight, _, _ = _side(a, first, n, ROWS)
        phi = _log_rows(c * inverse, weight, log_b, psi)
        _settle(c, phi, kernel, inverse, psi, phi_at, p_at, first, n, width, ROWS, BLOCK_M)
    tl.debug_barrier()


@triton.jit
def _absorb(
    cost, kernel, inverse, a, psi, phi_at, phi_from, p_at, n, width, ROWS: tl.constexpr, BLOCK_M: tl.constexpr
):
    """The kernel made anew at psi and the phi that phi_from holds, so that the scalings p_at are 0."""
    tl.debug_barrier()
    for first in range(0, n, ROWS):
        c, _, _ = _block(cost, first, n, width, FAR, ROWS, BLOCK_M)
        phi, _, _ = _side(phi_from, first, n, ROWS)
        _settle(c, phi, kernel, inverse, psi, phi_at, p_at, first, n, width, ROWS, BLOCK_M)
    tl.debug_barrier()


@triton.jit
def _window(
    kernel, a, b, p_at, slot, q, relaxation, count, n, width,
    RELAXED: tl.constexpr, ROWS: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """`count` rounds by products with the kernel, from scalings p (that slot of p_at) and q, logarithms.

    Returns the q that the last p is exact for, the next q, the error, all NaN if a scaling left the
    kernel's range; the last p is in _slot(slot, count - 1). The first is left as it was.
    """
    next_q = q
    for k in range(count):
        q = next_q
        weights = b * tl.exp2(q)
        sums = tl.zeros((ROWS, BLOCK_M), tl.float32)
        p_from, p_to = p_at + _slot(slot, k - 1) * n, p_at + _slot(slot, k) * n
        for first in tl.range(0, n, ROWS, num_stages=STAGES):
            block, _, _ = _block(kernel, first, n, width, 0.0, ROWS, BLOCK_M)
            weight, _, _ = _side(a, first, n, ROWS)
            p = -tl.log2(tl.sum(block * weights[None, :], 1))
            if RELAXED:
                old, _, _ = _side(p_from, first, n, ROWS)
                p = tl.where(k == count - 1, p, old + relaxation * (p - old))
            p = in_range(tl.where(weight > 0, p, 0.0))
            sums += block * (weight * tl.exp2(p))[:, None]
            _, at, inside = _side(p_to, first, n, ROWS)
            tl.store(at, p, mask=inside)
        tl.debug_barrier()
        columns = -tl.log2(tl.sum(sums, 0))
        if RELAXED:
            columns = q + relaxation * (columns - q)
        next_q = in_range(tl.where(b > 0, columns, 0.0))
    return q, next_q, column_error(b, q, next_q, relaxation, RELAXED)


@triton.jit
def _slot(slot, k):
    """Where round k of a window that began from `slot` of three leaves its rows; `slot` itself for k = -1.

    No round writes what it reads, and what a window began from outlives it.
    """
    return tl.where(k < 0, slot, (slot + 1 + k % 2) % 3)


@triton.jit
def _log_window(
    cost, inverse, a, b, log_b, phi_at, p_at, slot, psi, relaxation, count, n, width,
    RELAXED: tl.constexpr, ROWS: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """The same rounds on logarithms: slower, and right for any epsilon.

    The slots then hold phi itself; columns are summed as blocks come in, below the largest term so far.
    """
    next_psi = psi
    for k in range(count):
        psi = next_psi
        top, sums = psi * 0 - FAR, psi * 0
        p_from, p_to = p_at + _slot(slot, k - 1) * n, p_at + _slot(slot, k) * n
        for first in range(0, n, ROWS):
            c, _, _ = _block(cost, first, n, width, FAR, ROWS, BLOCK_M)
            weight, _, _ = _side(a, first, n, ROWS)
            phi = _log_rows(c * inverse, weight, log_b, psi)
            if RELAXED:
                old, _, _ = _side(p_from, first, n, ROWS)
                base, _, _ = _side(phi_at, first, n, ROWS)
                old += tl.where(k == 0, base, 0.0)
                phi = tl.where(k == count - 1, phi, old + relaxation * (phi - old))
            _, at, inside = _side(p_to, first, n, ROWS)
            tl.store(at, phi, mask=inside)
            power = (tl.where(weight > 0, tl.log2(weight), -FAR) + phi)[:, None] - c * inverse
            higher = tl.maximum(top, tl.max(power, 0))
            sums = sums * tl.exp2(top - higher) + tl.sum(tl.exp2(power - higher[None, :]), 0)
            top = higher
        tl.debug_barrier()
        columns = tl.where(b > 0, -top - tl.log2(sums), 0.0)
        if RELAXED:
            columns = psi + relaxation * (columns - psi)
        next_psi = columns
    return psi, next_psi, column_error(b, psi, next_psi, relaxation, RELAXED)


@triton.jit
def _log_rows(cost, weight, log_b, psi):
    """phi_i = -log sum_j b_j exp(psi_j - C_ij): what makes the rows right; 0 where a row carries nothing."""
    power = (log_b + psi)[None, :] - cost
    top = tl.max(power, 1)
    return tl.where(weight > 0, -top - tl.log2(tl.sum(tl.exp2(power - top[:, None]), 1)), 0.0)


@triton.jit
def _finish(
    cost, a, b, psi, phi_at, p_at, f_out, epsilon, n, width, ROWS: tl.constexpr, BLOCK_M: tl.constexpr
):
    """Writes f; the part of the value that rows have: sum f a - epsilon (sum T - 1)."""
    tl.debug_barrier()
    inverse = LOG2E / epsilon
    value, mass = tl.zeros((ROWS,), tl.float32), tl.zeros((ROWS,), tl.float32)
    for first in range(0, n, ROWS):
        c, _, _ = _block(cost, first, n, width, FAR, ROWS, BLOCK_M)
        weight, _, _ = _side(a, first, n, ROWS)
        base, _, _ = _side(phi_at, first, n, ROWS)
        p, _, _ = _side(p_at, first, n, ROWS)
        phi = base + p
        share = tl.exp2(phi[:, None] + psi[None, :] - c * inverse)
        mass += weight * tl.sum(share * b[None, :], 1)
        value += weight * phi / inverse
        _, at, inside = _side(f_out, first, n, ROWS)
        tl.store(at, phi / inverse, mask=inside)
    return tl.sum(value, 0) - epsilon * (tl.sum(mass, 0) - 1)
