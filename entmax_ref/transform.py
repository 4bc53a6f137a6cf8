"""Map scores to probabilities, and carry a gradient back through the map."""

import numpy as np
from numpy.typing import ArrayLike

from entmax_ref.arguments import Booleans, Floats, as_alpha, as_axis, as_mask, as_real, as_same_shape
from entmax_ref.threshold import SolvedRows, power_of, solve_rows


def entmax(scores: ArrayLike, alpha: float = 1.5, *, axis: int = -1, where: ArrayLike | None = None) -> Floats:
    r"""Return the alpha-entmax probabilities, ``max((alpha - 1) * scores - tau, 0) ** (1 / (alpha - 1))``.

    Parameters
    ----------
    scores : array_like of real numbers, shape (..., n, ...)
        Converted to float64 and never modified. ``-inf`` marks a key that is not visible.
    alpha : float, default 1.5
        Order of the transform, above 1: 1.5 is entmax, 2 is sparsemax.
    axis : int, default -1
        The axis of the keys, of length n >= 1.
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
        If ``scores`` is not real and numeric, ``where`` not boolean, ``alpha`` or ``axis`` not one number.
    ValueError
        If ``alpha`` is not finite and above 1, ``axis`` is empty or absent, or ``where`` does not broadcast.

    See Also
    --------
    threshold : tau, and how it is found.
    entmax_vjp : the gradient.

    Notes
    -----
    This is the maximiser over the simplex of :math:`p \cdot s + H_\alpha(p)`, with the Tsallis entropy
    :math:`H_\alpha(p) = \sum_j (p_j - p_j^\alpha) / (\alpha (\alpha - 1))`.

    The gaps are formed relative to the smallest key of the support and never from tau itself, so an offset
    common to a row costs no digits beyond those that the scores lost to it. Each gap errs by at most the
    bound of `threshold` for ``row_max = 0``; a gap error e becomes an error of at most ``(gap + e) ** power -
    gap ** power`` (or the same below the gap), plus the rounding of the power. For alpha well above 2 the
    power is less than 1 and a key at the edge of the support feels it: there the rounding of z alone costs up
    to ``(2**-52) ** power``. For alpha close to 1 the relative error of a probability grows as ``2**-53 /
    (alpha - 1)``. A gap below 1e-323 is 0, and with it the probability; equal scores come to that if
    ``n ** (1 - alpha)`` does, as for 1000 keys and alpha above 108.

    Lemmas: threshold_unique, threshold_shift

    References
    ----------
    .. [1] B. Peters, V. Niculae and A. F. T. Martins, "Sparse Sequence-to-Sequence Models", ACL 2019.
    .. [2] A. F. T. Martins and R. F. Astudillo, "From Softmax to Sparsemax: A Sparse Model of Attention and
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
    """
    order, array, place, mask = _accept("entmax", scores, alpha, axis, where)
    return np.moveaxis(probs_of(solve_rows(array, order, mask), order), -1, place)


def support(scores: ArrayLike, alpha: float = 1.5, *, axis: int = -1, where: ArrayLike | None = None) -> Booleans:
    """Return which keys have ``(alpha - 1) * scores > tau``, that is, a positive probability.

    Parameters
    ----------
    scores : array_like of real numbers, shape (..., n, ...)
        Converted to float64 and never modified. ``-inf`` marks a key that is not visible.
    alpha : float, default 1.5
        Order of the transform, above 1.
    axis : int, default -1
        The axis of the keys, of length n >= 1.
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
    Decided on the sorted scores, not on computed probabilities: equal scores are all in or all out. The
    answer is exact unless ``abs(z - tau)`` is within the bound of `threshold` (taken for ``row_max = 0``).
    For alpha close to 1 a supported key may have a probability below the smallest float64, so that `entmax`
    returns 0 for it.

    Lemmas: threshold_unique, threshold_subset

    Examples
    --------
    >>> support([0.5, 0.25, -1.0], alpha=2.0)
    array([ True,  True, False])
    """
    order, array, place, mask = _accept("support", scores, alpha, axis, where)
    return np.moveaxis(solve_rows(array, order, mask).gap > 0.0, -1, place)


