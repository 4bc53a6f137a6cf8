"""What does one pass over the keys yield, and where does a step go from there?"""

import numpy as np

from entmax_ref.arguments import Floats
from entmax_ref.stages.histogram import Bracket


def sums(z: Floats, tau: Floats, alpha: float) -> tuple[Floats, Floats, Floats]:
    """Return what one pass over the keys yields for each row at tau.

    Parameters
    ----------
    z : ndarray of float64, shape (..., n)
        ``-inf`` where a key is not visible.
    tau : ndarray of float64, shape (...)
        Where to evaluate, below ``row_max``.
    alpha : float
        Order, in (1, 2].

    Returns
    -------
    mass : ndarray of float64, shape (...)
        Sum of ``gap ** power``.
    slope : ndarray of float64, shape (...)
        Sum of ``gap ** (power - 1)`` over the positive gaps; ``-power * slope`` is the derivative of mass.
    curve : ndarray of float64, shape (...)
        Sum of ``gap ** (power - 2)`` over the positive gaps; ``power * (power - 1) * curve`` is the second derivative.
        For alpha 1.5 it is their count. For alpha 2, where the second derivative is 0, it is 0.
    """
    power = 1.0 / (alpha - 1.0)
    gap = np.maximum(z - tau[..., None], 0.0)
    live = gap > 0.0
    positive = np.where(live, gap, 1.0)
    slope = np.sum(np.where(live, positive ** (power - 1.0), 0.0), axis=-1)
    if alpha == 2.0:
        curve = np.zeros_like(slope)
    elif alpha == 1.5:
        curve = np.sum(live, axis=-1).astype(np.float64)
    else:
        with np.errstate(over="ignore"):  # alpha > 1.5 and a gap next to nothing
            curve = np.sum(np.where(live, positive ** (power - 2.0), 0.0), axis=-1)
    return np.sum(gap**power, axis=-1), slope, curve


def norm_step(mass: Floats, slope: Floats, alpha: float) -> Floats:
    """Return Newton's step on ``mass ** (alpha - 1)``, the norm of the gaps; it lands at or left of tau.

    Parameters
    ----------
    mass, slope : ndarray of float64, shape (...)
        What `sums` returns.
    alpha : float
        Order, in (1, 2].

    Returns
    -------
    step : ndarray of float64, shape (...)
        What to add to tau. Exact if all positive gaps are equal and stay positive; Newton's step on the mass, which is
        exact if the support stays, for alpha 2.

    Notes
    -----
    The norm of a nonnegative vector that depends affinely on t is convex in t, so a tangent meets 1 at or left of the
    root, from either side.

    Lemma: newton_norm_left
    """
    if alpha in (1.5, 2.0):
        return (mass - mass ** (2.0 - alpha)) / slope
    # the same, with the digits that the difference loses as alpha approaches 1
    result: Floats = mass * -np.expm1((1.0 - alpha) * np.log(mass)) / slope
    return result


def density(mass: Floats, slope: Floats, slope_before: Floats, moved: Floats) -> Floats:
    """Return, for alpha 2, about how many scores leave the support for each unit that tau rises by.

    Parameters
    ----------
    mass, slope : ndarray of float64, shape (...)
        What `sums` returns at the present point.
    slope_before : ndarray of float64, shape (...)
        The slope, for alpha 2 the size of the support, at another point.
    moved : ndarray of float64, shape (...)
        How far beyond that point the present one lies; 0 if there was none.

    Returns
    -------
    density : ndarray of float64, shape (...)
        What `active_set_step` takes as ``curve``: the scores between the two points over their distance. Without
        another point, ``3 / 4 * slope ** 2 / mass``: it would be 1 / 2 if the gaps were spread evenly, and 1 if they
        were exponential, as in the tail of a distribution. But 0 where the mass is within a tenth of 1: there equal
        scores, of which it is wrong, are as likely, and Newton's step leaves little.
    """
    with np.errstate(invalid="ignore", divide="ignore"):  # a support of no key has no mass
        counted = np.maximum((slope_before - slope) / np.where(moved != 0.0, moved, 1.0), 0.0)
        supposed = np.where(np.abs(mass - 1.0) > 0.1, 0.75 * slope * slope / mass, 0.0)
        result: Floats = np.where(moved != 0.0, counted, supposed)
    return result


