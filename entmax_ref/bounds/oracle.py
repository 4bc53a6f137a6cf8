"""How wrong may the oracle be?"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from entmax_ref import transform
from entmax_ref.arguments import Booleans, Floats, as_axis, as_mask, as_orders, as_scores

U = 2.0**-53  # unit roundoff of float64


def threshold(
    scores: ArrayLike, alpha: float | Floats = 1.5, *, axis: int = -1, where: ArrayLike | None = None
) -> Floats:
    r"""Bound ``abs(entmax_ref.threshold(...) - exact)``.

    Parameters
    ----------
    scores, alpha, axis, where
        As `entmax_ref.threshold` takes them.

    Returns
    -------
    bound : ndarray of float64, the shape of ``scores`` without ``axis``
        0 for a row without a visible key, NaN for a row with a visible NaN or ``+inf``.

    Raises
    ------
    TypeError, ValueError
        As `entmax_ref.threshold` does.

    Notes
    -----
    ``u * (2 * abs(row_max) + 6 + 2 * max(1, alpha - 1) * (2 + log(n) + D))`` with u = 2**-53 and ``D = min(n - 1, 19 +
    log2(n))``, the depth of NumPy's pairwise summation of n terms. To first order in u, and provided that
    ``numpy.power``, ``exp`` and ``log1p`` err by at most one unit in the last place.

    - Product and final sum round by ``abs(row_max)`` and ``abs(row_max) + 1`` units u.
    - Each z counted from the maximum carries two roundings of a number of at most 1, each gap two more: tau is
      1-Lipschitz in z.
    - A relative error e of the mass moves tau by at most ``(alpha - 1) * e``, to first order: see the bracket in
      `entmax_ref.certify.certify`. The mass errs by D units from its summation, by 2 from the power, and by the
      rounding of the exponent, ``log(p)`` units for a probability p: their mean under p is an entropy, at most log(n).

    Lemmas: threshold_subset, residual_bound

    Examples
    --------
    >>> bool(threshold([0.5, 0.25, -1.0], alpha=2.0) < 10 * 2.0**-52)
    True
    """
    array, orders, visible, undefined = _accept("threshold", scores, alpha, axis, where)
    seen = np.any(visible, axis=-1)
    top = np.where(seen, np.max(np.where(visible, array, -np.inf), axis=-1, initial=-np.inf), 0.0)
    with np.errstate(over="ignore", invalid="ignore"):
        bound = U * (2.0 * np.abs((orders - 1.0) * top) + _of_order_one(orders, array.shape[-1]))
    return np.where(undefined, np.nan, np.where(seen, bound, 0.0))


def entmax(scores: ArrayLike, alpha: float | Floats = 1.5, *, axis: int = -1, where: ArrayLike | None = None) -> Floats:
    r"""Bound ``abs(entmax_ref.entmax(...) - exact)``, key by key.

    Parameters
    ----------
    scores, alpha, axis, where
        As `entmax_ref.entmax` takes them.

    Returns
    -------
    bound : ndarray of float64, the shape of ``scores``
        0 for a key that is not visible, NaN for a visible one in a row with a visible NaN or ``+inf``.

    Raises
    ------
    TypeError, ValueError
        As `entmax_ref.entmax` does.

    Notes
    -----
    A gap is formed without the offset of its row. With u = 2**-53, p its power and n keys it errs by at most

    - e = `threshold` for ``row_max = 0``, where tau is found from the gap of the smallest supported key;
    - ``e = (alpha - 1) * (r + 3 * u * depth)`` with r = u * (6 + 2 * (2 + log(n) + D)) and depth = (1 - gap) / (alpha
      - 1), where tau is found from ``theta = (1 + tau - row_max) / (alpha - 1)``: for alpha below 2 and a support whose
      ``size ** (alpha - 1)`` is below 2. Then r bounds the error of theta, which is that of the logarithm of the mass.
      A term of the mass errs by its exponent, u times ``depth / gap`` and u times ``log(prob)`` in the mean at most
      1.5 * log(size) and log(size); each key's own depth adds three roundings.

    The probability lies between ``max(gap - e, 0) ** p`` and ``(gap + e) ** p``, and the rounding of the power is at
    most ``u * (6 + 2 * abs(log(prob)))`` of it. A key outside the computed support may have a probability if its margin
    lies within e of 0; the margin is judged from the scores, with 3 e to spare. The computed gap stands for the exact
    one, a change of second order. Underflow may cost 2**-1073 more.

    Lemma: threshold_subset

    Examples
    --------
    >>> bool((entmax([0.5, 0.25, -1.0], alpha=2.0) < 16 * 2.0**-52).all())
    True
    """
    array, orders, visible, undefined = _accept("entmax", scores, alpha, axis, where)
    if array.shape[-1] == 0:
        return np.moveaxis(np.zeros(array.shape), -1, axis)
    n, step = array.shape[-1], orders[..., None] - 1.0
    shown = np.where(visible & ~undefined[..., None], array, -np.inf)
    order: Any = orders if orders.size else 1.5
    probs: Floats = transform.entmax(shown, order)
    inside: Booleans = transform.support(shown, order)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
        safe = np.where(step == 0.0, 1.0, step)
        log_probs = np.where(probs > 0.0, np.log(np.where(probs > 0.0, probs, 1.0)), -745.0)
        gap = np.where(inside, np.minimum(np.exp(step * log_probs), 1.0), 0.0)
        margin = np.where(inside, gap, _margin_outside(shown, gap, inside, step))
        # Errors of the gap over step: in the unit of the scores, so that they have a limit as alpha tends to 1.
        depth = np.where(step == 0.0, -log_probs, (1.0 - gap) / safe)
        of_theta = U * (_of_order_one(np.ones(()), n) + 3.0 * depth)
        of_lift = U * _of_order_one(orders, n)[..., None] / safe
        grown = np.count_nonzero(inside, axis=-1)[..., None] ** step
        # Which form the oracle took is known but for rounding; in between the larger bound holds for both.
        by_theta = np.where((step < 1.0) & (grown < 2.1), of_theta, 0.0)
        by_lift = np.where((step >= 1.0) | (grown > 1.9), of_lift, 0.0)
        slack = np.maximum(by_theta, by_lift)
        moved = _moved(probs, margin, inside, slack, step)
        reached = margin + 4.0 * step * slack + 2.0**-45 > 0.0
    rounded = U * np.where(probs > 0.0, (6.0 - 2.0 * log_probs) * probs, 0.0)
    bound = np.where(reached, moved + rounded + 2.0**-1073, 0.0)
    return np.moveaxis(np.where(undefined[..., None] & visible, np.nan, bound), -1, axis)


def _accept(
    function: str, scores: ArrayLike, alpha: float | Floats, axis: int, where: ArrayLike | None
) -> tuple[Floats, Floats, Booleans, Booleans]:
    """Check the arguments as the oracle does; return scores with the keys last, alpha by row, and which keys count."""
    array = as_scores(function, "scores", scores)
    place = as_axis(function, "scores", axis, array.shape)
    mask = as_mask(function, "where", where, array.shape)
    visible = array != -np.inf
    if mask is not None:
        visible &= mask
    moved, visible = np.moveaxis(array, place, -1), np.moveaxis(visible, place, -1)
    orders = as_orders(function, alpha, moved.shape[:-1], softmax=function == "entmax")
    undefined = np.any(visible & ~(moved < np.inf), axis=-1)
    return moved, np.broadcast_to(np.asarray(orders, dtype=np.float64), moved.shape[:-1]), visible, undefined


def _depth(n: int) -> float:
    """Return the depth of NumPy's pairwise summation of n terms, at most."""
    return float(min(n - 1, 19 + np.log2(n))) if n > 0 else 0.0


