"""What is the right answer for rows, and how far off may a target be?  Bounds for each key, from what rounding does.

A target computes in its *working* precision, with unit roundoff w: float64 for float64, float32 for all other dtypes.
It is held to twice what a plain evaluation of the definition loses there, key by key:

- counting scores from the maximum, scaling them and subtracting tau round numbers of at most 1: 3 w in a gap, and w
  for tau itself;
- a mass of k terms, keys within rounding of tau among them, rounds each twice, by its power, and every partial sum: an
  error of ``w * (3 + sqrt(2 * log(N)) * sqrt((k + 1) / 3))`` over the orders of the terms, the largest of N keys taken,
  or what adding the terms one after the other loses on this row, whichever is more. tau moves by that over ``power *
  slope``;
- the scores may come with an error of their own (attention).

These make the error e of a gap. A probability lies between ``max(gap - e, 0) ** power`` and ``(gap + e) ** power``, and
is rounded once to the dtype. The oracle's own error (`entmax_ref.bounds.threshold`) is added.

Zeros do not pass: the bound of a key is far below its probability unless its gap is within e of 0.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

import entmax_ref
from entmax_ref import bounds
from entmax_ref.conformance.precision import FORMATS, Floats


@dataclass(frozen=True)
class RowTruth:
    """The oracle's answer for rows of scores (..., n), and what a target may be off.

    Attributes
    ----------
    probs : ndarray of float64, shape (..., n)
    margin : ndarray of float64, shape (..., n)
        ``z - tau``: positive in the support; ``-inf`` for keys that are not visible.
    gap_error : ndarray of float64, shape (..., 1)
        e, the error that a gap may have.
    allowed : ndarray of float64, shape (..., n)
        The error that a probability may have, rounding to the dtype included.
    """

    probs: Floats
    margin: Floats
    gap_error: Floats
    allowed: Floats


def row_truth(scores: Floats, alpha: float, dtype: str, *, score_error: Floats | float = 0.0) -> RowTruth:
    """Return the truth about rows of scores.

    Parameters
    ----------
    scores : ndarray of float64, shape (..., n)
        Without NaN and ``+inf``.
    alpha : float
        At least 1.
    dtype : str
    score_error : ndarray of float64, shape (..., n) or float
        How far the scores that a target works with may be off.

    Returns
    -------
    RowTruth
    """
    form, step = FORMATS[dtype], alpha - 1.0
    probs = entmax_ref.entmax(scores, alpha)
    visible = scores > -np.inf
    top = np.max(scores, axis=-1, keepdims=True, initial=-np.inf)
    shown = np.where(visible, scores - np.where(top > -np.inf, top, 0.0), -np.inf)
    moved = np.max(np.where(visible, score_error, 0.0), axis=-1, keepdims=True, initial=0.0)
    if step == 0.0:
        error = 2.0 * (form.working * (3.0 - np.where(visible, shown, 0.0)) + _sum_error(probs, form.working)) + moved
        grown = probs * np.expm1(2.0 * error)
        margin = np.where(visible, np.inf, -np.inf)
    else:
        power = 1.0 / step
        tau = entmax_ref.threshold(shown, alpha)[..., None]
        margin = np.where(visible, step * shown - np.where(np.isfinite(tau), tau, 0.0), -np.inf)
        gap = np.where(probs > 0.0, np.maximum(margin, 0.0), 0.0)
        slope = np.sum(np.where(probs > 0.0, probs ** (2.0 - alpha), 0.0), axis=-1, keepdims=True)
        near = np.count_nonzero(margin >= -16.0 * form.working, axis=-1)[..., None]
        of_mass = _sum_error(probs, form.working, near) / np.where(slope > 0.0, power * slope, 1.0)
        own = np.nan_to_num(bounds.threshold(shown, alpha)[..., None])
        error = 2.0 * (4.0 * form.working + of_mass + step * moved) + own
        with np.errstate(over="ignore"):
            above = np.maximum(np.where(visible, margin, -np.inf) + error, 0.0) ** power
            grown = np.where(visible, np.maximum(above - probs, probs - np.maximum(gap - error, 0.0) ** power), 0.0)
    tiny = form.tiny + form.working_tiny
    allowed = grown + form.roundoff * (probs + grown) + tiny * visible
    return RowTruth(probs, margin, np.broadcast_to(error, (*scores.shape[:-1], error.shape[-1])), allowed)


def _sum_error(probs: Floats, working: float, least: Floats | int = 0) -> Floats:
    """Return how far a computed mass may be off, shape (..., 1): by the model, or as added term by term."""
    count = np.maximum(np.count_nonzero(probs, axis=-1)[..., None], least)
    reach = math.sqrt(2.0 * math.log(max(probs.size, 2)))
    model = working * (3.0 + reach * np.sqrt((count + 1.0) / 3.0))
    kind: Any = np.float64 if working < 2.0**-30 else np.float32
    if not probs.shape[-1]:
        return np.asarray(model)
    in_turn = np.cumsum(probs.astype(kind), axis=-1, dtype=kind)[..., -1:].astype(np.float64)
    return np.asarray(np.maximum(model, np.abs(in_turn - np.sum(probs, axis=-1, keepdims=True))))


@dataclass(frozen=True)
class GradientTruth:
    """The oracle's gradient of scores, and what a target may be off, for each key; ``defined`` is False near a jump."""

    d_scores: Floats
    allowed: Floats
    sum_allowed: Floats
    defined: bool


