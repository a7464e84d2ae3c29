"""Sinkhorn's iterations with the kernel matrix in registers: one Triton program an item.

The cost is wanted only when the kernel is made anew, and waits in memory: both would not fit.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from avalign.kernels.solution import Solution
from avalign.kernels.triton.cosine import FAR, per_epsilon
from avalign.kernels.triton.inputs import COMPILED, Inputs, padded
from avalign.kernels.triton.iterations import (
    ROUGH_ITERATIONS,
    WINDOW,
    column_error,
    first_window,
    in_range,
    inverse_of,
    log_rows,
    log_sums,
    log_weights,
    next_window,
    stages_of,
    write_answer,
)

MOST_IN_REGISTERS = 256 * 64  # elements of one item's matrix, padded: more would spill


def in_registers(inputs: Inputs, out: Solution) -> None:
    n, m, *_ = inputs.sizes
    solve_in_registers[(len(inputs.a),)](
        *inputs.sides, inputs.cost, inputs.broken, *out, *inputs.sizes, *inputs.settings,
        **inputs.modes, **register_blocks(n, m),
    )  # fmt: skip


def register_blocks(n: int, m: int) -> dict[str, Any]:
    """How solve_in_registers is compiled for such a problem."""
    rows, columns = padded(n), padded(m)
    elements = rows * columns
    warps = 1 if elements <= 256 else 4 if elements <= 4096 else 8
    return {"BLOCK_N": rows, "BLOCK_M": columns, "num_warps": warps, **COMPILED}


@triton.jit(do_not_specialize=["n", "m", "iterations", "blocks"])
def solve_in_registers(
    a, b, init_g, cost, broken, value_out, f_out, g_out, error_out, iterations_out,
    n, m, width, blocks, epsilon, iterations, tolerance,
    WARM: tl.constexpr, RELAXED: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """One item a program, n <= BLOCK_N, m <= width <= BLOCK_M: value and potentials from its cost.

    RELAXED: iterations until the error is `tolerance`; else exactly `iterations` plain ones

    Shapes: a, f_out (b, n), b, init_g, g_out (b, m), cost (b, n, width), broken (b, blocks), the other
            outputs (b,), all contiguous
    """
    item = tl.program_id(0).to(tl.int64)
    rows, columns = tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_M)
    a = tl.load(a + item * n + rows, mask=rows < n, other=0.0)
    b = tl.load(b + item * m + columns, mask=columns < m, other=0.0)
    cost += item * n * width

    psi = tl.zeros((BLOCK_M,), tl.float32)
    stage = tl.zeros((), tl.int32)
    if WARM:
        psi = tl.load(init_g + item * m + columns, mask=b > 0, other=0.0) * per_epsilon(epsilon)
    elif RELAXED:
        stage = stages_of(_widest_row(_scaled(cost, 1.0, n, width, BLOCK_N, BLOCK_M), a, b) / epsilon)
    phi = tl.zeros((BLOCK_N,), tl.float32)
    error = tl.max(a, 0) * 0
    spent = tl.zeros((), tl.int32)
    while stage >= 0:
        inverse = inverse_of(epsilon, stage)
        left = tl.where(stage > 0, ROUGH_ITERATIONS, iterations)
        phi = log_rows(_scaled(cost, inverse, n, width, BLOCK_N, BLOCK_M), a, log_weights(b), psi)
        kernel = _kernel(cost, inverse, phi, psi, n, width, BLOCK_N, BLOCK_M)
        base_phi, base_psi = phi, psi
        p, q = phi * 0, psi * 0
        relaxation, most, before, best, rises = first_window(inverse)
        while left > 0:
            count = tl.minimum(left, WINDOW)
            last_p, last_q, next_q, error = _window(kernel, a, b, p, q, relaxation, count, RELAXED)
            phi, psi = base_phi + last_p, base_psi + last_q
            if error != error:
                phi, psi, next_psi, error = _log_window(
                    cost, inverse, a, b, base_phi + p, base_psi + q, relaxation, count, n, width,
                    RELAXED, BLOCK_N, BLOCK_M,
                )  # fmt: skip
                kernel = _kernel(cost, inverse, phi, next_psi, n, width, BLOCK_N, BLOCK_M)
                base_phi, base_psi = phi, next_psi
                last_p, next_q = phi * 0, psi * 0
            p, q = last_p, next_q
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

    inverse = per_epsilon(epsilon)
    kernel = _kernel(cost, inverse, phi, psi, n, width, BLOCK_N, BLOCK_M)
    mass = tl.sum(a * tl.sum(kernel * b[None, :], 1), 0)
    f, g = phi / inverse, psi / inverse
    value = tl.sum(f * a, 0) - epsilon * (mass - 1)
    tl.store(f_out + item * n + rows, f, mask=rows < n)
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
def _scaled(cost, inverse, n, width, BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr):
    """The cost of one item, in units of epsilon."""
    rows, columns = tl.arange(0, BLOCK_N)[:, None], tl.arange(0, BLOCK_M)[None, :]
    return tl.load(cost + rows * width + columns, mask=(rows < n) & (columns < width), other=FAR) * inverse


@triton.jit
def _widest_row(cost, a, b):
    """The most that one row's costs differ by."""
    most = tl.max(tl.where((b > 0)[None, :], cost, -FAR), 1)
    return tl.max(tl.where(a > 0, most - tl.min(cost, 1), 0.0), 0)


