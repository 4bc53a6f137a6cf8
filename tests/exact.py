"""Compute alpha-entmax of one row to 27 digits, independently of ``entmax_ref``, and bound float64 by it.

Nothing here sorts or looks for the support first: the root is bracketed in mpmath, on the exact
differences of the given float64 scores. ``U`` is the unit roundoff of float64.
"""

from fractions import Fraction

import mpmath
import numpy as np

U = 2.0**-53
BITS = 145  # the bracket of tau ends 2**-145 wide: 2**-93 times the power at the alpha next to 1, which is 2**52
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
    power, width = 1 / (exact(alpha) - 1), CONTEXT.mpf(2) ** -bits
    lo, hi, t = CONTEXT.mpf(-1), CONTEXT.mpf(0), CONTEXT.mpf(-1)
    while hi - lo > width:
        above = [value - t for value in relative if value > t]
        terms = [gap**power for gap in above]
        mass = CONTEXT.fsum(terms)
        lo, hi = (t, hi) if mass >= 1 else (lo, t)
        step = (mass - 1) / (power * CONTEXT.fsum(term / gap for term, gap in zip(terms, above, strict=True)))
        t += step
        if abs(step) < width / 8:  # Newton has converged: try for the bracket around it
            ends = max(lo, t - width / 4), min(hi, t + width / 4)
            if mass_at(relative, alpha, ends[0]) >= 1 >= mass_at(relative, alpha, ends[1]):
                lo, hi = ends
        t = t if lo < t < hi else (lo + hi) / 2
    assert mass_at(relative, alpha, lo) >= 1 >= mass_at(relative, alpha, hi)
    return (lo + hi) / 2


def gaps(scores, alpha, bits=BITS):
    """Return z - tau for each score, negative outside the support."""
    tau = relative_tau(scores, alpha, bits)
    return [value - tau for value in relative_z(scores, alpha)]


def probs(scores, alpha, bits=BITS):
    """Return the probabilities as mpf; those of softmax for alpha 1."""
    if alpha == 1:
        top = max(score for score in scores)
        terms = [CONTEXT.exp(exact(Fraction(s) - Fraction(top))) if s != -np.inf else CONTEXT.mpf(0) for s in scores]
        return [term / CONTEXT.fsum(terms) for term in terms]
    power = 1 / (exact(alpha) - 1)
    return [max(gap, CONTEXT.mpf(0)) ** power for gap in gaps(scores, alpha, bits)]


def sensitivities(scores, alpha, bits=BITS):
    """Return probs ** (2 - alpha) on the support, 0 elsewhere."""
    if alpha == 1:
        return probs(scores, alpha)
    power = 1 / (exact(alpha) - 1)
    return [gap ** (power - 1) if gap > 0 else CONTEXT.mpf(0) for gap in gaps(scores, alpha, bits)]


def vjp(scores, d_probs, alpha, bits=BITS):
    """Return the gradient for the scores, from the Jacobian written out."""
    sensitivity = sensitivities(scores, alpha, bits)
    d_probs = [exact(d) if s else CONTEXT.mpf(0) for d, s in zip(d_probs, sensitivity, strict=True)]
    mean = CONTEXT.fdot(sensitivity, d_probs) / CONTEXT.fsum(sensitivity)
    return [s * (d - mean) for s, d in zip(sensitivity, d_probs, strict=True)]


def slope(function, step):
    """Return the derivative at 0 of a function of a Fraction, a list of mpf, by central differences.

    Its error is below step ** 2 / 6 times the third derivative.
    """
    up, down = function(step), function(-step)
    return [(high - low) / (2 * exact(step)) for high, low in zip(up, down, strict=True)]


def slope_from_right(function, step):
    """Return the same for a function that exists at 0 and above only; the error is below step ** 2 times the third."""
    values = [function(k * step) for k in range(3)]
    return [(-3 * f0 + 4 * f1 - f2) / (2 * exact(step)) for f0, f1, f2 in zip(*values, strict=True)]


def tsallis(p, alpha):
    """Return the entropy H_alpha(p) of the docstring of ``entmax_ref.entmax``; Shannon's for alpha 1."""
    if alpha == 1:
        return -CONTEXT.fsum(value * CONTEXT.log(value) for value in p if value)
    order = exact(alpha)
    return CONTEXT.fsum(value - value**order for value in p) / (order * (order - 1))


