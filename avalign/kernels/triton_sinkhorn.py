"""Entropic transport under cosine distance on a GPU: features in, value, potentials and gradients out.

In Triton, for every NVIDIA GPU that it knows; on a CPU under its interpreter (TRITON_INTERPRET=1), for tests.
Nothing here waits for the device, all memory is torch's, and sums are made in a fixed order: a call can be
captured in a CUDA graph, and gives the same bits each time.

Each item's rounds are one program's. So a few items of 1000 x 1000 keep most of a GPU idle meanwhile; the
products before and after are spread over all of it.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import triton
from torch import Tensor

from avalign.kernels.solved import Solved
from avalign.kernels.triton_cosine import write_cost
from avalign.kernels.triton_gradient import write_gradient, write_plan
from avalign.kernels.triton_registers import solve_in_registers
from avalign.kernels.triton_streamed import solve_streamed

INTERPRETED = triton.knobs.runtime.interpret
MOST_IN_REGISTERS = 256 * 64  # elements of one item's matrix, padded: more would spill
MOST_COLUMNS = 8192  # of a block that holds whole rows
BLOCK_ELEMENTS = 8192  # of a streamed block, of fewer rows the longer they are
COMPILED = {"enable_fp_fusion": True}  # said aloud, as Triton asks


def tier(n: int, m: int, d: int) -> Literal["registers", "streamed"]:
    """Where the kernel matrix of n x m tokens of d features lives while it is iterated on."""
    if _padded(n) * _padded(m) <= MOST_IN_REGISTERS:
        return "registers"
    if _padded(m) <= MOST_COLUMNS:
        return "streamed"
    raise ValueError(f"the Triton kernels take at most {MOST_COLUMNS} target tokens an item, got {m}")


def forward(
    x: Tensor,
    y: Tensor,
    a: Tensor,
    b: Tensor,
    start: Tensor | None,
    *,
    epsilon: float,
    rounds: int,
    tolerance: float | None,
) -> Solved:
    """The plan T = a_i b_j exp((f_i + g_j - C_ij) / epsilon), C_ij = 1 - cos(x_i, y_j), and its value,

        sum f a + sum g b - epsilon (sum T - 1).

    tolerance: rounds are relaxed, and small epsilons approached from larger ones, until the error is no
               more than this, at most `rounds` at the last epsilon. None: exactly `rounds` of Sinkhorn's
               own, the last one left after its rows. As avalign/ot/rounds.py, round for round

    Shapes: x (b, n, d), y (b, m, d), float32, bfloat16 or float16, any strides; a (b, n), b and start, g to
            begin from, (b, m), float32. Features where a or b is 0 are never read
    """
    items, n, d = x.shape
    m = y.shape[1]
    place = tier(n, m, d)
    x, y, a, b = _rows_in_one_piece(x), _rows_in_one_piece(y), a.contiguous(), b.contiguous()
    done = torch.empty(items, dtype=torch.int32, device=x.device)
    out = Solved(_empty(x, (items,)), _empty(x, (items, n)), _empty(x, (items, m)), _empty(x, (items,)), done)
    begin = b if start is None else start.contiguous()
    modes = {"STARTED": start is not None, "RELAXED": tolerance is not None}
    blocks, width = product_blocks(x, y), _width(m)
    grid = items, triton.cdiv(n, blocks["BLOCK_N"]), triton.cdiv(width, blocks["BLOCK_M"])
    cost = _empty(x, (items, n, width))
    broken = torch.empty(grid, dtype=torch.int32, device=x.device)
    sizes = n, m, width, grid[1] * grid[2], epsilon, rounds, 0.0 if tolerance is None else tolerance
    with torch.cuda.device_of(x):  # Triton launches on the current device
        write_cost[grid](x, y, a, b, cost, broken, n, m, d, width, *_strides(x, y), **blocks)
        if place == "registers":
            solve_in_registers[(items,)](
                a, b, begin, cost, broken, *out, *sizes, **modes, **register_blocks(n, m)
            )
        else:
            scratch = _empty(x, (items, n, width)), _empty(x, (items, n)), _empty(x, (items, 3, n))
            solve_streamed[(items,)](
                a, b, begin, cost, *scratch, broken, *out, *sizes, **modes, **stream_blocks(m)
            )
    return out


def backward(
    x: Tensor, y: Tensor, a: Tensor, b: Tensor, f: Tensor, g: Tensor, epsilon: float, upstream: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradients of sum upstream * value to x and y, in their dtypes; 0 for a zero vector.

    bfloat16 features are multiplied by a plan rounded to bfloat16, which moves gradients by about
    2e-3, as rounding the gradients themselves does.

    Shapes: as forward's; upstream (b,)
    """
    items, n, d = x.shape
    m = y.shape[1]
    x, y, a, b = _rows_in_one_piece(x), _rows_in_one_piece(y), a.contiguous(), b.contiguous()
    f, g, upstream = f.contiguous(), g.contiguous(), upstream.contiguous()
    grad_x, grad_y = (torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (x, y))
    blocks, width = product_blocks(x, y), _width(m)
    grid = items, triton.cdiv(n, blocks["BLOCK_N"]), triton.cdiv(width, blocks["BLOCK_M"])
    plan = torch.empty((items, n, width), dtype=plan_dtype(x, y), device=x.device)
    x_part, y_part = _empty(x, (items, grid[2], n)), _empty(x, (items, grid[1], m))
    sides = (False, x, y, a, b, x_part, grad_x), (True, y, x, b, a, y_part, grad_y)
    with torch.cuda.device_of(x):
        write_plan[grid](
            x, y, a, b, f, g, plan, x_part, y_part, n, m, d, width, *_strides(x, y), epsilon, **blocks
        )
        blocks = gradient_blocks(x, y)
        for flipped, own, other, weights, others, part, out in sides:
            k, parts = own.shape[1], part.shape[1]
            grid = items, triton.cdiv(k, blocks["BLOCK_N"]), triton.cdiv(d, blocks["BLOCK_D"])
            write_gradient[grid](
                own, other, weights, others, plan, part, upstream, out,
                k, other.shape[1], d, width, parts, *_strides(own, other), FLIPPED=flipped, **blocks,
            )  # fmt: skip
    return grad_x, grad_y


