"""What are the probabilities of solved rows, and what is their Jacobian times a vector?"""

import numpy as np

from entmax_ref.arguments import Floats
from entmax_ref.rows.threshold import SolvedRows


def probs_of(rows: SolvedRows, alpha: float | Floats) -> Floats:
    """Return the probabilities of solved rows, (..., n), NaN where a row is undefined and a key visible."""
    return (
        np.where(rows.undefined[..., None] & rows.visible, np.nan, rows.probs) if rows.undefined.any() else rows.probs
    )


def sensitivity_of(rows: SolvedRows, alpha: float | Floats) -> Floats:
    """Return ``probs ** (2 - alpha)`` on the support of solved rows and 0 elsewhere."""
    supported = rows.gap > 0.0
    if not isinstance(alpha, np.ndarray):
        if alpha == 2.0:
            return supported.astype(np.float64)
        if alpha == 1.5:
            return rows.gap
        if alpha == 1.0:
            return rows.probs
    order = alpha[..., None] if isinstance(alpha, np.ndarray) else alpha
    gap = np.where(supported, rows.gap, 1.0)
    power = (2.0 - order) / np.where(order == 1.0, 1.0, order - 1.0)
    # A small gap holds its own digits, and does not underflow before the sensitivity does. One close to 1 has lost
    # digits that the probability still holds.
    small = gap <= 0.5
    found = np.where(small, np.power(np.where(small, gap, 1.0), power), rows.probs / gap)
    return np.where(supported, found, 0.0)


def centred_of(rows: SolvedRows, sensitivity: Floats, values: Floats) -> Floats:
    """Return ``values`` less their mean weighted by the sensitivity, on the support, and 0 elsewhere.

    The key with the largest sensitivity is the origin, which keeps the digits where it dwarfs the others.
    """
    supported = rows.gap > 0.0
    if supported.shape[-1] == 0:
        return np.zeros(supported.shape)
    place = np.argmax(sensitivity, axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):  # inf - inf: an infinite gradient on the support gives NaN, as it should
        centred = np.where(supported, values - np.take_along_axis(values, place, axis=-1), 0.0)
        total = np.sum(sensitivity, axis=-1, keepdims=True)
        mean = np.sum(sensitivity * centred, axis=-1, keepdims=True) / np.where(total > 0.0, total, 1.0)
        return np.where(supported, centred - mean, 0.0)


def vjp_of(rows: SolvedRows, alpha: float | Floats, d_probs: Floats) -> Floats:
    """Return the gradient for the scores of solved rows.  Lemmas: jacobian_form, jacobian_rows_zero"""
    sensitivity = sensitivity_of(rows, alpha)
    with np.errstate(invalid="ignore"):
        found = sensitivity * centred_of(rows, sensitivity, d_probs)
    return np.where(rows.undefined[..., None] & rows.visible, np.nan, found)
