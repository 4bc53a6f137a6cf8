"""How do the probabilities move with the scores, to first and second order?

Every product here is the Jacobian, :math:`J = \\operatorname{diag}(s) - s s^T / \\sum_j s_j` with the sensitivity
:math:`s = p^{2 - \\alpha}`, times a vector that is itself a smooth function of the gaps. None of them divides by
``alpha - 1``, so all go over into those of softmax at alpha 1.
"""

import numpy as np
from numpy.typing import ArrayLike

from entmax_ref.arguments import Floats, as_same_shape
from entmax_ref.rows.jacobian import centred_of, sensitivity_of, vjp_of
from entmax_ref.rows.threshold import solve_rows
from entmax_ref.transform import accept


def entmax_vjp(
    scores: ArrayLike,
    d_probs: ArrayLike,
    alpha: ArrayLike = 1.5,
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
    alpha : float or array_like, default 1.5
        As given to `entmax`.
    axis : int, default -1
        The axis of the keys. Without keys (n = 0) every row is one without a visible key.
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

    See Also
    --------
    entmax_jvp : the same product, the Jacobian being symmetric.
    entmax_second : its derivative.

    Notes
    -----
    The Jacobian is :math:`\operatorname{diag}(s) - s s^T / \sum_j s_j` with the sensitivity :math:`s = p^{2 -
    \alpha}` on the support and 0 outside. It is symmetric and its rows sum to 0, so a constant added to
    ``d_probs`` changes nothing: the key with the largest sensitivity is taken as the origin, which keeps the
    digits where one sensitivity dwarfs the others (alpha > 2, a key at the edge of the support).

    At a score whose key is just about to enter the support (z equal to tau) this is the derivative on the
    side on which the key stays outside. For alpha < 2 both sides agree. For alpha up to 2, :math:`s / \sum_j s_j` is a
    subgradient of the threshold, which is convex in the scores.

    With e the error of the gaps that `entmax` states, the sensitivity of a key has the relative error ``abs(2
    - alpha) / (alpha - 1) * e / gap`` and a few units of 2**-53, and d_scores to first order the error that
    follows from it in the two sums; the tests evaluate exactly that expression. As alpha tends to 1 that error
    does not grow: a gap is 1 less a small number there, and e is relative to that number.

    Lemmas: jacobian_form, jacobian_rows_zero, tau_subgradient

    References
    ----------
    .. [1] Ben Peters, V. Niculae and A. F. T. Martins, "Sparse Sequence-to-Sequence Models", ACL 2019. The
       Jacobian.
    .. [2] Gonçalo M. Correia, V. Niculae and A. F. T. Martins, "Adaptively Sparse Transformers", EMNLP 2019.

    Examples
    --------
    >>> entmax_vjp([0.5, 0.25, -1.0], [1.0, 0.0, 7.0], alpha=2.0)
    array([ 0.5, -0.5,  0. ])
    """
    order, array, place, mask = accept("entmax_vjp", scores, alpha, axis, where)
    moved = _beside("entmax_vjp", "d_probs", d_probs, array, place)
    return np.moveaxis(vjp_of(solve_rows(array, order, mask), order, moved), -1, place)


def entmax_jvp(
    scores: ArrayLike,
    d_scores: ArrayLike,
    alpha: ArrayLike = 1.5,
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
) -> Floats:
    r"""Return the rate at which the probabilities change along a direction of the scores (Jacobian-vector product).

    Parameters
    ----------
    scores : array_like of real numbers, shape (..., n, ...)
        As given to `entmax`; never modified.
    d_scores : array_like of real numbers, the shape of ``scores``
        The direction. Entries outside the support are not read.
    alpha : float or array_like, default 1.5
        As given to `entmax`.
    axis : int, default -1
        The axis of the keys. Without keys (n = 0) every row is one without a visible key.
    where : array_like of bool, optional
        Broadcasts to the shape of ``scores``; False marks a key that is not visible, whatever its score.

    Returns
    -------
    d_probs : ndarray of float64, the shape of ``scores``
        It sums to 0 over a row. 0 outside the support and throughout a row without a visible key; NaN on the
        visible keys of a row with a visible NaN or ``+inf``.

    Raises
    ------
    TypeError, ValueError
        As `entmax` does, and if ``d_scores`` is not real and numeric or has another shape than ``scores``.

    See Also
    --------
    entmax_vjp : the error bound, and what holds at the edge of the support.

    Notes
    -----
    The Jacobian is symmetric, so this is `entmax_vjp` with ``d_scores`` in the place of ``d_probs``.

    Lemmas: jacobian_form, jacobian_rows_zero

    Examples
    --------
    >>> entmax_jvp([0.5, 0.25, -1.0], [1.0, 0.0, 0.0], alpha=2.0)
    array([ 0.5, -0.5,  0. ])
    """
    order, array, place, mask = accept("entmax_jvp", scores, alpha, axis, where)
    moved = _beside("entmax_jvp", "d_scores", d_scores, array, place)
    return np.moveaxis(vjp_of(solve_rows(array, order, mask), order, moved), -1, place)


def entmax_jacobian(
    scores: ArrayLike, alpha: ArrayLike = 1.5, *, axis: int = -1, where: ArrayLike | None = None
) -> Floats:
    r"""Return the matrix of derivatives of the probabilities of a row for the scores of that row.

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
    jacobian : ndarray of float64, shape (..., n, n)
        The shape of ``scores`` without ``axis``, then n for the probability and n for the score. Symmetric; 0 in
        the rows and columns of keys outside the support; NaN where both keys are visible in a row with a visible
        NaN or ``+inf``.

    Raises
    ------
    TypeError, ValueError
        As `entmax` does.

    See Also
    --------
    entmax_vjp : the product with a vector, which needs no n x n array.

    Notes
    -----
    :math:`\operatorname{diag}(s) - s s^T / \sum_j s_j` with the sensitivity :math:`s = p^{2 - \alpha}` on the
    support. A diagonal entry is summed from the others of its row, so it keeps its digits where one key holds
    nearly all of the mass: every entry has a relative error of about that of s, times 3, and (n + 3) units of
    2**-53. At the edge of the support the note in `entmax_vjp` holds.

    Lemmas: jacobian_form, jacobian_rows_zero

    References
    ----------
    .. [1] Ben Peters, V. Niculae and A. F. T. Martins, "Sparse Sequence-to-Sequence Models", ACL 2019.

    Examples
    --------
    >>> entmax_jacobian([0.5, 0.25, -1.0], alpha=2.0)
    array([[ 0.5, -0.5,  0. ],
           [-0.5,  0.5,  0. ],
           [ 0. ,  0. ,  0. ]])
    """
    order, array, _, mask = accept("entmax_jacobian", scores, alpha, axis, where)
    rows = solve_rows(array, order, mask)
    sensitivity = sensitivity_of(rows, order)
    total = sensitivity.sum(axis=-1, keepdims=True)
    share = sensitivity / np.where(total > 0.0, total, 1.0)
    # The larger factor first shared out, so that no product of two large sensitivities overflows.
    jacobian = 0.0 - sensitivity[..., :, None] * share[..., None, :]
    jacobian = 0.5 * (jacobian + np.swapaxes(jacobian, -1, -2))
    diagonal = np.arange(array.shape[-1])
    jacobian[..., diagonal, diagonal] = 0.0
    jacobian[..., diagonal, diagonal] = 0.0 - jacobian.sum(axis=-1)
    poisoned = rows.undefined[..., None] & rows.visible
    return np.where(poisoned[..., :, None] & poisoned[..., None, :], np.nan, jacobian)


def entmax_second(
    scores: ArrayLike,
    d_probs: ArrayLike,
    d_scores: ArrayLike,
    alpha: ArrayLike = 1.5,
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
) -> Floats:
    r"""Return the rate at which `entmax_vjp` changes along a direction of the scores (second-order product).

    Parameters
    ----------
    scores : array_like of real numbers, shape (..., n, ...)
        As given to `entmax`; never modified.
    d_probs : array_like of real numbers, the shape of ``scores``
        As given to `entmax_vjp`, and held fixed.
    d_scores : array_like of real numbers, the shape of ``scores``
        The direction. Entries of both outside the support are not read.
    alpha : float or array_like, default 1.5
        As given to `entmax`.
    axis : int, default -1
        The axis of the keys. Without keys (n = 0) every row is one without a visible key.
    where : array_like of bool, optional
        Broadcasts to the shape of ``scores``; False marks a key that is not visible, whatever its score.

    Returns
    -------
    product : ndarray of float64, the shape of ``scores``
        The derivative at t = 0 of ``entmax_vjp(scores + t * d_scores, d_probs)``. It sums to 0 over a row, and
        ``d_probs`` and ``d_scores`` may change places. 0 outside the support and throughout a row without a
        visible key; NaN on the visible keys of a row with a visible NaN or ``+inf``.

    Raises
    ------
    TypeError, ValueError
        As `entmax` does, and if ``d_probs`` or ``d_scores`` is not real and numeric or has another shape than
        ``scores``.

    See Also
    --------
    entmax_vjp : the first order.

    Notes
    -----
    With a and b the two vectors less their means weighted by the sensitivity s, this is J q with

    .. math:: q_j = (2 - \alpha) \, a_j b_j / \mathrm{gap}_j ,

    because a gap changes along a direction at the rate :math:`(\alpha - 1) a_j`, and s as the power
    :math:`(2 - \alpha) / (\alpha - 1)` of the gap. It is 0 for alpha 2, where the map is piecewise linear, and that
    of softmax for alpha 1.

    The support is taken as fixed, which it is near every score except where a key lies exactly at tau. There, this is
    the derivative on the side on which the key stays outside; for alpha below 1.5 both sides agree. At 1.5 and
    above, the product jumps there, and above 1.5 it grows without bound, as ``gap ** ((3 - 2 * alpha) / (alpha -
    1))``, as the gap of a supported key goes to 0.

    References
    ----------
    .. [1] Ben Peters, V. Niculae and A. F. T. Martins, "Sparse Sequence-to-Sequence Models", ACL 2019. The Jacobian
       that is differentiated here.

    Examples
    --------
    >>> entmax_second([0.0, 0.0], [1.0, 0.0], [1.0, 0.0], alpha=1.5)
    array([0., 0.])
    >>> entmax_second([0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0], alpha=1.0).round(4)
    array([ 0.0741, -0.037 , -0.037 ])
    """
    order, array, place, mask = accept("entmax_second", scores, alpha, axis, where)
    outer = _beside("entmax_second", "d_probs", d_probs, array, place)
    inner = _beside("entmax_second", "d_scores", d_scores, array, place)
    rows = solve_rows(array, order, mask)
    sensitivity = sensitivity_of(rows, order)
    weight = 2.0 - (order[..., None] if isinstance(order, np.ndarray) else order)
    gap = np.where(rows.gap > 0.0, rows.gap, 1.0)
    with np.errstate(invalid="ignore", over="ignore"):
        bend = weight * centred_of(rows, sensitivity, outer) * (centred_of(rows, sensitivity, inner) / gap)
    return np.moveaxis(vjp_of(rows, order, bend), -1, place)


def _beside(function: str, name: str, array: ArrayLike, moved: Floats, place: int) -> Floats:
    """Return an array of the shape of the scores with the keys on the last axis, where ``moved`` has them."""
    shape = np.moveaxis(moved, -1, place).shape
    return np.moveaxis(as_same_shape(function, name, array, "the shape of scores", shape), place, -1)
