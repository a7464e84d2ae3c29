"""Entropic transport under cosine distance on a GPU: features in, value, potentials and gradients out.

In Triton, for every NVIDIA GPU that it knows; on a CPU under its interpreter (TRITON_INTERPRET=1), for tests.
All memory is torch's, no program waits for another, and sums are made in a fixed order: a call can be
captured in a CUDA graph, and gives the same bits each time.

Iterations are made in one of three tiers, chosen here (tier): an item a program with its kernel in registers
(triton_registers.py) or streamed from memory (triton_streamed.py), or an item split among programs
(triton_split.py), since a few items of 1000 x 1000 would keep most of a GPU idle. The products before and
after are spread over all of it.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
import triton
from torch import Tensor

from avalign.kernels.solution import Solution
from avalign.kernels.triton.blocks import MOST_COLUMNS
from avalign.kernels.triton.cosine import write_cost
from avalign.kernels.triton.gradient import write_gradient, write_plan
from avalign.kernels.triton.inputs import COMPILED, INTERPRETED, Inputs, empty, padded
from avalign.kernels.triton.registers import MOST_IN_REGISTERS, in_registers
from avalign.kernels.triton.split import split
from avalign.kernels.triton.streamed import streamed

Tier = Literal["registers", "streamed", "split"]
TIERS: tuple[Tier, ...] = get_args(Tier)
# Where splitting begins to pay, by estimate; no card was at hand. One multiprocessor reads its second-level
# cache at about 100 GB/s: 1 MiB takes it 10 us, about what the two launches of an iteration cost. And about a
# quarter of a card's multiprocessors, streaming, use up what its memory gives.
LEAST_TO_SPLIT = 512 * 512  # elements of one item's matrix
PROCESSORS_AN_ITEM = 4


def tier(items: int, n: int, m: int, processors: int) -> Tier:
    """Which tier solves so many items of n x m tokens on a GPU of so many multiprocessors."""
    if why_not("registers", n, m) is None:
        return "registers"
    if n * m >= LEAST_TO_SPLIT and items * PROCESSORS_AN_ITEM <= processors:
        return "split"
    return "streamed"


def why_not(tier_name: Tier, n: int, m: int) -> str | None:
    """Why a tier cannot take items of n x m tokens, in a line; None if it can."""
    if tier_name != "registers":
        return (
            None if m <= MOST_COLUMNS else f"it takes at most {MOST_COLUMNS} target tokens an item, got {m}"
        )
    if (wanted := padded(n) * padded(m)) <= MOST_IN_REGISTERS:
        return None
    return f"registers hold {MOST_IN_REGISTERS} entries of an item, and {n} x {m} tokens pad to {wanted}"


def processors(device: torch.device) -> int:
    """Multiprocessors of a GPU; 1 for the interpreter, which runs one program at a time."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def forward(
    x: Tensor,
    y: Tensor,
    a: Tensor,
    b: Tensor,
    init_g: Tensor | None,
    *,
    epsilon: float,
    iterations: int,
    tolerance: float | None,
    tier_name: Tier | None = None,
    synchronize: bool = False,
) -> Solution:
    """The plan T = a_i b_j exp((f_i + g_j - C_ij) / epsilon), C_ij = 1 - cos(x_i, y_j), and its value,

        sum f a + sum g b - epsilon (sum T - 1).

    tolerance: iterations are relaxed, and small epsilons approached from larger ones, until the error is no
               more than this, at most `iterations` at the last epsilon. None: exactly `iterations` of
               Sinkhorn's own, the last one left after its rows. As avalign/ot/iterations.py, iteration for
               iteration
    tier_name: the tier; None, what `tier` says. An item's bits depend on it, and on nothing beside the item
    look:      the split tier may wait for the device now and then to see whether all items are done. False:
               nothing waits, and it launches every iteration that there may be, as a CUDA graph must

    Shapes: x (b, n, d), y (b, m, d), float32, bfloat16 or float16, any strides; a (b, n), b and init_g, g to
            begin from, (b, m), float32. Features where a or b is 0 are never read
    """
    items, n, d = x.shape
    m = y.shape[1]
    tier_name = tier(items, n, m, processors(x.device)) if tier_name is None else tier_name
    if (why := why_not(tier_name, n, m)) is not None:
        raise ValueError(f"the Triton kernels' {tier_name} tier: {why}")
    x, y, a, b = _rows_in_one_piece(x), _rows_in_one_piece(y), a.contiguous(), b.contiguous()
    done = torch.empty(items, dtype=torch.int32, device=x.device)
    out = Solution(empty(x, items), empty(x, items, n), empty(x, items, m), empty(x, items), done)
    blocks, width = product_blocks(x, y), _width(m)
    grid = items, triton.cdiv(n, blocks["BLOCK_N"]), triton.cdiv(width, blocks["BLOCK_M"])
    cost = empty(x, items, n, width)
    broken = torch.empty(grid, dtype=torch.int32, device=x.device)
    init_g = None if init_g is None else init_g.contiguous()
    inputs = Inputs(a, b, init_g, cost, broken, epsilon, iterations, tolerance)
    with torch.cuda.device_of(x):  # Triton launches on the current device
        write_cost[grid](x, y, a, b, cost, broken, n, m, d, width, *_strides(x, y), **blocks)
        if tier_name == "registers":
            in_registers(inputs, out)
        elif tier_name == "streamed":
            streamed(inputs, out)
        else:
            split(inputs, out, synchronize)
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
    x_part, y_part = empty(x, items, grid[2], n), empty(x, items, grid[1], m)
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


def product_blocks(x: Tensor, y: Tensor) -> dict[str, Any]:
    """How write_cost and write_plan are compiled."""
    low_precision = x.dtype == y.dtype != torch.float32
    side = 128 if low_precision else 64
    return {
        "BLOCK_N": side,
        "BLOCK_M": side,
        "BLOCK_D": 64 if low_precision else 32,
        "PRECISION": "tf32x3",
        "UPCAST": INTERPRETED or not low_precision,  # the interpreter multiplies bfloat16 wrongly (NaN)
        "num_warps": 8,
        **COMPILED,
    }


def gradient_blocks(x: Tensor, y: Tensor) -> dict[str, Any]:
    """How write_gradient is compiled. float16 has no room for entries of a plan: there, TF32 holds them."""
    low_precision = x.dtype == y.dtype == torch.bfloat16
    precision = "tf32x3" if torch.float32 in (x.dtype, y.dtype) else "tf32"
    return {
        "BLOCK_N": 64,
        "BLOCK_M": 64 if low_precision else 32,
        "BLOCK_D": 64,
        "PRECISION": precision,
        "UPCAST": INTERPRETED or not low_precision,
        "num_warps": 4,
        **COMPILED,
    }


def plan_dtype(x: Tensor, y: Tensor) -> torch.dtype:
    return torch.bfloat16 if x.dtype == y.dtype == torch.bfloat16 else torch.float32


def _width(m: int) -> int:
    """Elements from row to row of a matrix in memory, so that rows are read in words of 16 bytes."""
    return triton.cdiv(m, 16) * 16


def _rows_in_one_piece(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _strides(x: Tensor, y: Tensor) -> tuple[int, int, int, int]:
    return x.stride(0), x.stride(1), y.stride(0), y.stride(1)
