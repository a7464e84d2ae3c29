"""What each item of the split tier is at between launches, in memory: STATE whole and STATE real numbers.

Only begin_split and end_window write it, one program an item.
"""

from __future__ import annotations

import triton
import triton.language as tl

from avalign.kernels.triton.cosine import PIECE, sum_of
from avalign.kernels.triton.inputs import COMPILED
from avalign.kernels.triton.iterations import ROUGH_ITERATIONS, WINDOW, first_window, next_window, stages_of

ITEM_BLOCKS = {"num_warps": 1, **COMPILED}  # how kernels of an item a program are compiled
STATE = tl.constexpr(8)
# Whole: the stage, 0 the last and -1 when done; the iterations it has left; those of the next window, 0 when
# done; which slot of two holds the columns' potentials that window begins from; the iterations made.
STAGE, LEFT, COUNT, SLOT, SPENT = (tl.constexpr(k) for k in range(5))
# Real: what next_window takes, and the error.
RELAXATION, MOST, BEFORE, BEST, ROSE, ERROR = (tl.constexpr(k) for k in range(6))


@triton.jit
def slot_of(state, k):
    """Where iteration k of a window finds the potentials that it starts from; what it makes goes to the other
    slot, for no launch writes what it reads."""
    return (tl.load(state + SLOT) + k) % 2


@triton.jit(do_not_specialize=["parts", "iterations", "most_stages"])
def begin_split(part, ints, real, parts, epsilon, iterations, most_stages):
    """What an item is at before the first window; with most_stages = 0, `part` is not read."""
    item = tl.program_id(0).to(tl.int64)
    widest = tl.zeros((PIECE,), tl.float32)
    if most_stages > 0:
        for first in range(0, parts, PIECE):
            k = first + tl.arange(0, PIECE)
            widest = tl.maximum(widest, tl.load(part + item * parts + k, mask=k < parts, other=0.0))
    stage = tl.minimum(stages_of(tl.max(widest, 0) / epsilon), most_stages)
    tl.store(ints + item * STATE + SLOT, 0)
    tl.store(ints + item * STATE + SPENT, 0)
    tl.store(real + item * STATE + ERROR, 0.0)
    _store_stage(ints + item * STATE, real + item * STATE, stage, iterations, epsilon)


@triton.jit
def _store_stage(ints, real, stage, iterations, like):
    """A stage about to begin; -1: nothing more to do."""
    left = tl.where(stage > 0, ROUGH_ITERATIONS, iterations)
    relaxation, most, before, best, rises = first_window(like)
    _store_window(ints, real, stage, left, relaxation, most, before, best, rises)


@triton.jit
def _store_window(ints, real, stage, left, relaxation, most, before, best, rises):
    tl.store(ints + STAGE, stage)
    tl.store(ints + LEFT, left)
    tl.store(ints + COUNT, tl.where(stage >= 0, tl.minimum(left, WINDOW), 0))
    tl.store(real + RELAXATION, relaxation)
    tl.store(real + MOST, most)
    tl.store(real + BEFORE, before)
    tl.store(real + BEST, best)
    tl.store(real + ROSE, rises)


@triton.jit(do_not_specialize=["column_parts", "iterations"])
def end_window(off, ints, real, column_parts, iterations, tolerance, RELAXED: tl.constexpr):
    """One item a program: what it is at after a window."""
    item = tl.program_id(0).to(tl.int64)
    ints, real = ints + item * STATE, real + item * STATE
    count = tl.load(ints + COUNT)
    if count > 0:
        stage, left = tl.load(ints + STAGE), tl.load(ints + LEFT) - count
        slot, spent = tl.load(ints + SLOT), tl.load(ints + SPENT) + count
        relaxation, most = tl.load(real + RELAXATION), tl.load(real + MOST)
        before, best, rises = tl.load(real + BEFORE), tl.load(real + BEST), tl.load(real + ROSE)
        error = sum_of(off + item * column_parts, column_parts)
        if RELAXED:
            left, relaxation, most, best, rises = next_window(
                stage, left, tolerance, relaxation, most, error, before, best, rises
            )
        tl.debug_barrier()  # all threads have read what one of them now writes
        tl.store(ints + SPENT, spent)
        tl.store(real + ERROR, error)
        if left > 0:
            tl.store(ints + SLOT, (slot + count) % 2)
            _store_window(ints, real, stage, left, relaxation, most, error, best, rises)
        else:  # the stage is done, with the columns' potentials that its last rows are right for
            tl.store(ints + SLOT, (slot + count - 1) % 2)
            _store_stage(ints, real, stage - 1, iterations, tolerance)
