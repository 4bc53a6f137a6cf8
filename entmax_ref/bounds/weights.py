"""How wrong may the weights of a row be in float32?  Probabilities and sensitivities, and products with them."""

from typing import NamedTuple

import numpy as np

from entmax_ref.arguments import Floats
from entmax_ref.bounds.model import FORMATS, SLACK, TINY, Format, Operand, U, gamma, product_gamma
from entmax_ref.bounds.rows import POWERS, Rows


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


def powers_of(margin: Floats, error: Floats, power: int) -> Range:
    """Return ``max(margin, 0) ** power`` and the most that an error of the margin changes it (power >= 1 is convex)."""
    exact = np.maximum(margin, 0.0) ** power
    return Range(exact, np.maximum(margin + error, 0.0) ** power - exact)


def probs_of(at: Rows) -> tuple[Range, Floats]:
    """Return the probabilities with their error in float32, and their error once rounded to the dtype."""
    power, roundings = POWERS[at.alpha]
    found = powers_of(margin_of(at.z, at.tau), at.z_error + at.tau_error[..., None] + U, power)
    within = found.exact + found.error
    error = (found.error + gamma(roundings) * within + TINY * (within > 0.0)) * SLACK
    form = FORMATS[at.dtype]
    rounded = error + form.roundoff * (found.exact + error) + form.tiny * (within > 0.0)
    return Range(found.exact, error), rounded * SLACK


def sensitivity_of(at: Rows) -> Range:
    """Return ``gap ** (power - 1)`` on the support and 0 outside, and its error in float32."""
    margin, error = margin_of(at.z, at.tau), at.z_error + at.tau_error[..., None] + U
    if at.alpha == 2.0:
        return Range((margin > 0.0).astype(np.float64), (np.abs(margin) <= error).astype(np.float64))
    exact, moved = powers_of(margin, error, 1)
    return Range(exact, (moved + U * (exact + moved)) * SLACK)


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
