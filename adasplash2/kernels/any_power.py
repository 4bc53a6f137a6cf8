"""How does an alpha enter that is not known when a kernel is compiled?  The leaves of `power`, for alpha in (1, 2].

``POWER`` is that of `power`, or 0 for an alpha that is loaded: then ``step = alpha - 1`` and ``power = 1 / step`` are
float32, of a shape that broadcasts to the argument.  log2 and exp2 of a GPU are approximate to 2 ** -22, of which a
large power would make too much, so the logarithm is evaluated here.
"""

import triton
import triton.language as tl

from .power import gap_probs, gap_sensitivity, norm_step

SQRT_HALF_BITS = tl.constexpr(0x3F3504F3)
EXPONENT_ONE_BITS = tl.constexpr(0x3F800000)
MANTISSA_MASK = tl.constexpr(0x007FFFFF)
LN_2 = tl.constexpr(0.6931471805599453)
LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def log_one_plus(f):
    """Return log(1 + f), float32, for f from -0.3 to 0.42; the error is 2 ** -23 of the result.  NaN stays NaN."""
    # 2 * atanh(s) with s = f / (2 + f), whose first term 2 * s is f - f * s
    s = f / (2.0 + f)
    square = s * s
    series = 2.0 / 9.0 * square + 2.0 / 7.0
    series = series * square + 2.0 / 5.0
    series = series * square + 2.0 / 3.0
    return f - s * (f - square * series)


@triton.jit
def log_of(x):
    """Return log(x), float32, for normal positive numbers; the error is 2 ** -23 of the result, and 2 ** -24 of its
    multiple of log(2).  NaN and what is not positive give anything finite or NaN.
    """
    # x = 2 ** exponent * m with m from sqrt(1/2) to sqrt(2)
    bits = x.to(tl.int32, bitcast=True) + (EXPONENT_ONE_BITS - SQRT_HALF_BITS)
    exponent = ((bits >> 23) - 127).to(tl.float32)
    m = ((bits & MANTISSA_MASK) + SQRT_HALF_BITS).to(tl.float32, bitcast=True)
    return exponent * LN_2 + log_one_plus(m - 1.0)


@triton.jit
def probs_of(gap, short, power, POWER: tl.constexpr):
    """Return ``gap ** power``; float32, any shape, gap >= 0 and ``short = 1 - gap``.  NaN stays NaN.

    As alpha tends to 1 all gaps do, and lose the digits that ``short`` still has.
    """
    if POWER > 0:
        probs = gap_probs(gap, POWER)
    else:
        near = short < 0.25
        log_gap = tl.where(near, log_one_plus(tl.where(near, -short, 0.0)), log_of(tl.where(gap > 0.0, gap, 1.0)))
        probs = tl.where(gap > 0.0, tl.exp2(log_gap * (power * LOG2_E)), gap)
    return probs


@triton.jit
def rough_powers(gap, power):
    """Return ``gap ** power`` and ``gap ** (power - 1)``, 0 outside the support, as fast as a device can; float32.

    log2 and exp2 err by 2 ** -22, so these do by ``power`` times as much: enough to come near a threshold.  NaN stays
    NaN.
    """
    held = gap > 0.0
    sensitivity = tl.where(held, tl.exp2(tl.log2(tl.where(held, gap, 1.0)) * (power - 1.0)), gap)
    return sensitivity * gap, sensitivity


@triton.jit
def sensitivity_of(gap, probs, POWER: tl.constexpr):
    """Return ``gap ** (power - 1)`` on the support and 0 outside, given `probs_of`; float32.  NaN stays NaN.

    Lemma: jacobian_form
    """
    if POWER > 0:
        sensitivity = gap_sensitivity(gap, POWER)
    else:
        sensitivity = tl.where(gap > 0.0, probs / tl.where(gap > 0.0, gap, 1.0), gap)
    return sensitivity


@triton.jit
def rise(mass, slope, step, POWER: tl.constexpr):
    """Return the Newton step on ``mass ** (1 / power)``; float32[rows], ``slope = sum(sensitivity) > 0``.

    It lands at or left of tau from either side.  Lemma: newton_norm_left
    """
    if POWER > 0:
        found = norm_step(mass, slope, POWER)
    else:
        # mass - mass ** (1 - step) = mass * (1 - exp(-a)), which next to mass 1 has to keep its digits
        a = step * log_of(mass)
        series = -1.0 / 720.0 * a + 1.0 / 120.0
        series = series * a - 1.0 / 24.0
        series = series * a + 1.0 / 6.0
        series = series * a - 1.0 / 2.0
        near = (series * a + 1.0) * a
        found = mass * tl.where(tl.abs(a) < 0.25, near, 1.0 - tl.exp2(-a * LOG2_E)) / slope
    return found
