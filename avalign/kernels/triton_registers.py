"""Sinkhorn's rounds with cost and kernel matrix in registers: one Triton program an item."""

from __future__ import annotations

import triton
import triton.language as tl

from avalign.kernels.triton_cosine import (
    FAR,
    FIRST_RELAXATION,
    LOG2E,
    MOST_RELAXATION,
    MOST_SCALING,
    ROUGH_ERROR,
    ROUGH_ROUNDS,
    WINDOW,
    cosine_block,
    relax,
    stages_of,
)


@triton.jit(do_not_specialize=["n", "m", "rounds"])
def solve_in_registers(
    x, y, a, b, start, value_out, f_out, g_out, error_out, rounds_out,
    n, m, d, x_item, x_row, y_item, y_row, epsilon, rounds, tolerance,
    STARTED: tl.constexpr, RELAXED: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """One item a program, n <= BLOCK_N, m <= BLOCK_M: features in, value and potentials out.

    RELAXED: rounds until the error is `tolerance`; else exactly `rounds` plain ones

    Shapes: a, f_out (b, n), b, start, g_out (b, m), the other outputs (b,), all contiguous
    """
    item = tl.program_id(0).to(tl.int64)
    rows, columns = tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_M)
    a = tl.load(a + item * n + rows, mask=rows < n, other=0.0)
    b = tl.load(b + item * m + columns, mask=columns < m, other=0.0)
    support = (a > 0)[:, None] & (b > 0)[None, :]
    cosine, _, _, broken = cosine_block(
        x + item * x_item, y + item * y_item, rows, columns, a > 0, b > 0, d, x_row, y_row,
        BLOCK_N, BLOCK_M, BLOCK_D, PRECISION, UPCAST,
    )  # fmt: skip
    # An item that is not finite is solved as one that is easy, and its value says what it was.
    cost = tl.where(support, tl.where(broken > 0, 1.0, 1 - cosine), FAR)
    log_a = tl.where(a > 0, tl.log2(a), -FAR)
    log_b = tl.where(b > 0, tl.log2(b), -FAR)

    psi = tl.zeros((BLOCK_M,), tl.float32)
    stage = tl.zeros((), tl.int32)
    if STARTED:
        psi = tl.load(start + item * m + columns, mask=b > 0, other=0.0) * (LOG2E / epsilon)
    elif RELAXED:
        spread = tl.where(support, cost - tl.min(cost, 1)[:, None], 0.0)
        stage = stages_of(tl.max(tl.max(spread, 1), 0) / epsilon)
    psi = psi * tl.exp2(-stage.to(tl.float32))
    phi = tl.zeros((BLOCK_N,), tl.float32)
    error = tl.max(a, 0) * 0
    spent = tl.zeros((), tl.int32)
    while stage >= 0:
        inverse = LOG2E / (epsilon * tl.exp2(stage.to(tl.float32)))
        left = tl.where(stage > 0, ROUGH_ROUNDS, rounds)
        wanted = tl.where(stage > 0, ROUGH_ERROR, tolerance)
        phi = _log_rows(cost, inverse, a, log_b, psi)
        base_phi, base_psi = phi, psi
        kernel = tl.exp2(phi[:, None] + psi[None, :] - cost * inverse)
        p, q = phi * 0, psi * 0
        relaxation, most = error * 0 + FIRST_RELAXATION, error * 0 + MOST_RELAXATION
        before, best = error * 0 + FAR, error * 0 + FAR
        while left > 0:
            count = tl.minimum(left, WINDOW)
            last_p, last_q, next_q, error, far = _window(kernel, a, b, p, q, relaxation, count, RELAXED)
            phi, psi = base_phi + last_p, base_psi + last_q
            if far > 0:
                phi, psi, next_psi, error = _log_window(
                    cost, inverse, a, b, log_a, log_b, base_phi + p, base_psi + q, relaxation, count, RELAXED
                )
                kernel = tl.exp2(phi[:, None] + next_psi[None, :] - cost * inverse)
                base_phi, base_psi = phi, next_psi
                last_p, next_q = phi * 0, psi * 0
            p, q = last_p, next_q
            spent += count
            left -= count
            if RELAXED:
                left = tl.where(error <= wanted, 0, left)
                relaxation, most, best = relax(relaxation, most, error, before, best)
                before = error
        stage -= 1
        if stage >= 0:
            psi = psi * 2  # the same potential, in units of half the epsilon

    inverse = LOG2E / epsilon
    share = tl.exp2(phi[:, None] + psi[None, :] - cost * inverse)
    mass = tl.sum(a * tl.sum(share * b[None, :], 1), 0)
    f, g = phi / inverse, psi / inverse
    value = tl.sum(f * a, 0) + tl.sum(g * b, 0) - epsilon * (mass - 1)
    nothing = tl.where(broken > 0, float("nan"), 0.0)
    tl.store(value_out + item, value + nothing)
    tl.store(error_out + item, error + nothing)
    tl.store(rounds_out + item, spent)
    tl.store(f_out + item * n + rows, f, mask=rows < n)
    tl.store(g_out + item * m + columns, g, mask=columns < m)


