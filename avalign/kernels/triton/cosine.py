"""Cosines between blocks of tokens, and the cost made of them."""

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
FAR = tl.constexpr(1e30)  # the cost of what carries nothing: finite, so that no infinity meets another
TINY = tl.constexpr(1.1754943508222875e-38)  # squared norms up to this are the zero vector's
INFINITY = tl.constexpr(float("inf"))
PIECE = tl.constexpr(128)  # numbers that are read at a time where few are wanted


@triton.jit
def per_epsilon(epsilon):
    """What takes costs to units of epsilon, for powers of 2.

    A constant stands to the right of a tensor, or is made one: the interpreter of some releases of Triton
    takes "constant / tensor" for a constant, and refuses it where it is compared.
    """
    return tl.full((), LOG2E, tl.float32) / epsilon


@triton.jit
def cosine_block(
    x, y, rows, columns, real_rows, real_columns, d, x_row, y_row,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """cos(x_i, y_j) of a block; 1 / |x_i| and 1 / |y_j|, 0 for the zero vector; how many real tokens are
    not finite. What is not real is never read.

    x, y: of one item, the last dimension contiguous, x_row and y_row elements from token to token
    UPCAST: products of float32 made of the features, as PRECISION says (tf32x3: float32's own but for 1e-7)

    Shapes: rows, real_rows (BLOCK_N,), columns, real_columns (BLOCK_M,)
    """
    products = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    x_square, y_square = tl.zeros((BLOCK_N,), tl.float32), tl.zeros((BLOCK_M,), tl.float32)
    x_at = x + rows.to(tl.int64)[:, None] * x_row
    y_at = y + columns.to(tl.int64)[:, None] * y_row
    for first in range(0, d, BLOCK_D):
        k = first + tl.arange(0, BLOCK_D)[None, :]
        x_block = tl.load(x_at + k, mask=real_rows[:, None] & (k < d), other=0.0)
        y_block = tl.load(y_at + k, mask=real_columns[:, None] & (k < d), other=0.0)
        x_wide, y_wide = x_block.to(tl.float32), y_block.to(tl.float32)
        x_square += tl.sum(x_wide * x_wide, 1)
        y_square += tl.sum(y_wide * y_wide, 1)
        if UPCAST:
            products = tl.dot(x_wide, tl.trans(y_wide), products, input_precision=PRECISION)
        else:
            products = tl.dot(x_block, tl.trans(y_block), products)
    x_inverse, y_inverse = _inverse_norm(x_square), _inverse_norm(y_square)
    broken = tl.sum((x_square < INFINITY).to(tl.int32) - 1, 0) + tl.sum(
        (y_square < INFINITY).to(tl.int32) - 1, 0
    )
    return products * x_inverse[:, None] * y_inverse[None, :], x_inverse, y_inverse, -broken


@triton.jit
def _inverse_norm(square):
    return tl.where(square > TINY, 1 / tl.sqrt(tl.maximum(square, TINY)), 0.0)


@triton.jit(do_not_specialize=["n", "m"])
def write_cost(
    x, y, a, b, cost, broken_out,
    n, m, d, width, x_item, x_row, y_item, y_row,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """A block of one item's cost a program; FAR where nothing is carried, the padding of rows included.

    Shapes: cost (b, n, width), width >= m; broken_out (b, blocks of n, blocks of m), how many tokens of a
            block's rows and columns are not finite
    """
    item = tl.program_id(0).to(tl.int64)
    rows = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    columns = tl.program_id(2) * BLOCK_M + tl.arange(0, BLOCK_M)
    real_rows = tl.load(a + item * n + rows, mask=rows < n, other=0.0) > 0
    real_columns = tl.load(b + item * m + columns, mask=columns < m, other=0.0) > 0
    cosine, _, _, broken = cosine_block(
        x + item * x_item, y + item * y_item, rows, columns, real_rows, real_columns, d, x_row, y_row,
        BLOCK_N, BLOCK_M, BLOCK_D, PRECISION, UPCAST,
    )  # fmt: skip
    finite = tl.where(broken > 0, 1.0, 1 - cosine)
    at = cost + (item * n + rows.to(tl.int64))[:, None] * width + columns[None, :]
    inside = (rows < n)[:, None] & (columns < width)[None, :]
    tl.store(at, tl.where(real_rows[:, None] & real_columns[None, :], finite, FAR), mask=inside)
    block = (item * tl.num_programs(1) + tl.program_id(1)) * tl.num_programs(2) + tl.program_id(2)
    tl.store(broken_out + block, broken)


@triton.jit
def sum_of(parts, count):
    """The sum of `count` numbers in memory, in an order that `count` alone sets."""
    sums = tl.zeros((PIECE,), parts.dtype.element_ty)
    for first in range(0, count, PIECE):
        k = first + tl.arange(0, PIECE)
        sums += tl.load(parts + k, mask=k < count, other=0)
    return tl.sum(sums, 0)