def gradient_truth(scores: Floats, d_probs: Floats, alpha: float, dtype: str) -> GradientTruth:
    """Return the truth about ``s * (d_probs - sum(s * d_probs) / sum(s))`` with ``s = probs ** (2 - alpha)``.

    Notes
    -----
    A target may take s from the probabilities that it returned, so s has the range that those have. From alpha 2 on the
    gradient jumps where a key enters the support: a row with a key so near tau that rounding decides is not judged.
    """
    form, truth = FORMATS[dtype], row_truth(scores, alpha, dtype)
    inside = truth.probs > 0.0
    near = np.abs(truth.margin) <= 2.0 * truth.gap_error
    defined = not (alpha >= 2.0 and bool(near.any()))
    lower, upper = np.maximum(truth.probs - truth.allowed, 0.0), truth.probs + truth.allowed
    sensitivity = np.where(inside, truth.probs ** (2.0 - alpha) if alpha != 2.0 else 1.0, 0.0)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if alpha == 2.0:
            moved = np.zeros_like(sensitivity)
        else:
            ends = [np.where(end > 0.0, end ** (2.0 - alpha), 0.0) for end in (lower, upper)]
            moved = np.maximum(np.abs(ends[0] - sensitivity), np.abs(ends[1] - sensitivity))
            # A key that may come out on either side of tau.
            moved = np.where(truth.margin > -2.0 * truth.gap_error, moved, 0.0)
    total = np.sum(sensitivity, axis=-1, keepdims=True)
    total = np.where(total > 0.0, total, 1.0)
    mean = np.sum(sensitivity * d_probs, axis=-1, keepdims=True) / total
    away = d_probs - mean
    roundings = form.working + form.roundoff
    of_sum = _sum_error(truth.probs, form.working) + 2.0 * roundings
    size = np.sum(sensitivity * np.abs(d_probs), axis=-1, keepdims=True) / total
    left = np.maximum(total - np.sum(moved, axis=-1, keepdims=True), total / 2.0)
    of_mean = np.sum(moved * np.abs(away), axis=-1, keepdims=True) / left + 2.0 * of_sum * size
    allowed = (
        moved * (np.abs(away) + of_mean)
        + sensitivity * of_mean
        + 4.0 * roundings * sensitivity * (np.abs(d_probs) + np.abs(mean))
        + (form.tiny + form.working_tiny) * (truth.margin > -np.inf)
    )
    exact = np.asarray(entmax_ref.entmax_vjp(scores, d_probs, alpha))
    # The sum of a gradient's row: what its own terms round to, and what the mean is off times the sum of s.
    sums = (total + np.sum(moved, axis=-1, keepdims=True)) * 2.0 * of_sum * size + np.sum(
        4.0 * roundings * (sensitivity + moved) * (np.abs(d_probs) + np.abs(mean)) + form.tiny + form.working_tiny,
        axis=-1,
        keepdims=True,
    )
    return GradientTruth(exact, allowed, np.asarray(sums[..., 0]), defined)
