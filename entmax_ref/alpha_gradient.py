"""How do the probabilities move with alpha?"""

import numpy as np
from numpy.typing import ArrayLike

from entmax_ref.arguments import Floats
from entmax_ref.rows.jacobian import vjp_of
from entmax_ref.rows.threshold import SolvedRows, solve_rows
from entmax_ref.transform import accept

SERIES_BELOW = 0.25  # where the closed form of _alpha_weight has lost 8 times the rounding

SERIES_TERMS = 25  # 0.25 ** 25 / (26 * 27 * 0.5) < 2**-58


def entmax_alpha_grad(
    scores: ArrayLike, alpha: ArrayLike = 1.5, *, axis: int = -1, where: ArrayLike | None = None
) -> Floats:
    r"""Return the derivative of the probabilities for alpha, the scores held fixed.

    Parameters
    ----------
    scores : array_like of real numbers, shape (..., n, ...)
        As given to `entmax`; never modified.
    alpha : float or array_like, default 1.5
        As given to `entmax`.
    axis : int, default -1
        The axis of the keys. Without keys (n = 0) every row is one without a visible key.
    where : array_like of bool, optional
        Broadcasts to the shape of ``scores``; False marks a key that is not visible, whatever its score.

    Returns
    -------
    d_alpha : ndarray of float64, the shape of ``scores``
        It sums to 0 over a row. The gradient of a scalar for alpha is its sum over the keys, weighted by the gradient
        for the probabilities. 0 outside the support and throughout a row without a visible key; NaN on the visible
        keys of a row with a visible NaN or ``+inf``.

    Raises
    ------
    TypeError, ValueError
        As `entmax` does.

    See Also
    --------
    entmax_vjp : the gradient for the scores.

    Notes
    -----
    With J the Jacobian for the scores this is J w, where, with x = (1 - gap) / (alpha - 1),

    .. math:: w_j = -\frac{1 - g_j + g_j \log g_j}{(\alpha - 1)^2} = x_j^2 \, k(1 - g_j), \qquad
       k(y) = -\sum_{i \ge 2} \frac{y^{i - 2}}{i (i - 1)},

    g the gap. The first form, which is how it is usually written, loses all digits as alpha tends to 1. The second
    has terms of one sign, and the limit :math:`w_j = -(\log p_j)^2 / 2` at alpha 1. Here the series is summed where
    the gap is above 3/4 and the closed form evaluated below.

    The support is taken as fixed. Where a key lies exactly at tau this is the derivative on the side on which the
    key stays outside; for alpha below 2 both sides agree, as they do at alpha 1, which the family passes smoothly.

    References
    ----------
    .. [1] Gonçalo M. Correia, V. Niculae and A. F. T. Martins, "Adaptively Sparse Transformers", EMNLP 2019. The
       gradient for alpha, in another form.

    Examples
    --------
    >>> entmax_alpha_grad([0.5, 0.0], alpha=2.0)
    array([ 0.18459398, -0.18459398])
    >>> entmax_alpha_grad([0.0, 0.0, 0.0], alpha=1.0)
    array([0., 0., 0.])
    """
    order, array, place, mask = accept("entmax_alpha_grad", scores, alpha, axis, where)
    return np.moveaxis(alpha_grad_of(solve_rows(array, order, mask), order), -1, place)


def alpha_grad_of(rows: SolvedRows, alpha: float | Floats) -> Floats:
    """Return d probs / d alpha of solved rows, (..., n); alpha as given to `solve_rows`.  Lemma: alpha_derivative"""
    step = alpha[..., None] - 1.0 if isinstance(alpha, np.ndarray) else np.float64(alpha - 1.0)
    return vjp_of(rows, alpha, _alpha_weight(rows, step))


def _alpha_weight(rows: SolvedRows, step: Floats | np.float64) -> Floats:
    """Return w of `entmax_alpha_grad` on the support and 0 elsewhere."""
    gap = np.where(rows.gap > 0.0, rows.gap, 1.0)
    # A gap close to 1 has lost digits that the probability still holds; a small one may belong to one that underflows.
    from_probs = (gap > 0.5) & (rows.probs > 0.0)
    log_probs = np.log(np.where(from_probs, rows.probs, 1.0))
    safe = np.where(step == 0.0, 1.0, step)
    depth = np.where(step == 0.0, -log_probs, -np.expm1(step * log_probs) / safe)
    depth = np.where(from_probs, depth, (1.0 - gap) / safe)
    y = step * depth
    low = np.minimum(y, SERIES_BELOW)
    series = np.zeros(y.shape)
    for i in range(SERIES_TERMS + 1, 1, -1):
        series = series * low + 1.0 / (i * (i - 1))
    far = y > SERIES_BELOW
    safe_y, safe_gap = np.where(far, y, 1.0), np.where(far, gap, 1.0)
    closed = (safe_y + safe_gap * np.log(safe_gap)) / (safe_y * safe_y)
    return np.where(rows.gap > 0.0, -depth * depth * np.where(far, closed, series), 0.0)