@triton.jit
def _window(kernel, a, b, p, q, relaxation, count, RELAXED: tl.constexpr):
    """`count` rounds by products with the kernel, from scalings p and q (logarithms): p with exact rows,
    the q it is exact for, the next q, the error, and whether a scaling left the kernel's range."""
    next_q, columns = q, q
    far_p, far_q = p * 0, q * 0
    for k in range(count):
        q = next_q
        rows = -tl.log2(tl.sum(kernel * (b * tl.exp2(q))[None, :], 1))
        if RELAXED:
            rows = tl.where(k == count - 1, rows, p + relaxation * (rows - p))
        p = tl.where(a > 0, rows, 0.0)
        columns = -tl.log2(tl.sum(kernel * (a * tl.exp2(p))[:, None], 0))
        columns = tl.where(b > 0, columns, 0.0)
        next_q = columns
        if RELAXED:
            next_q = q + relaxation * (columns - q)
        # Written so that NaN and infinity count as too far.
        far_p = tl.where(tl.abs(p) <= MOST_SCALING * LOG2E, far_p, 1.0)
        far_q = tl.where(tl.abs(next_q) <= MOST_SCALING * LOG2E, far_q, 1.0)
    error = tl.sum(b * tl.abs(tl.exp2(q - columns) - 1), 0)
    return p, q, next_q, error, tl.maximum(tl.max(far_p, 0), tl.max(far_q, 0))


@triton.jit
def _log_window(cost, inverse, a, b, log_a, log_b, phi, psi, relaxation, count, RELAXED: tl.constexpr):
    """The same rounds on logarithms: slower, and right for any epsilon."""
    next_psi, columns = psi, psi
    for k in range(count):
        psi = next_psi
        rows = _log_rows(cost, inverse, a, log_b, psi)
        if RELAXED:
            rows = tl.where(k == count - 1, rows, phi + relaxation * (rows - phi))
        phi = rows
        columns = _log_columns(cost, inverse, b, log_a, phi)
        next_psi = columns
        if RELAXED:
            next_psi = psi + relaxation * (columns - psi)
    return phi, psi, next_psi, tl.sum(b * tl.abs(tl.exp2(psi - columns) - 1), 0)


@triton.jit
def _log_rows(cost, inverse, a, log_b, psi):
    """phi_i = -log sum_j b_j exp(psi_j - C_ij): what makes the rows right; 0 where a row carries nothing."""
    power = (log_b + psi)[None, :] - cost * inverse
    top = tl.max(power, 1)
    return tl.where(a > 0, -top - tl.log2(tl.sum(tl.exp2(power - top[:, None]), 1)), 0.0)


@triton.jit
def _log_columns(cost, inverse, b, log_a, phi):
    power = (log_a + phi)[:, None] - cost * inverse
    top = tl.max(power, 0)
    return tl.where(b > 0, -top - tl.log2(tl.sum(tl.exp2(power - top[None, :]), 0)), 0.0)
