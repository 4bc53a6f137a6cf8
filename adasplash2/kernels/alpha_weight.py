"""How does alpha move a row?  As scores would that move by these weights."""

import triton
import triton.language as tl

from .logarithm import LOG2_E, log_of
from .power import log_of_gap

SERIES_BELOW = tl.constexpr(0.25)


@triton.jit
def weight_of(y, log_gap, step):
    """Return ``-(1 - g + g * log(g)) / step ** 2`` of gaps g, given ``y = 1 - g`` and ``log(g)``; float32.

    With the depth ``x = y / step`` it is -x ** 2 times a series in y, or its closed form beyond 1/4: all terms have one
    sign, also as alpha tends to 1.
    """
    far = y > SERIES_BELOW
    low, high = tl.where(far, 0.0, y), tl.where(far, y, 1.0)
    series = low * (1.0 / 132.0) + 1.0 / 110.0
    series = series * low + 1.0 / 90.0
    series = series * low + 1.0 / 72.0
    series = series * low + 1.0 / 56.0
    series = series * low + 1.0 / 42.0
    series = series * low + 1.0 / 30.0
    series = series * low + 1.0 / 20.0
    series = series * low + 1.0 / 12.0
    series = series * low + 1.0 / 6.0
    series = series * low + 1.0 / 2.0
    closed = (high + (1.0 - high) * tl.where(far, log_gap, 0.0)) / (high * high)
    depth = y / step
    return -depth * depth * tl.where(far, closed, series)


@triton.jit
def gap_weight(gap, step):
    """Return the rate at which alpha moves scores (`weight_of`), 0 outside the support; float32.  NaN stays NaN."""
    return tl.where(gap > 0.0, weight_of(1.0 - gap, log_of_gap(gap), step), gap)


@triton.jit
def alpha_weight(probs, step):
    """Return `gap_weight` of the gaps of probabilities, ``probs ** step``, with the digits of those next to 1."""
    log_probs = log_of(tl.where(probs > 0.0, probs, 1.0))
    log_gap = step * log_probs
    # y = 1 - exp(log_gap), and next to 0 the series of it, which keeps its digits
    a = -log_gap
    rest = -1.0 / 5040.0 * a + 1.0 / 720.0
    rest = rest * a - 1.0 / 120.0
    rest = rest * a + 1.0 / 24.0
    rest = rest * a - 1.0 / 6.0
    rest = rest * a + 1.0 / 2.0
    y = tl.where(a < 0.5, a - a * a * rest, 1.0 - tl.exp2(log_gap * LOG2_E))
    return tl.where(probs == 0.0, 0.0, tl.where(probs == probs, weight_of(y, log_gap, step), probs))
