"""Gradients of the dual value to both sets of features: the plan made again in blocks, then two products.

The gradient to the cost is the plan T, so that to x_i is -sum_j T_ij y_j / (|x_i| |y_j|) + s_i x_i with
s_i = sum_j T_ij cos_ij / |x_i|^2, and likewise to y_j. Sums over blocks are made in order, without atomics.
"""

from __future__ import annotations

import triton
import triton.language as tl

from avalign.kernels.triton.cosine import cosine_block, per_epsilon


@triton.jit(do_not_specialize=["n", "m"])
def write_plan(
    x, y, a, b, f, g, plan, x_part, y_part,
    n, m, d, width, x_item, x_row, y_item, y_row, epsilon,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """A block of T_ij / (|x_i| |y_j|) a program, and what it adds to s.

    Shapes: a, f (b, n), b, g (b, m), plan (b, n, width), x_part (b, blocks of m, n), y_part (b, blocks of
            n, m), all contiguous
    """
    item = tl.program_id(0).to(tl.int64)
    rows = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    columns = tl.program_id(2) * BLOCK_M + tl.arange(0, BLOCK_M)
    a = tl.load(a + item * n + rows, mask=rows < n, other=0.0)
    b = tl.load(b + item * m + columns, mask=columns < m, other=0.0)
    f = tl.load(f + item * n + rows, mask=a > 0, other=0.0)
    g = tl.load(g + item * m + columns, mask=b > 0, other=0.0)
    cosine, x_inverse, y_inverse, _ = cosine_block(
        x + item * x_item, y + item * y_item, rows, columns, a > 0, b > 0, d, x_row, y_row,
        BLOCK_N, BLOCK_M, BLOCK_D, PRECISION, UPCAST,
    )  # fmt: skip
    power = (f[:, None] + g[None, :] - (1 - cosine)) * per_epsilon(epsilon)
    support = (a > 0)[:, None] & (b > 0)[None, :]
    carried = a[:, None] * b[None, :] * tl.exp2(tl.where(support, power, 0.0))
    at = plan + (item * n + rows.to(tl.int64))[:, None] * width + columns[None, :]
    weights = carried * (x_inverse[:, None] * y_inverse[None, :])
    inside = (rows < n)[:, None] & (columns < width)[None, :]
    tl.store(at, weights.to(plan.dtype.element_ty), mask=inside)
    aligned = carried * cosine
    x_at = x_part + (item * tl.num_programs(2) + tl.program_id(2)) * n + rows
    tl.store(x_at, tl.sum(aligned, 1) * x_inverse * x_inverse, mask=rows < n)
    y_at = y_part + (item * tl.num_programs(1) + tl.program_id(1)) * m + columns
    tl.store(y_at, tl.sum(aligned, 0) * y_inverse * y_inverse, mask=columns < m)


@triton.jit(do_not_specialize=["n", "m", "parts"])
def write_gradient(
    x, y, a, b, plan, part, upstream, out,
    n, m, d, width, parts, x_item, x_row, y_item, y_row,
    FLIPPED: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """A block (BLOCK_N tokens, BLOCK_D features) of one item's gradient to x a program.

    FLIPPED: x is the second set of features, and the plan is read the other way round

    Shapes: a (b, n), b (b, m), part (b, parts, n), upstream (b,), out (b, n, d); plan (b, n, width), or
            (b, m, width) where FLIPPED; all contiguous
    """
    item = tl.program_id(0).to(tl.int64)
    rows = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    k = (tl.program_id(2) * BLOCK_D + tl.arange(0, BLOCK_D))[None, :]
    real_rows = tl.load(a + item * n + rows, mask=rows < n, other=0.0) > 0
    sums = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    for first in range(0, m, BLOCK_M):
        columns = first + tl.arange(0, BLOCK_M)
        real_columns = tl.load(b + item * m + columns, mask=columns < m, other=0.0) > 0
        y_at = y + item * y_item + columns.to(tl.int64)[:, None] * y_row + k
        y_block = tl.load(y_at, mask=real_columns[:, None] & (k < d), other=0.0)
        if FLIPPED:
            at = plan + (item * m + columns.to(tl.int64))[:, None] * width + rows[None, :]
            weights = tl.load(at, mask=(columns < m)[:, None] & (rows < width)[None, :], other=0.0)
            weights = tl.trans(weights)
        else:
            at = plan + (item * n + rows.to(tl.int64))[:, None] * width + columns[None, :]
            weights = tl.load(at, mask=(rows < n)[:, None] & (columns < width)[None, :], other=0.0)
        if UPCAST:
            y_wide = y_block.to(tl.float32)
            sums = tl.dot(weights.to(tl.float32), y_wide, sums, input_precision=PRECISION)
        else:
            sums = tl.dot(weights, y_block, sums)
    s = tl.zeros((BLOCK_N,), tl.float32)
    for index in range(parts):
        s += tl.load(part + (item * parts + index) * n + rows, mask=rows < n, other=0.0)
    x_at = x + item * x_item + rows.to(tl.int64)[:, None] * x_row + k
    x_block = tl.load(x_at, mask=real_rows[:, None] & (k < d), other=0.0).to(tl.float32)
    gradient = tl.load(upstream + item).to(tl.float32) * (s[:, None] * x_block - sums)
    at = out + (item * n + rows.to(tl.int64))[:, None] * d + k
    tl.store(at, gradient.to(out.dtype.element_ty), mask=(rows < n)[:, None] & (k < d))
