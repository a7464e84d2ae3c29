"""Cosines between blocks of tokens, and the rule of relaxation: what the Triton kernels have in common.

All logarithms and potentials inside the kernels are to base 2, in units of epsilon: the hardware's own.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
FAR = tl.constexpr(1e30)  # the cost of what carries nothing: finite, so that no infinity meets another
TINY = tl.constexpr(1.1754943508222875e-38)  # squared norms up to this are the zero vector's
INFINITY = tl.constexpr(float("inf"))

# How rounds go: avalign/ot/rounds.py tells why; both engines do the same.
WINDOW = tl.constexpr(6)
MOST_SCALING = tl.constexpr(30.0)
FIRST_RELAXATION = tl.constexpr(1.5)
MOST_RELAXATION = tl.constexpr(1.95)
GROWTH = tl.constexpr(2.0)
EASY_REACH = tl.constexpr(20.0)
ROUGH_ERROR = tl.constexpr(0.03)
ROUGH_ROUNDS = tl.constexpr(60)


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


@triton.jit
def stages_of(reach):
    """How many doublings of epsilon bring a problem that spans `reach` epsilons within easy reach."""
    return tl.ceil(tl.log2(tl.maximum(reach / EASY_REACH, 1.0))).to(tl.int32)


@triton.jit
def relax(relaxation, most, error, before, best):
    """The next window's relaxation, from the rate of the last one; the most it may be; the least error.

    FAR stands for an error not seen yet.

    Source: Hageman and Young, Applied Iterative Methods, 1981, section 9; as in avalign/ot/rounds.py
    """
    rate = tl.exp2(tl.log2(error / before) / WINDOW)
    away = rate + relaxation - 1
    theta = tl.minimum(away * away / tl.maximum(rate * relaxation * relaxation, 1e-30), 1 - 1e-4)
    called_for = 2 / (1 + tl.sqrt(1 - theta))
    slow = (rate > relaxation - 1) & (rate < 1)
    raised = tl.where(slow, tl.maximum(relaxation, called_for), relaxation)
    failing = (error > GROWTH * best) & (best < FAR)
    most = tl.where(failing, 1 + 0.8 * (relaxation - 1), most)
    best = tl.where(failing, error, tl.minimum(best, error))
    return tl.minimum(raised, most), most, best
