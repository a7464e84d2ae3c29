"""How iterations go, whichever tier makes them: relaxation, stages of epsilon, rows and columns on
logarithms.

All logarithms and potentials inside the kernels are to base 2, in units of epsilon: the hardware's own.
avalign/ot/iterations.py tells why iterations go so; both engines do the same.
"""

from __future__ import annotations

import triton
import triton.language as tl

from avalign.kernels.triton.cosine import FAR, LOG2E, per_epsilon, sum_of

WINDOW = tl.constexpr(6)
MOST_SCALING = tl.constexpr(30.0)
FIRST_RELAXATION = tl.constexpr(1.5)
MOST_RELAXATION = tl.constexpr(1.97)
GROWTH = tl.constexpr(2.0)
RISES = tl.constexpr(5)
EASY_REACH = tl.constexpr(20.0)
ROUGH_ERROR = tl.constexpr(0.03)
ROUGH_ITERATIONS = tl.constexpr(60)


@triton.jit
def in_range(scaling):
    """Scalings (logarithms), NaN where the kernel's range ends: from there NaN takes the whole item."""
    return tl.where(tl.abs(scaling) <= MOST_SCALING * LOG2E, scaling, float("nan"))


@triton.jit
def log_sums(power, axis: tl.constexpr):
    """log sum exp along an axis."""
    top = tl.max(power, axis)
    return top + tl.log2(tl.sum(tl.exp2(power - tl.expand_dims(top, axis)), axis))


@triton.jit
def log_weights(weight):
    return tl.where(weight > 0, tl.log2(weight), -FAR)


@triton.jit
def log_rows(cost, weight, log_b, psi):
    """phi_i = -log sum_j b_j exp(psi_j - C_ij): what makes the rows right; 0 where a row carries nothing."""
    return tl.where(weight > 0, -log_sums((log_b + psi)[None, :] - cost, 1), 0.0)


@triton.jit
def column_error(b, psi, next_psi, relaxation, RELAXED: tl.constexpr):
    """How far off the columns are at psi, L1, from the step that the iteration made there."""
    step = psi - next_psi
    if RELAXED:
        step = step / relaxation
    return tl.sum(b * tl.abs(tl.exp2(step) - 1), 0)


@triton.jit
def stages_of(reach):
    """How many doublings of epsilon bring a problem that spans `reach` epsilons within easy reach."""
    return tl.ceil(tl.log2(tl.maximum(reach / EASY_REACH, 1.0))).to(tl.int32)


@triton.jit
def inverse_of(epsilon, stage):
    """What takes costs to units of a stage's epsilon."""
    return per_epsilon(epsilon * tl.exp2(stage.to(tl.float32)))


@triton.jit
def first_window(like):
    """Relaxation as a stage begins, the most it may be; the last error, the least one, how often it rose.

    FAR stands for an error not seen yet.
    """
    none = like * 0
    return none + FIRST_RELAXATION, none + MOST_RELAXATION, none + FAR, none + FAR, none


@triton.jit
def next_window(stage, left, tolerance, relaxation, most, error, before, best, rises):
    """How many iterations a stage has left after a window, 0 if it is done; the next one's relaxation, from
    the rate of the last one; the most it may be; the least error; how often it rose since it last fell by a
    tenth.

    Source: Hageman and Young, Applied Iterative Methods, 1981, section 9; as in avalign/ot/iterations.py
    """
    left = tl.where(error <= tl.where(stage > 0, ROUGH_ERROR, tolerance), 0, left)
    rate = tl.exp2(tl.log2(error / before) / WINDOW)
    away = rate + relaxation - 1
    theta = tl.minimum(away * away / tl.maximum(rate * relaxation * relaxation, 1e-30), 1 - 1e-4)
    called_for = 2 / (1 + tl.sqrt(1 - theta))
    slow = (rate > relaxation - 1) & (rate < 1)
    raised = tl.where(slow, tl.maximum(relaxation, called_for), relaxation)
    rises = tl.where(error < 0.9 * best, 0.0, rises + (error > 1.05 * before).to(tl.float32))
    failing = ((error > best * GROWTH) & (best < FAR)) | (rises >= RISES)
    most = tl.where(failing, 1 + 0.8 * (relaxation - 1), most)
    best = tl.where(failing, error, tl.minimum(best, error))
    return left, tl.minimum(raised, most), most, best, tl.where(failing, 0.0, rises)


@triton.jit
def write_answer(
    item, columns, m, b, value, g, error, spent, broken, blocks, value_out, g_out, error_out, iterations_out
):
    """One item's answer but for f. `value`: what rows have of it; not finite where features are not."""
    nothing = tl.where(sum_of(broken + item * blocks, blocks) > 0, float("nan"), 0.0)
    tl.store(value_out + item, value + tl.sum(g * b, 0) + nothing)
    tl.store(error_out + item, error + nothing)
    tl.store(iterations_out + item, spent)
    tl.store(g_out + item * m + columns, g, mask=columns < m)
