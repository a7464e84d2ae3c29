"""Sinkhorn's iterations with the rows of an item shared out among programs: few items of many tokens.

An iteration is two launches: each program makes its own rows right and adds them up, column by column; others
add the programs' sums together. A third, after each window, looks at the error and says what comes next.
Between launches all stores are seen, so no program ever waits for another and any card can run any number
of them; every sum has its order, so the bits are the same each time; what an item is to do stands in
memory, so items stop by themselves and a launch whose items are all done ends at once.

Iterations are made on logarithms, from the cost: exponentials spread over a whole card are not what it waits
for, and there is neither a kernel to keep nor a range to leave.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl

from avalign.kernels.solution import Solution
from avalign.kernels.triton.blocks import STAGES, block, powers, row_blocks, side, value_of_rows, widest_row
from avalign.kernels.triton.cosine import FAR, per_epsilon, sum_of
from avalign.kernels.triton.inputs import COMPILED, Inputs, empty, padded
from avalign.kernels.triton.iterations import (
    EASY_REACH,
    ROUGH_ITERATIONS,
    WINDOW,
    column_error,
    inverse_of,
    log_rows,
    log_weights,
    write_answer,
)
from avalign.kernels.triton.progress import (
    BEFORE,
    COUNT,
    ERROR,
    ITEM_BLOCKS,
    RELAXATION,
    SPENT,
    STAGE,
    STATE,
    begin_split,
    end_window,
    slot_of,
)

LEAST_ROWS = 16  # of a program: what it adds up is written and read once for so many rows of cost
SYNCHRONIZE_EVERY = 2  # windows launched between two looks whether all items are done
FARTHEST = 2.001  # what cosine costs span at most, roundings included


def split(inputs: Inputs, out: Solution, synchronize: bool) -> None:
    """synchronize: ask the device now and then whether all items are done, and launch no more; else every
    iteration that there may be is launched, as a CUDA graph must."""
    items, (n, m, width, blocks) = len(inputs.a), inputs.sizes
    a, b, init_g = inputs.sides
    shares, columns = share_blocks(m), column_blocks()
    parts, column_parts = triton.cdiv(n, shares["EACH"]), triton.cdiv(m, columns["BLOCK_M"])
    ints = torch.empty(items, STATE.value, dtype=torch.int32, device=a.device)
    real, off = empty(a, items, STATE.value), empty(a, items, column_parts)
    f, g = empty(a, items, 2, n).zero_(), empty(a, items, 2, m).zero_()
    sums, part = empty(a, items, parts, width), empty(a, items, parts)
    by_share, by_columns, by_item = (items * parts,), (items, column_parts), (items,)
    epsilon, iterations, tolerance = inputs.settings
    relaxed, most_stages = inputs.modes["RELAXED"], 0
    if inputs.init_g is not None:
        g[:, 0] = torch.where(b > 0, init_g, 0)
    elif relaxed:
        most_stages = max(0, math.ceil(math.log2(FARTHEST / epsilon / EASY_REACH.value)))
        write_reach[by_share](a, b, inputs.cost, part, n, m, width, parts, **shares)
    begin_split[by_item](part, ints, real, parts, epsilon, iterations, most_stages, **ITEM_BLOCKS)

    left = most_stages * ROUGH_ITERATIONS.value + iterations
    for window in range(triton.cdiv(left, WINDOW.value)):
        for k in range(min(WINDOW.value, left)):
            make_rows[by_share](
                a, b, inputs.cost, f, g, sums, ints, real, n, m, width, parts, epsilon, k,
                RELAXED=relaxed, **shares,
            )  # fmt: skip
            make_columns[by_columns](
                b, sums, g, off, ints, real, m, width, parts, epsilon, k, RELAXED=relaxed, **columns
            )
        end_window[by_item](
            off, ints, real, column_parts, iterations, tolerance, RELAXED=relaxed, **ITEM_BLOCKS
        )
        left -= WINDOW.value
        if (
            synchronize
            and relaxed
            and window % SYNCHRONIZE_EVERY == SYNCHRONIZE_EVERY - 1
            and not ints[:, COUNT.value].any()
        ):
            break

    write_shares[by_share](a, b, inputs.cost, f, g, part, out.f, ints, n, m, width, parts, epsilon, **shares)
    answer_split[by_item](
        b, g, part, inputs.broken, out.value, out.g, out.error, out.iterations, ints, real, m, parts, blocks,
        epsilon, **answer_blocks(m),
    )  # fmt: skip


def share_blocks(m: int) -> dict[str, Any]:
    """How kernels are compiled whose programs take EACH rows of an item: set by m alone, so that an item's
    sums have the same order whatever comes with it and wherever."""
    rows = row_blocks(m)
    return {"EACH": max(LEAST_ROWS, rows["ROWS"]), **rows}


def column_blocks() -> dict[str, Any]:
    """How make_columns is compiled: PARTS programs' sums of BLOCK_M columns at a time."""
    return {"PARTS": 64, "BLOCK_M": 32, "num_warps": 4, **COMPILED}