def register_blocks(n: int, m: int) -> dict[str, int]:
    """How solve_in_registers is compiled for such a problem."""
    rows, columns = _padded(n), _padded(m)
    elements = rows * columns
    warps = 1 if elements <= 256 else 4 if elements <= 4096 else 8
    return {"BLOCK_N": rows, "BLOCK_M": columns, "num_warps": warps, **COMPILED}


def product_blocks(x: Tensor, y: Tensor) -> dict[str, Any]:
    """How write_cost and write_plan are compiled."""
    whole = x.dtype == y.dtype != torch.float32
    side = 128 if whole else 64
    return {
        "BLOCK_N": side,
        "BLOCK_M": side,
        "BLOCK_D": 64 if whole else 32,
        "PRECISION": "tf32x3",
        "UPCAST": INTERPRETED or not whole,  # the interpreter multiplies bfloat16 wrongly (NaN)
        "num_warps": 8,
        **COMPILED,
    }


def gradient_blocks(x: Tensor, y: Tensor) -> dict[str, Any]:
    """How write_gradient is compiled. float16 has no room for entries of a plan: there, TF32 holds them."""
    whole = x.dtype == y.dtype == torch.bfloat16
    precision = "tf32x3" if torch.float32 in (x.dtype, y.dtype) else "tf32"
    return {
        "BLOCK_N": 64,
        "BLOCK_M": 64 if whole else 32,
        "BLOCK_D": 64,
        "PRECISION": precision,
        "UPCAST": INTERPRETED or not whole,
        "num_warps": 4,
        **COMPILED,
    }


def stream_blocks(m: int) -> dict[str, int]:
    """How solve_streamed is compiled: blocks of whole rows."""
    columns = _padded(m)
    return {"BLOCK_M": columns, "ROWS": BLOCK_ELEMENTS // columns, "num_warps": 8, **COMPILED}


def plan_dtype(x: Tensor, y: Tensor) -> torch.dtype:
    return torch.bfloat16 if x.dtype == y.dtype == torch.bfloat16 else torch.float32


def _padded(k: int) -> int:
    return max(16, triton.next_power_of_2(k))


def _width(m: int) -> int:
    """Elements from row to row of a matrix in memory, so that rows are read in words of 16 bytes."""
    return triton.cdiv(m, 16) * 16


def _rows_in_one_piece(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _strides(x: Tensor, y: Tensor) -> tuple[int, int, int, int]:
    return x.stride(0), x.stride(1), y.stride(0), y.stride(1)


def _empty(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device=like.device)