def _of_order_one(orders: Floats, n: int) -> Floats:
    """Return the part of the bound of tau that does not grow with the scores, in units of U."""
    return np.asarray(6.0 + 2.0 * np.maximum(1.0, orders - 1.0) * (2.0 + np.log(max(n, 1)) + _depth(n)))


def _margin_outside(shown: Floats, gap: Floats, inside: Booleans, step: Floats) -> Floats:
    """Return ``z - tau`` of the keys outside the support, counted from the smallest key inside; -inf if not visible."""
    lowest = np.argmin(np.where(inside, shown, np.inf), axis=-1, keepdims=True)
    floor, lift = np.take_along_axis(shown, lowest, axis=-1), np.take_along_axis(gap, lowest, axis=-1)
    return np.where(shown > -np.inf, lift - step * (floor - shown), -np.inf)


def _moved(probs: Floats, margin: Floats, inside: Booleans, slack: Floats, step: Floats) -> Floats:
    """Return how far a probability may move if its margin errs by ``step * slack``."""
    safe, e = np.where(step == 0.0, 1.0, step), step * slack
    relative = e / np.where(inside & (margin > 0.0), margin, 1.0)
    # (1 + relative) ** (1 / step) - 1 without cancellation; its limit at step 0 is expm1(slack).
    growth = np.expm1(np.where(step == 0.0, slack, np.log1p(relative) / safe))
    loss = -np.expm1(np.where(step == 0.0, -slack, np.log1p(-np.minimum(relative, 1.0)) / safe))
    # A probability that underflowed has no digits to grow from.
    above = np.where(probs > 0.0, probs * growth, np.power(np.maximum(margin, 0.0) + e, 1.0 / safe))
    reach = np.maximum(np.where(margin > -np.inf, margin + 3.0 * e + 4.0 * U * np.abs(margin), 0.0), 0.0)
    return np.where(inside, np.maximum(above, probs * loss), np.power(reach, 1.0 / safe))