def entmax_vjp(
    scores: ArrayLike,
    d_probs: ArrayLike,
    alpha: float = 1.5,
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
) -> Floats:
    r"""Return the gradient for the scores, given that for the probabilities (vector-Jacobian product).

    Parameters
    ----------
    scores : array_like of real numbers, shape (..., n, ...)
        As given to `entmax`; never modified.
    d_probs : array_like of real numbers, the shape of ``scores``
        Gradient of a scalar with respect to the probabilities. Entries outside the support are not read, so a
        NaN there is harmless.
    alpha : float, default 1.5
        Order of the transform, above 1.
    axis : int, default -1
        The axis of the keys, of length n >= 1.
    where : array_like of bool, optional
        Broadcasts to the shape of ``scores``; False marks a key that is not visible, whatever its score.

    Returns
    -------
    d_scores : ndarray of float64, the shape of ``scores``
        Gradient of the same scalar with respect to the scores. 0 outside the support and throughout a row
        without a visible key; NaN on the visible keys of a row with a visible NaN or ``+inf``.

    Raises
    ------
    TypeError, ValueError
        As `entmax` does, and if ``d_probs`` is not real and numeric or has another shape than ``scores``.

    Notes
    -----
    The Jacobian is :math:`\operatorname{diag}(s) - s s^T / \sum_j s_j` with the sensitivity :math:`s = p^{2 -
    \alpha}` on the support and 0 outside. It is symmetric and its rows sum to 0, so a constant added to
    ``d_probs`` changes nothing: the key with the largest sensitivity is taken as the origin, which keeps the
    digits where one sensitivity dwarfs the others (alpha > 2, a key at the edge of the support).

    At a score whose key is just about to enter the support (z equal to tau) this is the derivative on the
    side on which the key stays outside. For alpha < 2 both sides agree.

    With e the error of the gaps that `entmax` states, the sensitivity of a key has the relative error ``abs(2
    - alpha) / (alpha - 1) * e / gap`` and a few units of 2**-53, and d_scores to first order the error that
    follows from it in the two sums; the tests evaluate exactly that expression.

    Lemmas: jacobian_form, jacobian_rows_zero

    References
    ----------
    .. [1] B. Peters, V. Niculae and A. F. T. Martins, "Sparse Sequence-to-Sequence Models", ACL 2019. The
       Jacobian.
    .. [2] G. M. Correia, V. Niculae and A. F. T. Martins, "Adaptively Sparse Transformers", EMNLP 2019.

    Examples
    --------
    >>> entmax_vjp([0.5, 0.25, -1.0], [1.0, 0.0, 7.0], alpha=2.0)
    array([ 0.5, -0.5,  0. ])
    """
    order, array, place, mask = _accept("entmax_vjp", scores, alpha, axis, where)
    moved = as_same_shape("entmax_vjp", "d_probs", d_probs, "the shape of scores", np.shape(scores))
    d_scores = vjp_of(solve_rows(array, order, mask), order, np.moveaxis(moved, place, -1))
    return np.moveaxis(d_scores, -1, place)


def probs_of(rows: SolvedRows, alpha: float) -> Floats:
    """Return the probabilities of solved rows, (..., n)."""
    return np.where(rows.undefined[..., None] & rows.visible, np.nan, power_of(rows.gap, alpha))


def vjp_of(rows: SolvedRows, alpha: float, d_probs: Floats) -> Floats:
    """Return the gradient for the scores of solved rows.  Lemmas: jacobian_form, jacobian_rows_zero"""
    supported = rows.gap > 0.0
    if alpha == 2.0:
        sensitivity = supported.astype(np.float64)
    else:
        # probs ** (2 - alpha) from the gap itself, which does not underflow before the sensitivity does
        positive = np.where(supported, rows.gap, 1.0)
        sensitivity = np.where(supported, np.power(positive, (2.0 - alpha) / (alpha - 1.0)), 0.0)
    origin = np.take_along_axis(d_probs, np.argmax(sensitivity, axis=-1, keepdims=True), axis=-1)
    with np.errstate(invalid="ignore"):  # inf - inf: an infinite gradient on the support gives NaN, as it should
        centred = np.where(supported, d_probs - origin, 0.0)
        total = np.sum(sensitivity, axis=-1, keepdims=True)
        mean = np.sum(sensitivity * centred, axis=-1, keepdims=True) / np.where(total > 0.0, total, 1.0)
        d_scores = np.where(supported, sensitivity * (centred - mean), 0.0)
    return np.where(rows.undefined[..., None] & rows.visible, np.nan, d_scores)


def _accept(
    function: str, scores: ArrayLike, alpha: float, axis: int, where: ArrayLike | None
) -> tuple[float, Floats, int, Booleans | None]:
    """Check the arguments that the transforms share; return them with the keys on the last axis."""
    order = as_alpha(function, alpha)
    array = as_real(function, "scores", scores)
    place = as_axis(function, "scores", axis, array.shape)
    mask = as_mask(function, "where", where, array.shape)
    return order, np.moveaxis(array, place, -1), place, None if mask is None else np.moveaxis(mask, place, -1)
