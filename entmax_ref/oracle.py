r"""What is alpha-entmax, in as few lines as it takes to compute it exactly?  A text to read, to cite, to test against.

For a row of scores s and an order alpha above 1, let ``step = alpha - 1``.  alpha-entmax is the row

    ``p_i = max(step * s_i - tau, 0) ** (1 / step)``,    with tau such that the p_i sum to 1.

Four facts are all that is used; they are theorems of ``proofs/``, under the names that stand behind them.

1. The mass ``sum_i max(step * s_i - t, 0) ** (1 / step)`` falls with t, strictly where it is above 0: tau is its only
   root at 1.  *threshold_unique*
2. Nothing changes but tau if all scores are shifted.  So a row is written by its *drops* ``d_i = max(s) - s_i``, and
   tau by ``theta = (1 + tau - step * max(s)) / step``, in the unit of the scores: the *gap* ``step * s_i - tau`` is
   then ``1 - step * (theta + d_i)``.  *threshold_shift*
3. tau is below t exactly if the mass at t is below 1.  So a key is supported, ``p_i > 0``, exactly if the mass at ``t =
   step * s_i`` is below 1; the largest key always is, and after one that is not no smaller one is.  *threshold_unique*
4. With k keys in the support ``0 <= theta <= (1 - k ** -step) / step``: the largest key alone has mass 1 at the left
   end, and k keys as large as it have mass 1 at the right one.  *threshold_bracket*

So: sort; search for the size of the support (3); halve the bracket of theta until float64 can tell no more (1, 4).

The unknown is theta, and the logarithm of a probability is ``log1p(-step * (theta + d_i)) / step``, because both keep
their digits as alpha tends to 1: there theta tends to ``log(sum(exp(-d)))`` and the probabilities to softmax.  At alpha
1 that limit is what the same lines compute.

`entmax_ref.threshold`, `entmax_ref.entmax` and `entmax_ref.support` return the same for whole arrays, tens of times
faster, and decide the keys within rounding of tau exactly.  They are tested against this file, and both against
`entmax_ref.certify`, which proves bounds.  This file needs NumPy and no other file.

Lemmas: threshold_unique, threshold_shift, threshold_bracket
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["entmax", "support", "threshold"]

Row = NDArray[np.float64]


def threshold(scores: ArrayLike, alpha: float = 1.5) -> float:
    r"""Return tau, the root of ``sum(max((alpha - 1) * scores - tau, 0) ** (1 / (alpha - 1))) == 1``.

    Parameters
    ----------
    scores : array_like of real numbers, shape (n,)
        Converted to float64.  ``-inf`` hides a key.
    alpha : float, default 1.5
        Order, finite and above 1.

    Returns
    -------
    tau : float
        In the unit of ``(alpha - 1) * scores``.  ``+inf`` if no key is visible, NaN if a score is NaN or ``+inf``.

    Raises
    ------
    ValueError
        If ``scores`` is not one row, or alpha not finite and above 1: at 1 there is no threshold.

    Notes
    -----
    ``abs(tau - exact)`` is within the bound of `entmax_ref.bounds.threshold`.

    Examples
    --------
    >>> round(threshold([0.5, 0.25, -1.0], alpha=2.0), 15)
    -0.125
    """
    row, step = _accept(scores, alpha)
    if step == 0.0:
        raise ValueError("oracle: alpha is 1, which is softmax, without a threshold. Pass one above 1.")
    if not row.size:
        return math.inf
    if not row.max() < math.inf:
        return math.nan
    return float(step * row.max() + (step * _theta(row, step)[0] - 1.0))


def entmax(scores: ArrayLike, alpha: float = 1.5) -> Row:
    """Return the probabilities of a row.

    Parameters
    ----------
    scores, alpha
        As `threshold` takes them; alpha may be 1, which is softmax.

    Returns
    -------
    probs : ndarray of float64, shape (n,)
        Nonnegative, with sum 1 but for rounding, and exactly 0 outside the `support`.  0 if no key is visible; NaN on
        the visible keys if a score is NaN or ``+inf``.

    Raises
    ------
    ValueError
        If ``scores`` is not one row, or alpha below 1 or not finite.

    Examples
    --------
    >>> entmax([0.5, 0.25, -1.0], alpha=2.0)
    array([0.625, 0.375, 0.   ])
    >>> entmax([0.0, 0.0], alpha=1.0)
    array([0.5, 0.5])
    """
    row, step = _accept(scores, alpha)
    visible, probs = np.asarray(scores, dtype=np.float64) != -np.inf, np.zeros(np.shape(scores))
    if row.size and not row.max() < math.inf:
        probs[visible] = math.nan
    elif row.size:
        theta, size = _theta(row, step)
        drops = row.max() - row
        inside = drops <= np.sort(drops)[size - 1]
        probs[visible] = np.where(inside, np.exp(_log_probs(theta + drops, step)), 0.0)
    return probs


def support(scores: ArrayLike, alpha: float = 1.5) -> NDArray[np.bool_]:
    """Return which keys have a probability above 0.

    Parameters
    ----------
    scores, alpha
        As `entmax` takes them.

    Returns
    -------
    inside : ndarray of bool, shape (n,)
        False everywhere if a score is NaN or ``+inf``.

    Raises
    ------
    ValueError
        As `entmax` does.

    Notes
    -----
    Whether a key within rounding of tau is one of them depends on the last digit of its mass: on rows made for it the
    answer differs from the exact one at such keys, and at no others.  `entmax_ref.support` decides them.

    Examples
    --------
    >>> support([0.5, 0.25, -1.0], alpha=2.0)
    array([ True,  True, False])
    """
    row, step = _accept(scores, alpha)
    visible, inside = np.asarray(scores, dtype=np.float64) != -np.inf, np.zeros(np.shape(scores), dtype=np.bool_)
    if row.size and row.max() < math.inf:
        drops = row.max() - row
        inside[visible] = drops <= np.sort(drops)[_support_size(np.sort(drops), step) - 1]
    return inside


def _accept(scores: ArrayLike, alpha: float) -> tuple[Row, float]:
    """Return the visible scores of a row, and ``alpha - 1``."""
    row = np.asarray(scores, dtype=np.float64)
    if row.ndim != 1:
        raise ValueError(f"oracle: scores have shape {row.shape}; they must be one row. Call once for each row.")
    if not 1.0 <= alpha < math.inf:
        raise ValueError(f"oracle: alpha is {alpha}; it must be finite and at least 1. Pass 1.5, for example.")
    return row[row != -np.inf], float(alpha) - 1.0


def _log_probs(depth: Row, step: float) -> Row:
    """Return ``log(gap) / step`` for ``gap = 1 - step * depth``; -inf where there is no gap, ``-depth`` at step 0."""
    if step == 0.0:
        return -depth
    with np.errstate(divide="ignore", over="ignore"):
        return np.asarray(np.log1p(-np.minimum(step * depth, 1.0)) / step)


def _support_size(drops: Row, step: float) -> int:
    """Return how many keys are supported; ``drops`` ascend.  The first one is, and after one that is not, none is."""
    inside, outside = 0, len(drops)
    if step == 0.0:
        return outside
    while outside - inside > 1:
        middle = (inside + outside) // 2
        # At the key in the middle the gap of a key above it is step times the difference of the scores.
        with np.errstate(divide="ignore", over="ignore"):
            log_terms = (
                np.log(step * (drops[middle] - drops[drops < drops[middle]])) / step if step else np.full(1, -1e9)
            )
            is_inside = bool(np.sum(np.exp(log_terms)) < 1.0)
        inside, outside = (middle, outside) if is_inside else (inside, middle)
    return outside


def _theta(row: Row, step: float) -> tuple[float, int]:
    """Return theta and the size of the support."""
    drops = np.sort(row.max() - row)
    size = _support_size(drops, step)
    lo, hi = 0.0, (-math.expm1(-step * math.log(size)) / step if step else math.log(size))
    # An error of theta moves the gaps by step times as much, and the logarithms of the probabilities near step 0.
    while (hi - lo) * max(step, 1.0) > 2.0**-55:
        middle = 0.5 * (lo + hi)
        if middle in (lo, hi):
            break
        mass = np.sum(np.exp(_log_probs(middle + drops[:size], step)))
        lo, hi = (middle, hi) if mass > 1.0 else (lo, middle)
    return 0.5 * (lo + hi), size
