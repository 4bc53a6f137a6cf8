"""How wrong may the weights of a row be in float32?  Probabilities and sensitivities, and products with them."""

from typing import NamedTuple

import numpy as np

from entmax_ref.arguments import Floats
from entmax_ref.bounds.model import FORMATS, SLACK, TINY, Format, Operand, U, gamma, product_gamma
from entmax_ref.bounds.rows import POWERS, Rows, power_of


class Range(NamedTuple):
    """A quantity of each key: its exact value, and how far float32 may be off."""

    exact: Floats
    error: Floats


def terms_of(within: Floats) -> Floats:
    """Return how many weights of each row may differ from 0, (..., rows, 1)."""
    return np.asarray(np.count_nonzero(within, axis=-1)[..., None], dtype=np.float64)


def margin_of(z: Floats, tau: Floats) -> Floats:
    """Return ``z - tau``, ``-inf`` where not visible."""
    return np.where(z > -np.inf, z - np.where(np.isfinite(tau), tau, 0.0)[..., None], -np.inf)


def powers_of(margin: Floats, error: Floats, power: float) -> Range:
    """Return ``max(margin, 0) ** power`` and the most that an error of the margin changes it, up or down; power > 0."""
    lower, exact, upper = (np.maximum(margin + moved, 0.0) ** power for moved in (-error, 0.0, error))
    return Range(exact, np.maximum(upper - exact, exact - lower))


def power_roundings(probs: Floats, alpha: float) -> Floats:
    """Return how many roundings ``gap ** power`` carries that come out as ``probs``, with that of the gap.

    A product of ``power`` gaps has ``2 * power - 1``.  A loaded power rounds the gap ``power`` times; with L =
    ``abs(log(probs))``, its logarithm errs by 2 units of L, the power and two products by 3 of them, and its
    exponential by 4 (2 ** -22).
    """
    if alpha in POWERS:
        return np.full(probs.shape, 2.0 * POWERS[alpha] - 1.0)
    size = np.abs(np.log(np.where(probs > 0.0, probs, 1.0)))
    return np.asarray(power_of(alpha) + 5.0 * size + 4.0)


def power_error(alpha: float) -> float:
    """Return what `power_roundings` may do to a sum of probabilities of about 1, relatively: none of it to small ones.

    ``sum(p * abs(log(p)))`` is at most the logarithm of the support; 20 is that of half a billion keys.
    """
    if alpha in (1.5, 2.0):
        return 0.0  # `sum_gamma` has their roundings
    logarithms = 0.0 if alpha in POWERS else 5.0 * 20.0
    return float(gamma(2.0 * power_of(alpha) + logarithms + 4.0))


def probs_of(at: Rows) -> tuple[Range, Floats]:
    """Return the probabilities with their error in float32, and their error once rounded to the dtype."""
    found = powers_of(margin_of(at.z, at.tau), at.z_error + at.tau_error[..., None] + U, power_of(at.alpha))
    within = found.exact + found.error
    error = (found.error + gamma(power_roundings(within, at.alpha)) * within + TINY * (within > 0.0)) * SLACK
    form = FORMATS[at.dtype]
    rounded = error + form.roundoff * (found.exact + error) + form.tiny * (within > 0.0)
    return Range(found.exact, error), rounded * SLACK


def sensitivity_of(at: Rows) -> Range:
    """Return ``gap ** (power - 1)`` on the support and 0 outside, and its error in float32."""
    margin, error = margin_of(at.z, at.tau), at.z_error + at.tau_error[..., None] + U
    if at.alpha == 2.0:
        return Range((margin > 0.0).astype(np.float64), (np.abs(margin) <= error).astype(np.float64))
    exact, moved = powers_of(margin, error, power_of(at.alpha) - 1.0)
    within = exact + moved
    if at.alpha == 1.5:
        return Range(exact, (moved + U * within) * SLACK)
    probs = np.maximum(margin + error, 0.0) ** power_of(at.alpha)
    return Range(exact, (moved + gamma(power_roundings(probs, at.alpha) + 1.0) * within) * SLACK)


def mean_of(weights: Floats, v: Floats) -> Floats:
    """Return the mean of the values under the weights, 0 without weight."""
    total = weights.sum(axis=-1)[..., None]
    return np.asarray((weights @ v) / np.where(total > 0.0, total, 1.0))


def projected(size: Floats, error: Floats, other: Floats, scale: float, dtype: Operand) -> Floats:
    """Bound the error of ``scale * weights @ other``, storage included, for weights of known modulus and error."""
    within = size + error
    count = terms_of(within)
    summed = abs(scale) * (error @ other + product_gamma(count, dtype) * (within @ other) + 2.0 * count * TINY)
    whole = abs(scale) * (size @ other)
    return stored(whole, summed + gamma(2) * (whole + summed) + TINY, FORMATS[dtype])


def stored(size: Floats, error: Floats, form: Format) -> Floats:
    """Return the error of a number of at most this modulus, once it is rounded to the dtype."""
    return np.asarray((error + form.roundoff * (size + error) + form.tiny) * SLACK)