def answer_blocks(m: int) -> dict[str, Any]:
    """How answer_split is compiled."""
    return {"BLOCK_M": padded(m), "num_warps": 4, **COMPILED}


@triton.jit
def _share(parts, n, EACH: tl.constexpr):
    """Which item a program works on, and its rows of it."""
    item = (tl.program_id(0) // parts).to(tl.int64)
    first = (tl.program_id(0) % parts) * EACH
    return item, first, tl.minimum(first + EACH, n)


@triton.jit(do_not_specialize=["n", "m", "parts"])
def write_reach(
    a, b, cost, part, n, m, width, parts, EACH: tl.constexpr, ROWS: tl.constexpr, BLOCK_M: tl.constexpr
):
    """The most that the costs of one row differ by, of a program's rows. Shapes: part (b, parts)"""
    item, first, end = _share(parts, n, EACH)
    columns = tl.arange(0, BLOCK_M)
    b = tl.load(b + item * m + columns, mask=columns < m, other=0.0)
    widest = widest_row(cost + item * n * width, a + item * n, b, first, end, n, width, ROWS, BLOCK_M)
    tl.store(part + tl.program_id(0), widest)


@triton.jit(do_not_specialize=["n", "m", "parts", "k"])
def make_rows(
    a, b, cost, f, g, sums, ints, real, n, m, width, parts, epsilon, k,
    RELAXED: tl.constexpr, EACH: tl.constexpr, ROWS: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """Iteration k of a window: a program's rows, and the logarithms of what they add up to in each column.

    Shapes: a (b, n), b (b, m), cost (b, n, width), f (b, 2, n) and g (b, 2, m) in units of the cost, sums
            (b, parts, width)
    """
    item, first, end = _share(parts, n, EACH)
    ints, real = ints + item * STATE, real + item * STATE
    count = tl.load(ints + COUNT)
    if k < count:
        inverse = inverse_of(epsilon, tl.load(ints + STAGE))
        slot = slot_of(ints, k)
        columns = tl.arange(0, BLOCK_M)
        log_b = log_weights(tl.load(b + item * m + columns, mask=columns < m, other=0.0))
        psi = tl.load(g + (item * 2 + slot) * m + columns, mask=columns < m, other=0.0) * inverse
        a, cost = a + item * n, cost + item * n * width
        f_from, f_to = f + (item * 2 + slot) * n, f + (item * 2 + 1 - slot) * n
        relaxation = tl.load(real + RELAXATION)
        # A window ends with right rows, and the first of a stage begins from them.
        right = (k == count - 1) | ((k == 0) & (tl.load(real + BEFORE) == FAR))
        top, total = psi * 0 - FAR, psi * 0
        for row in tl.range(first, end, ROWS, num_stages=STAGES):
            c, _, _ = block(cost, row, n, width, FAR, ROWS, BLOCK_M)
            weight, _, _ = side(a, row, n, ROWS)
            phi = log_rows(c * inverse, weight, log_b, psi)
            if RELAXED:
                old, _, _ = side(f_from, row, n, ROWS)
                old = old * inverse
                phi = tl.where(right, phi, old + relaxation * (phi - old))
            _, at, inside = side(f_to, row, n, ROWS)
            tl.store(at, phi / inverse, mask=inside)
            top, fall, more = powers(top, (log_weights(weight) + phi)[:, None] - c * inverse)
            total = total * fall + more
        at = sums + tl.program_id(0).to(tl.int64) * width + columns
        tl.store(at, top + tl.log2(total), mask=columns < width)


@triton.jit(do_not_specialize=["m", "parts", "k"])
def make_columns(
    b, sums, g, off, ints, real, m, width, parts, epsilon, k,
    RELAXED: tl.constexpr, PARTS: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """Iteration k of a window: a block of columns a program, and how far off they were.

    Shapes: off (b, blocks of columns), the rest as make_rows'
    """
    item = tl.program_id(0).to(tl.int64)
    ints, real = ints + item * STATE, real + item * STATE
    if k < tl.load(ints + COUNT):
        inverse = inverse_of(epsilon, tl.load(ints + STAGE))
        slot = slot_of(ints, k)
        columns = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
        weight = tl.load(b + item * m + columns, mask=columns < m, other=0.0)
        psi = tl.load(g + (item * 2 + slot) * m + columns, mask=columns < m, other=0.0) * inverse
        relaxation = tl.load(real + RELAXATION)
        top, total = psi * 0 - FAR, psi * 0
        for first in range(0, parts, PARTS):
            part = first + tl.arange(0, PARTS)
            at = sums + (item * parts + part)[:, None] * width + columns[None, :]
            inside = (part < parts)[:, None] & (columns < m)[None, :]
            top, fall, more = powers(top, tl.load(at, mask=inside, other=-FAR))
            total = total * fall + more
        next_psi = tl.where(weight > 0, -top - tl.log2(total), 0.0)
        if RELAXED:
            next_psi = psi + relaxation * (next_psi - psi)
        tl.store(g + (item * 2 + 1 - slot) * m + columns, next_psi / inverse, mask=columns < m)
        error = column_error(weight, psi, next_psi, relaxation, RELAXED)
        tl.store(off + item * tl.num_programs(1) + tl.program_id(1), error)


@triton.jit(do_not_specialize=["n", "m", "parts"])
def write_shares(
    a, b, cost, f, g, part, f_out, ints, n, m, width, parts, epsilon,
    EACH: tl.constexpr, ROWS: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """A program's rows of f, and what they add to the value. Shapes: part (b, parts), f_out (b, n)"""
    item, first, end = _share(parts, n, EACH)
    slot = slot_of(ints + item * STATE, 0)
    inverse = per_epsilon(epsilon)
    columns = tl.arange(0, BLOCK_M)
    b = tl.load(b + item * m + columns, mask=columns < m, other=0.0)
    psi = tl.load(g + (item * 2 + slot) * m + columns, mask=columns < m, other=0.0) * inverse
    value, mass = tl.zeros((ROWS,), tl.float32), tl.zeros((ROWS,), tl.float32)
    for row in range(first, end, ROWS):
        c, _, _ = block(cost + item * n * width, row, n, width, FAR, ROWS, BLOCK_M)
        weight, _, _ = side(a + item * n, row, n, ROWS)
        mine, _, _ = side(f + (item * 2 + 1 - slot) * n, row, n, ROWS)
        more_value, more_mass = value_of_rows(c, weight, b, mine * inverse, psi, inverse)
        value += more_value
        mass += more_mass
        _, at, inside = side(f_out + item * n, row, n, ROWS)
        tl.store(at, mine, mask=inside)
    tl.store(part + tl.program_id(0), tl.sum(value, 0) - epsilon * tl.sum(mass, 0))


@triton.jit(do_not_specialize=["m", "parts", "blocks"])
def answer_split(
    b, g, part, broken, value_out, g_out, error_out, iterations_out, ints, real, m, parts, blocks, epsilon,
    BLOCK_M: tl.constexpr,
):  # fmt: skip
    """One item a program: its answer but for f, from the parts of the value that `part` (b, parts) holds."""
    item = tl.program_id(0).to(tl.int64)
    ints, real = ints + item * STATE, real + item * STATE
    columns = tl.arange(0, BLOCK_M)
    b = tl.load(b + item * m + columns, mask=columns < m, other=0.0)
    g = tl.load(g + (item * 2 + slot_of(ints, 0)) * m + columns, mask=columns < m, other=0.0)
    value = sum_of(part + item * parts, parts) + epsilon
    write_answer(
        item, columns, m, b, value, g, tl.load(real + ERROR), tl.load(ints + SPENT), broken, blocks,
        value_out, g_out, error_out, iterations_out,
    )  # fmt: skip
