"""What are the probabilities of each row, and which keys hold them?"""

import numpy as np
from numpy.typing import ArrayLike

from entmax_ref.arguments import Booleans, Floats, as_axis, as_mask, as_orders, as_scores
from entmax_ref.rows.threshold import chunks_of


def entmax(scores: ArrayLike, alpha: ArrayLike = 1.5, *, axis: int = -1, where: ArrayLike | None = None) -> Floats:
    r"""Return the alpha-entmax probabilities, ``max((alpha - 1) * scores - tau, 0) ** (1 / (alpha - 1))``.

    Parameters
    ----------
    scores : array_like of real numbers, shape (..., n, ...)
        Converted to float64 and never modified. ``-inf`` marks a key that is not visible, and so does the mask of a
        masked array.
    alpha : float or array_like, default 1.5
        Order of the transform, at least 1: 1 is softmax, 1.5 is entmax, 2 is sparsemax. An array has the shape of
        ``scores`` without ``axis``, or broadcasts to it: one order per row, for example ``alpha[:, None]`` for one per
        head of scores of shape (batch, heads, n_queries, n_keys).
    axis : int, default -1
        The axis of the keys. Without keys (n = 0) every row is one without a visible key.
    where : array_like of bool, optional
        Broadcasts to the shape of ``scores``; False marks a key that is not visible, whatever its score.

    Returns
    -------
    probs : ndarray of float64, the shape of ``scores``
        Nonnegative, and 0 for a key that is not visible. A row sums to 1, save that a row without a visible
        key is 0, and that a row with a visible NaN or ``+inf`` is NaN on its visible keys. No row affects
        another.

    Raises
    ------
    TypeError
        If ``scores`` or ``alpha`` is not real and numeric, ``where`` not boolean, or ``axis`` not one integer.
    ValueError
        If ``alpha`` is not finite and at least 1 or does not broadcast to the rows, ``axis`` is absent, or
        ``where`` does not broadcast.

    See Also
    --------
    threshold : tau, and how it is found.
    entmax_vjp : the gradient.

    Notes
    -----
    This is the maximiser over the simplex of :math:`p \cdot s + H_\alpha(p)`, with the Tsallis entropy
    :math:`H_\alpha(p) = \sum_j (p_j - p_j^\alpha) / (\alpha (\alpha - 1))`, for alpha 1 that of Shannon.

    Which probabilities are positive is decided exactly, see `support`, but for those that underflow.

    The gaps are formed relative to the maximum or to the smallest key of the support and never from tau itself, so an
    offset common to a row costs no digits beyond those that the scores lost to it. Each gap errs by at most the
    bound of `threshold` for ``row_max = 0``; a gap error e becomes an error of at most ``(gap + e) ** power -
    gap ** power`` (or the same below the gap), plus the rounding of the power.

    For alpha close to 1 much less is lost. Where ``size ** (alpha - 1) < 2``, with size that of the support, a
    probability is computed as ``exp(log1p(-(alpha - 1) * depth) / (alpha - 1))`` from ``depth = theta + max(scores) -
    score``, in which theta tends to ``log(sum(exp(scores - max(scores))))``. With u = 2**-53 and r = u * (6 + 2 * (2 +
    log(n) + D)), D as in `threshold`, its relative error is at most ``(r + 3 * u * depth) / gap + u * (6 + 2 *
    abs(log(probs)))`` to first order, whatever alpha is. A row sums to 1 within 4 * 2**-52 * sqrt(n) on all rows that
    were tried; the worst were 6 * 2**-53 off, at any n up to 4096.

    For alpha well above 2 the power is less than 1 and a key at the edge of the support feels it: there the rounding
    of z alone costs up to ``(2**-52) ** power``. A gap below 1e-323 is 0, and with it the probability; equal scores
    come to that if ``n ** (1 - alpha)`` does, as for 1000 keys and alpha above 108.

    Lemmas: threshold_unique, threshold_shift

    References
    ----------
    .. [1] Ben Peters, V. Niculae and A. F. T. Martins, "Sparse Sequence-to-Sequence Models", ACL 2019.
    .. [2] André F. T. Martins and R. F. Astudillo, "From Softmax to Sparsemax: A Sparse Model of Attention and
       Multi-Label Classification", ICML 2016.

    Examples
    --------
    >>> entmax([1.0, 1.0, 1.0, 1.0])
    array([0.25, 0.25, 0.25, 0.25])
    >>> entmax([3.0, 0.0, 1.0], where=[False, True, True], alpha=2.0)
    array([0., 0., 1.])
    >>> entmax([[1.0, float("nan")], [1.0, 1.0]])
    array([[nan, nan],
           [0.5, 0.5]])
    >>> entmax([[0.0, 0.5], [0.0, 0.5]], alpha=[1.5, 2.0])
    array([[0.32..., 0.67...],
           [0.25     , 0.75     ]])
    """
    return _mapped("entmax", scores, alpha, axis, where)


def sparsemax(scores: ArrayLike, *, axis: int = -1, where: ArrayLike | None = None) -> Floats:
    """Return the Euclidean projection of each row onto the simplex, `entmax` with alpha 2.

    Parameters
    ----------
    scores, axis, where
        As given to `entmax`.

    Returns
    -------
    probs : ndarray of float64, the shape of ``scores``
        As `entmax` returns them.

    Raises
    ------
    TypeError, ValueError
        As `entmax` does.

    References
    ----------
    .. [1] André F. T. Martins and R. F. Astudillo, "From Softmax to Sparsemax: A Sparse Model of Attention and
       Multi-Label Classification", ICML 2016.

    Examples
    --------
    >>> sparsemax([0.5, 0.25, -1.0])
    array([0.625, 0.375, 0.   ])
    """
    return _mapped("sparsemax", scores, 2.0, axis, where)