def active_set_step(mass: Floats, slope: Floats, curve: Floats, alpha: float) -> Floats:
    """Return the step to the root of the quadratic through the squared norm; NaN where it has no root.

    Parameters
    ----------
    mass, slope, curve : ndarray of float64, shape (...)
        What `sums` returns; for alpha 2 ``curve`` may be what `density` returns.
    alpha : float
        Order, in (1, 2].

    Returns
    -------
    step : ndarray of float64, shape (...)
        What to add to tau. It may land on either side of the root.

    Notes
    -----
    As long as the support stays the same, the squared norm of the gaps, ``mass ** (2 / power)``, is a quadratic in t
    for power 1 and 2, and for any power if the gaps are equal. So the step is exact in these cases, and of third order
    in all others (power >= 2). With ``excess = mass - mass ** (1 - 2 / power)`` and ``bend = (power - 1) * curve -
    (power - 2) * slope ** 2 / mass`` it is ``excess / (slope + sqrt(slope ** 2 - bend * excess))``: for alpha 1.5
    ``excess = mass - 1`` and ``bend`` is the count. A row to the right of its root always has this root, since ``bend``
    is positive (by Cauchy and Schwarz, ``mass * curve >= slope ** 2``).

    For alpha 2 the mass is piecewise linear, and with a ``curve`` of 0 the step is `norm_step`. On long flat rows that
    passes hundreds of breakpoints: with the `density` of scores as the second derivative the step is that of a row of
    many scores. Where it would account for 8 or fewer, which are there or not by chance, it is left at 0, and the step
    is at most 1.7 times Newton's, since a crowd of scores may lie beyond the root.

    For alpha between 1.5 and 2 the second derivative is unbounded where a key enters the support; the step is then of
    use only beside a safeguard, as in `safeguarded_step`.
    """
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        if alpha == 2.0:
            many = curve * np.abs((mass - 1.0) / slope) > 8.0
            inner = slope * slope - 2.0 * np.where(many, curve, 0.0) * (mass - 1.0)
            to_root: Floats = 2.0 * (mass - 1.0) / (slope + np.sqrt(np.maximum(inner, slope * slope / 32.0)))
            return to_root
        if alpha == 1.5:
            root = np.sqrt(slope * slope - curve * (mass - 1.0))
            result: Floats = (mass - 1.0) / (slope + root)
            return result
        power = 1.0 / (alpha - 1.0)
        excess = mass * -np.expm1(-2.0 / power * np.log(mass))
        bend = (power - 1.0) * curve - (power - 2.0) * slope * slope / mass
        result = excess / (slope + np.sqrt(slope * slope - bend * excess))
    # An infinite curve would pin a row to its place.
    return np.where(np.isfinite(curve), result, np.nan)


def safeguarded_step(
    tau: Floats, lo: Floats, hi: Floats, mass: Floats, slope: Floats, curve: Floats, tolerance: float, alpha: float
) -> Bracket:
    """Return the next tau and the bracket that the sums at the present one prove.

    Parameters
    ----------
    tau, lo, hi : ndarray of float64, shape (...)
        The present point and bracket, ``lo <= tau <= hi``.
    mass, slope, curve : ndarray of float64, shape (...)
        What `sums` returns at ``tau``; for alpha 2 ``curve`` may be what `density` returns.
    tolerance : float
        A row with ``abs(mass - 1)`` within it stays where it is rather than jump far.
    alpha : float
        Order, in (1, 2].

    Returns
    -------
    bracket : Bracket
        ``lo`` from `norm_step`, ``hi`` from the residual, ``tau`` from `active_set_step` between them.

    Notes
    -----
    A step is only a proposal inside the bracket: Halley's method, for one, can overshoot from the left. If it falls
    outside or does not exist, the bracket is halved, save for alpha above 1.5: there the lower bound
    is taken, from which Newton's method cannot fail. Measured, that needs 6 passes where halving needs 16 (clusters of
    equal scores, alpha 1.9, length 131072), and changes nothing for alpha below 1.5.

    Lemmas: step_keeps_bracket, newton_norm_left, residual_bound, halley_overshoots
    """
    lo = np.maximum(lo, tau + norm_step(mass, slope, alpha))
    hi = np.minimum(hi, np.where(mass < 1.0, tau, tau + (mass - 1.0)))
    # next to the root, and for small alpha, the two steps differ by less than their rounding
    step = np.maximum(tau + active_set_step(mass, slope, curve, alpha), lo)
    inside = step <= hi  # a step that does not exist is NaN, and not inside
    retreat = lo if alpha > 1.5 else 0.5 * (lo + hi)
    otherwise = np.where(np.abs(mass - 1.0) <= tolerance, tau, retreat)
    return Bracket(lo, hi, np.maximum(np.where(inside, step, otherwise), lo))
