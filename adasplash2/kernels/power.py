"""How does alpha enter the arithmetic?  The only kernel file that branches on it.

``POWER`` is ``1 / (alpha - 1)`` as a compile-time integer: 2 for alpha 1.5 (entmax-1.5), 1 for alpha 2 (sparsemax).
With ``gap = max(z - tau, 0)``: ``probs = gap ** POWER`` and ``sensitivity = probs ** (2 - alpha) = gap ** (POWER - 1)``
on the support, zero outside.
"""

import triton
import triton.language as tl


@triton.jit
def gap_probs(gap, POWER: tl.constexpr):
    """Return ``gap ** POWER``; float32, any shape, gap >= 0.  NaN stays NaN."""
    if POWER == 1:
        probs = gap
    else:
        probs = gap * gap
    return probs


@triton.jit
def gap_sensitivity(gap, POWER: tl.constexpr):
    """Return ``gap ** (POWER - 1)`` on the support and 0 outside; float32, any shape.  NaN stays NaN.

    Lemma: jacobian_form
    """
    if POWER == 1:
        # Outside gap is 0 and stays 0; NaN fails the comparison and stays NaN.
        sensitivity = tl.where(gap > 0.0, 1.0, gap)
    else:
        sensitivity = gap
    return sensitivity


@triton.jit
def norm_step(mass, slope, POWER: tl.constexpr):
    """Return the Newton step on ``mass ** (1 / POWER)``; float32[rows], ``slope = sum(sensitivity) > 0``.

    The step lands at or left of tau from either side.  Lemma: newton_norm_left
    """
    if POWER == 1:
        step = (mass - 1.0) / slope
    else:
        step = (mass - tl.sqrt(mass)) / slope
    return step


@triton.jit
def norm_step_slack(mass, slope, relative_error, POWER: tl.constexpr):
    """Return how far `norm_step` may lie to the right of its exact value when both sums carry ``relative_error``.

    Lemma: mask_bound_float
    """
    if POWER == 1:
        slack = 4.0 * relative_error * (mass + 1.0) / slope
    else:
        slack = 4.0 * relative_error * (mass + tl.sqrt(mass)) / slope
    return slack


@triton.jit
def active_set_step(mass, slope, count, POWER: tl.constexpr):
    """Return the step to the root for a support that stays as it is; float32[rows], NaN where there is none.

    Exact when no score lies between the two points.
    """
    if POWER == 1:
        step = (mass - 1.0) / count
    else:
        # count * d^2 - 2 * slope * d + mass - 1 = 0; this form of the smaller root does not cancel.
        step = (mass - 1.0) / (slope + tl.sqrt(slope * slope - count * (mass - 1.0)))
    return step


@triton.jit
def knot_mass(first, second, POWER: tl.constexpr):
    """Return ``sum(c * w ** POWER)``, given the sums of ``c * w`` and of ``c * w ** 2``; float32[rows]."""
    return first if POWER == 1 else second


@triton.jit
def knot_root(count, first, second, POWER: tl.constexpr):
    """Return ``s >= 0`` with ``sum(c * (s + w) ** POWER) == 1``, given sums of ``c``, ``c * w`` and ``c * w ** 2``.

    float32[rows]; the caller guarantees ``sum(c * w ** POWER) < 1`` and ``count >= 1``.  No term cancels.
    Lemma: knot_root_exact
    """
    if POWER == 1:
        root = (1.0 - first) / count
    else:
        rest = tl.maximum(1.0 - second, 0.0)
        root = rest / (first + tl.sqrt(first * first + count * rest))
    return root