def entmax15(scores: ArrayLike, *, axis: int = -1, where: ArrayLike | None = None) -> Floats:
    """Return `entmax` with alpha 1.5.

    Parameters
    ----------
    scores, axis, where
        As given to `entmax`.

    Returns
    -------
    probs : ndarray of float64, the shape of ``scores``
        As `entmax` returns them.

    Raises
    ------
    TypeError, ValueError
        As `entmax` does.

    References
    ----------
    .. [1] Ben Peters, V. Niculae and A. F. T. Martins, "Sparse Sequence-to-Sequence Models", ACL 2019.

    Examples
    --------
    >>> entmax15([1.0, 1.0, 1.0, 1.0])
    array([0.25, 0.25, 0.25, 0.25])
    """
    return _mapped("entmax15", scores, 1.5, axis, where)


def softmax(scores: ArrayLike, *, axis: int = -1, where: ArrayLike | None = None) -> Floats:
    """Return ``exp(scores)`` over its sum by row, the limit of `entmax` as alpha tends to 1.

    Parameters
    ----------
    scores, axis, where
        As given to `entmax`.

    Returns
    -------
    probs : ndarray of float64, the shape of ``scores``
        As `entmax` returns them.

    Raises
    ------
    TypeError, ValueError
        As `entmax` does.

    References
    ----------
    .. [1] John S. Bridle, "Training Stochastic Model Recognition Algorithms as Networks can Lead to Maximum Mutual
       Information Estimation of Parameters", NIPS 1989.

    Examples
    --------
    >>> softmax([0.0, 0.0])
    array([0.5, 0.5])
    """
    return _mapped("softmax", scores, 1.0, axis, where)


def support(scores: ArrayLike, alpha: ArrayLike = 1.5, *, axis: int = -1, where: ArrayLike | None = None) -> Booleans:
    """Return which keys have ``(alpha - 1) * scores > tau``, that is, a positive probability.

    Parameters
    ----------
    scores : array_like of real numbers, shape (..., n, ...)
        Converted to float64 and never modified. ``-inf`` marks a key that is not visible, and so does the mask of a
        masked array.
    alpha : float or array_like, default 1.5
        As given to `entmax`. At alpha 1 every visible key is supported.
    axis : int, default -1
        The axis of the keys. Without keys (n = 0) every row is one without a visible key.
    where : array_like of bool, optional
        Broadcasts to the shape of ``scores``; False marks a key that is not visible, whatever its score.

    Returns
    -------
    support : ndarray of bool, the shape of ``scores``
        False throughout a row without a visible key, and a row with a visible NaN or ``+inf``, whose support
        is not defined.

    Raises
    ------
    TypeError, ValueError
        As `entmax` does.

    Notes
    -----
    The answer is exact, for the scores and alpha as float64 has them. A key is supported if and only if the mass at it,
    ``sum(max(z - z[key], 0) ** power)``, is below 1. Where z is within the bound of `threshold` (taken for ``row_max =
    0``) of tau, that mass is compared with 1 to as many digits as it takes, without error where it can be 1 itself: a
    key exactly on tau is outside, and equal scores are all in or all out. Only a mass that is not 1 but 1 to 700 digits
    would count as 1. For alpha close to 1 a supported key may have a probability below the smallest float64, so that
    `entmax` returns 0 for it.

    Lemmas: threshold_unique, threshold_subset

    Examples
    --------
    >>> support([0.5, 0.25, -1.0], alpha=2.0)
    array([ True,  True, False])
    """
    order, array, place, mask = accept("support", scores, alpha, axis, where)
    found = np.zeros(array.shape, dtype=np.bool_)
    for chunk in chunks_of(array, order, mask):
        chunk.fill(found.reshape(-1, array.shape[-1]), chunk.supported)
    return np.moveaxis(found, -1, place)


def accept(
    function: str, scores: ArrayLike, alpha: ArrayLike, axis: int, where: ArrayLike | None
) -> tuple[float | Floats, Floats, int, Booleans | None]:
    """Check the arguments that the maps share; return them with the keys on the last axis."""
    array = as_scores(function, "scores", scores)
    place = as_axis(function, "scores", axis, array.shape)
    moved = np.moveaxis(array, place, -1)
    order = as_orders(function, alpha, moved.shape[:-1], softmax=True)
    mask = as_mask(function, "where", where, array.shape)
    return order, moved, place, None if mask is None else np.moveaxis(mask, place, -1)


def _mapped(function: str, scores: ArrayLike, alpha: float | ArrayLike, axis: int, where: ArrayLike | None) -> Floats:
    """Return the probabilities for the arguments of a map."""
    order, array, place, mask = accept(function, scores, alpha, axis, where)
    return np.moveaxis(_filled(array, order, mask), -1, place)


def _filled(scores: Floats, alpha: float | Floats, mask: Booleans | None) -> Floats:
    """Return the probabilities of rows of shape (..., n)."""
    n = scores.shape[-1]
    probs = np.zeros(scores.shape)
    if n == 0:
        return probs
    flat = probs.reshape(-1, n)
    for chunk in chunks_of(scores, alpha, mask):
        chunk.fill(flat, chunk.probs())
        if chunk.undefined.any():
            for_rows = np.zeros(flat.shape[:1], dtype=np.bool_)
            for_rows[chunk.rows] = chunk.undefined
            visible = scores.reshape(-1, n)[for_rows] != -np.inf
            if mask is not None:
                visible &= mask.reshape(-1, n)[for_rows]
            flat[for_rows] = np.where(visible, np.nan, 0.0)
    return probs
