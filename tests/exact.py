"""Compute alpha-entmax of one row to 27 digits, independently of ``entmax_ref``, and bound float64 by it.

Nothing here sorts or looks for the support first: the root is bracketed and bisected in mpmath, on the exact
differences of the given float64 scores. ``U`` is the unit roundoff of float64.
"""

from fractions import Fraction

import mpmath
import numpy as np

U = 2.0**-53
BITS = 90  # the bracket of tau ends 2**-90 wide: below 1e-11 units in the last place of 1
CONTEXT = mpmath.mp.clone()
CONTEXT.prec = 300


def exact(number):
    """Return a float or a Fraction as an mpf; exact for floats, rounded to 300 bits for long fractions."""
    fraction = Fraction(number)
    return CONTEXT.mpf(fraction.numerator) / CONTEXT.mpf(fraction.denominator)


def relative_z(scores, alpha):
    """Return z - row_max for each score, a float or Fraction; ``-inf`` stays ``-inf``. One must be finite."""
    top = Fraction(max(scores))
    factor = exact(alpha) - 1
    return [CONTEXT.mpf("-inf") if score == -np.inf else factor * exact(Fraction(score) - top) for score in scores]


def mass_at(relative, alpha, t):
    """Return sum(max(relative - t, 0) ** power) with both arguments relative to row_max."""
    power = 1 / (exact(alpha) - 1)
    return CONTEXT.fsum((value - t) ** power for value in relative if value > t)


def relative_tau(scores, alpha, bits=BITS):
    """Return tau - row_max; its enclosure is asserted, so the answer does not rest on the search."""
    relative = relative_z(scores, alpha)
    lo, hi = CONTEXT.mpf(-1), CONTEXT.mpf(0)
    while hi - lo > CONTEXT.mpf(2) ** -bits:
        middle = (lo + hi) / 2
        lo, hi = (middle, hi) if mass_at(relative, alpha, middle) >= 1 else (lo, middle)
    assert mass_at(relative, alpha, lo) >= 1 >= mass_at(relative, alpha, hi)
    return (lo + hi) / 2


def gaps(scores, alpha, bits=BITS):
    """Return z - tau for each score, negative outside the support."""
    tau = relative_tau(scores, alpha, bits)
    return [value - tau for value in relative_z(scores, alpha)]


def probs(scores, alpha, bits=BITS):
    """Return the probabilities as mpf."""
    power = 1 / (exact(alpha) - 1)
    return [max(gap, CONTEXT.mpf(0)) ** power for gap in gaps(scores, alpha, bits)]


def vjp(scores, d_probs, alpha):
    """Return the gradient for the scores, from the Jacobian written out."""
    power = 1 / (exact(alpha) - 1)
    sensitivity = [gap ** (power - 1) if gap > 0 else CONTEXT.mpf(0) for gap in gaps(scores, alpha)]
    d_probs = [exact(d) if s else CONTEXT.mpf(0) for d, s in zip(d_probs, sensitivity, strict=True)]
    mean = CONTEXT.fdot(sensitivity, d_probs) / CONTEXT.fsum(sensitivity)
    return [s * (d - mean) for s, d in zip(sensitivity, d_probs, strict=True)]


def sparsemax_relative_tau(scores):
    """Return tau - row_max for alpha 2, a Fraction: the largest of (sum of the k largest - 1) / k over k."""
    top = Fraction(max(scores))
    ordered = sorted((Fraction(score) - top for score in scores if score != -np.inf), reverse=True)
    return max((sum(ordered[:k]) - 1) / k for k in range(1, len(ordered) + 1))


def tau_bound(n, row_max, alpha):
    """Return the bound of the error of tau that the docstring of ``entmax_ref.threshold`` states."""
    depth = min(n - 1, 19 + np.log2(n))
    return U * (2 * abs(row_max) + 6 + 2 * max(1.0, alpha - 1.0) * (2 + np.log(n) + depth))


def gap_bound(n, alpha):
    """Return the bound of the error of a gap that ``entmax_ref.entmax`` states: that of tau at row_max 0."""
    return tau_bound(n, 0.0, alpha)


def probs_range(gap, n, alpha):
    """Return the least and the greatest probability that the stated bounds allow for an exact gap."""
    power = 1 / (exact(alpha) - 1)
    slack = exact(gap_bound(n, alpha))
    ends = [max(gap - slack, CONTEXT.mpf(0)) ** power, max(gap + slack, CONTEXT.mpf(0)) ** power]
    # numpy.power: one unit in the last place (2 U); its rounded exponent: U * abs(log(probs)), below 700 U
    relative = [U * (2 + min(abs(CONTEXT.log(end)), 700)) if end else 0 for end in ends]
    least_subnormal = CONTEXT.mpf(2) ** -1074
    return ends[0] * (1 - relative[0]) - least_subnormal, ends[1] * (1 + relative[1]) + least_subnormal


def vjp_bound(scores, d_probs, alpha):
    """Return a first-order bound of the error of ``entmax_vjp`` by key, None where first order will not do.

    A gap error e changes a sensitivity gap ** q, q = power - 1, relatively by abs(q) * e / gap; numpy.power
    adds 2 U and U * abs(q * log(gap)). The sum of n terms adds n U to the mean, products and differences 5 U.
    """
    n = len(scores)
    q = abs((2 - alpha) / (alpha - 1))
    slack = gap_bound(n, alpha)
    found = np.array([float(gap) for gap in gaps(scores, alpha)])
    live = found > 0
    if np.any(np.abs(found) < 1000 * max(q, 1) * slack):
        return None
    gap = np.where(live, found, 1.0)
    sensitivity = np.where(live, gap ** ((2 - alpha) / (alpha - 1)), 0.0)
    relative = q * slack / gap + U * (2 + q * np.abs(np.log(gap)))
    d_probs = np.where(live, d_probs, 0.0)
    centred = np.abs(d_probs - np.dot(sensitivity, d_probs) / sensitivity.sum())
    spread = np.max(np.abs(d_probs[live][:, None] - d_probs[live][None, :]))  # centring on any key is covered
    mean = np.dot(sensitivity, relative * centred) / sensitivity.sum() + U * (2 * n + 5) * spread
    # 1.01: terms of second order, at most 1/1000 of those of first order each; 2**-80: the bisection in `vjp`
    return 1.01 * sensitivity * (relative * centred + mean + 5 * U * spread) + 2.0**-80 * live


def difference(found, wanted):
    """Return abs(found - wanted), formed exactly before it is rounded."""
    return float(abs(exact(float(found)) - wanted))