@triton.jit
def _kernel(cost, inverse, phi, psi, n, width, BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr):
    return tl.exp2(phi[:, None] + psi[None, :] - _scaled(cost, inverse, n, width, BLOCK_N, BLOCK_M))


@triton.jit
def _window(kernel, a, b, p, q, relaxation, count, RELAXED: tl.constexpr):
    """`count` iterations by products with the kernel, from scalings p and q (logarithms): p with exact rows,
    the q it is exact for, the next q, the error. All NaN if a scaling left the kernel's range."""
    next_q = q + 0.0  # a value of its own: Triton takes a name for unchanged that is bound to another's value
    for k in range(count):
        q = next_q
        rows = -tl.log2(tl.sum(kernel * (b * tl.exp2(q))[None, :], 1))
        if RELAXED:
            rows = tl.where(k == count - 1, rows, p + relaxation * (rows - p))
        p = in_range(tl.where(a > 0, rows, 0.0))
        columns = -tl.log2(tl.sum(kernel * (a * tl.exp2(p))[:, None], 0))
        if RELAXED:
            columns = q + relaxation * (columns - q)
        next_q = in_range(tl.where(b > 0, columns, 0.0))
    return p, q, next_q, column_error(b, q, next_q, relaxation, RELAXED)


@triton.jit
def _log_window(
    cost, inverse, a, b, phi, psi, relaxation, count, n, width,
    RELAXED: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """The same iterations on logarithms: slower, and right for any epsilon."""
    next_psi = psi + 0.0  # a value of its own, as in _window
    for k in range(count):
        psi = next_psi
        rows = log_rows(_scaled(cost, inverse, n, width, BLOCK_N, BLOCK_M), a, log_weights(b), psi)
        if RELAXED:
            rows = tl.where(k == count - 1, rows, phi + relaxation * (rows - phi))
        phi = rows
        tl.debug_barrier()  # so that the cost is read again rather than kept: there is no room
        columns = _log_columns(_scaled(cost, inverse, n, width, BLOCK_N, BLOCK_M), a, b, phi)
        if RELAXED:
            columns = psi + relaxation * (columns - psi)
        next_psi = columns
    return phi, psi, next_psi, column_error(b, psi, next_psi, relaxation, RELAXED)


@triton.jit
def _log_columns(cost, a, b, phi):
    return tl.where(b > 0, -log_sums((log_weights(a) + phi)[:, None] - cost, 0), 0.0)
