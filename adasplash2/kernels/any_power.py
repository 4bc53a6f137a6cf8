"""How does an alpha enter the maps of rows?  The leaves of `power`, with the digits that alpha near 1 asks for.

``POWER`` is that of `power`, or 0 for an alpha that is loaded: then ``step = alpha - 1`` and ``power = 1 / step`` are
float32, of a shape that broadcasts to the argument.
"""

import triton
import triton.language as tl

from .logarithm import log_one_plus
from .power import gap_probs, gap_sensitivity, log_of_gap, raised


@triton.jit
def probs_of(gap, short, power, POWER: tl.constexpr):
    """Return ``gap ** power``; float32, any shape, gap >= 0 and ``short = 1 - gap``.  NaN stays NaN.

    As alpha tends to 1 all gaps do, and lose the digits that ``short`` still has.
    """
    if POWER > 0:
        probs = gap_probs(gap, (power, power), POWER)
    else:
        near = short < 0.25
        log_gap = tl.where(near, log_one_plus(tl.where(near, -short, 0.0)), log_of_gap(gap))
        probs = raised(gap, log_gap, power, gap)
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
        sensitivity = gap_sensitivity(gap, (probs, probs), POWER)
    else:
        sensitivity = tl.where(gap > 0.0, probs / tl.where(gap > 0.0, gap, 1.0), gap)
    return sensitivity
