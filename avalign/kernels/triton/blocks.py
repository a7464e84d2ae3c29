"""One item's cost in memory, in blocks of whole rows: what the streamed and the split tier read of it."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from avalign.kernels.triton.cosine import FAR
from avalign.kernels.triton.inputs import COMPILED, padded

MOST_COLUMNS = 8192  # of a block that holds whole rows
BLOCK_ELEMENTS = 8192  # of a block, of fewer rows the longer they are
FEW_ROWS = tl.constexpr(2)  # of a block, whose sums over thousands of them must not lose what rounding does
STAGES = tl.constexpr(
    3
)  # blocks under way at a time, so that an iteration waits for bandwidth, not for answers


def row_blocks(m: int) -> dict[str, Any]:
    """How kernels on blocks of whole rows are compiled for m columns."""
    columns = padded(m)
    return {"BLOCK_M": columns, "ROWS": BLOCK_ELEMENTS // columns, "num_warps": 8, **COMPILED}


@triton.jit
def block(matrix, first, n, width, other, ROWS: tl.constexpr, BLOCK_M: tl.constexpr):
    """Rows `first` and on of a matrix, and where they are."""
    rows, columns = first + tl.arange(0, ROWS), tl.arange(0, BLOCK_M)
    at = matrix + rows.to(tl.int64)[:, None] * width + columns[None, :]
    inside = (rows < n)[:, None] & (columns < width)[None, :]
    return tl.load(at, mask=inside, other=other), at, inside


@triton.jit
def side(vector, first, n, ROWS: tl.constexpr):
    """Entries `first` and on of a vector over rows, and where they are."""
    rows = first + tl.arange(0, ROWS)
    return tl.load(vector + rows, mask=rows < n, other=0.0), vector + rows, rows < n


@triton.jit
def widest_row(cost, a, b, first_row, end, n, width, ROWS: tl.constexpr, BLOCK_M: tl.constexpr):
    """The most that the costs of one row, of those from `first_row` to `end`, differ by."""
    widest = tl.zeros((ROWS,), tl.float32)
    for first in range(first_row, end, ROWS):
        c, _, _ = block(cost, first, n, width, FAR, ROWS, BLOCK_M)
        weight, _, _ = side(a, first, n, ROWS)
        most = tl.max(tl.where((b > 0)[None, :], c, -FAR), 1)
        widest = tl.maximum(widest, tl.where(weight > 0, most - tl.min(c, 1), 0.0))
    return tl.max(widest, 0)


@triton.jit
def add(sums, lost, more):
    """A sum that goes on for thousands of terms, with what its rounding lost so far: without that, 3000
    terms of one sign are off by 3e-5 of their sum, always to one side.

    Source: Kahan, Further remarks on reducing truncation errors, 1965
    """
    more = more - lost
    total = sums + more
    return total, (total - sums) - more


@triton.jit
def no_rows(ROWS: tl.constexpr, BLOCK_M: tl.constexpr):
    """What add_rows begins from."""
    if ROWS <= FEW_ROWS:
        return tl.zeros((BLOCK_M,), tl.float32)
    else:
        return tl.zeros((ROWS, BLOCK_M), tl.float32)


@triton.jit
def add_rows(sums, lost, more, ROWS: tl.constexpr):
    """The sums of each column so far, and what their rounding lost; `more`: a block of rows.

    Blocks of many rows are added up place by place: each place has few terms, and needs no more registers.
    Shapes: sums, lost (BLOCK_M,) where ROWS <= FEW_ROWS, else sums (ROWS, BLOCK_M); more (ROWS, BLOCK_M)
    """
    if ROWS <= FEW_ROWS:
        return add(sums, lost, tl.sum(more, 0))
    else:
        return sums + more, lost


@triton.jit
def powers(top, power):
    """The largest power so far, what earlier sums fall by for it, and a block's sums over rows of exp(power)
    below it. Shapes: top (BLOCK_M,), power (ROWS, BLOCK_M)"""
    higher = tl.maximum(top, tl.max(power, 0))
    return higher, tl.exp2(top - higher), tl.sum(tl.exp2(power - higher[None, :]), 0)


@triton.jit
def value_of_rows(c, weight, b, phi, psi, inverse):
    """What each row adds to the value: f a, and the mass it carries."""
    share = tl.exp2(phi[:, None] + psi[None, :] - c * inverse)
    return weight * phi / inverse, weight * tl.sum(share * b[None, :], 1)