def loss(scores, target, alpha, bits=200):
    """Return the Fenchel-Young loss from its definition; target sums to 1 exactly or is compared up to that."""
    top = Fraction(max(scores))
    p, y = probs(scores, alpha, bits), [exact(value) for value in target]
    s = [exact(Fraction(score) - top) for score in scores]
    return CONTEXT.fdot([a - b for a, b in zip(p, y, strict=True)], s) + tsallis(p, alpha) - tsallis(y, alpha)


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


class FirstOrder:
    """First-order bounds of what ``entmax_ref`` computes for one row, by key; ``valid`` says if first order will do.

    The relative error of the mass is at most r = U * (6 + 2 * (2 + log(n) + D)), as in `tau_bound`. Where the root is
    kept as theta (size ** (alpha - 1) < 2), theta errs by at most r and depth = theta + drop by 3 U of itself; gap =
    1 - (alpha - 1) * depth. Elsewhere the gap errs by `gap_bound`, and depth by that over alpha - 1.
    """

    def __init__(self, scores, alpha):
        self.n, self.alpha, self.step = len(scores), float(alpha), float(alpha) - 1.0
        exact_probs = probs(scores, alpha)
        if alpha == 1:
            exact_gaps = [CONTEXT.mpf(1)] * self.n
        else:
            exact_gaps = gaps(scores, alpha)
        self.live = np.array([gap > 0 for gap in exact_gaps])
        found = np.array([float(gap) for gap in exact_gaps])
        self.gap = np.where(self.live, found, 1.0)
        power = 1 / (exact(alpha) - 1) if alpha != 1 else None
        logs = [
            -CONTEXT.inf if not gap > 0 else CONTEXT.log(p) if power is None else power * CONTEXT.log(gap)
            for p, gap in zip(exact_probs, exact_gaps, strict=True)
        ]
        self.log_probs = np.where(self.live, [float(log) for log in logs], 0.0)
        self.probs = np.array([float(p) for p in exact_probs])
        depth = -self.log_probs if alpha == 1 else -np.expm1(self.step * self.log_probs) / self.step
        self.mass_error = tau_bound(self.n, 0.0, alpha)
        self.near = np.count_nonzero(self.live) ** self.step < 2.0
        self.depth_error = (
            self.mass_error + 3 * U * depth if self.near else np.full(self.n, self.mass_error) / self.step
        )
        self.probs_error = self.depth_error / self.gap + U * (6 + 2 * np.abs(self.log_probs))  # relative
        self.gap_error = self.step * self.depth_error + U  # absolute
        self.sensitivity = np.array([float(s) for s in sensitivities(scores, alpha)])
        lost = abs(2.0 - self.alpha)
        self.sensitivity_error = lost * self.depth_error / self.gap + U * (6 + 2 * lost * np.abs(self.log_probs))
        self.valid = np.all(self.sensitivity_error[self.live] < 1e-3) and np.all(
            np.abs(found) > 1000 * max(1.0, lost) * np.where(self.live, self.gap_error, self.mass_error)
        )

    def centred(self, values):
        """Return values less their weighted mean on the support, and the error of what is computed as such."""
        values = np.where(self.live, values, 0.0)
        total = self.sensitivity.sum()
        centred = np.where(self.live, values - np.dot(self.sensitivity, values) / total, 0.0)
        spread = np.max(np.abs(values[self.live][:, None] - values[self.live][None, :]))
        mean = np.dot(self.sensitivity, self.sensitivity_error * np.abs(centred)) / total
        return centred, np.where(self.live, mean + U * (2 * self.n + 10) * spread, 0.0)

    def product(self, values, errors=0.0):
        """Return a bound of the error of the Jacobian times values that err by ``errors`` themselves."""
        centred, error = self.centred(values)
        errors = np.where(self.live, errors, 0.0)
        carried = errors + np.dot(self.sensitivity, errors) / self.sensitivity.sum()
        own = (self.sensitivity_error + 5 * U) * np.abs(centred)
        # 1.01 for second order; the least subnormal, a few times, for sensitivities that underflow
        return 1.01 * self.sensitivity * (own + error + carried) + 2.0**-1070 * (1 + np.max(np.abs(centred)))
