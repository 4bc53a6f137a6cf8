"""How far are the probabilities of a row from a target: the Fenchel-Young losses of entmax, and their gradients.

The loss is a sum over keys of terms that are never negative, Bregman divergences and the price of target mass outside
the support, rather than the difference of a conjugate, an entropy and a product that it is defined as.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from entmax_ref.arguments import Floats, as_target
from entmax_ref.rows.jacobian import probs_of
from entmax_ref.rows.threshold import SolvedRows, solve_rows
from entmax_ref.transform import accept

RATIO_NEAR_1 = 0.125  # where the closed form of _divergence has lost 16 times the rounding
SERIES_TERMS = 20  # 0.125 ** 20 < 2**-59
LARGE_RATIO = 16.0


def entmax_loss(scores: ArrayLike, target: ArrayLike, alpha: ArrayLike = 1.5, *, axis: int = -1) -> Floats:
    r"""Return the Fenchel-Young loss of each row, 0 where the entmax probabilities are the target.

    Parameters
    ----------
    scores : array_like of real numbers, shape (..., n, ...)
        Converted to float64 and never modified. ``-inf`` marks a key that is not visible, and so does the mask of a
        masked array.
    target : array_like
        Either integers, the shape of ``scores`` without ``axis``: the index of the one right key of each row. Or
        floating, the shape of ``scores``: nonnegative, and summing to 1 over each row within 2**-16 (so that a
        target rounded to float32 will do; it is taken as it is, not rescaled).
    alpha : float or array_like, default 1.5
        As given to `entmax`: 1 gives the cross entropy of softmax less the entropy of the target, 2 the sparsemax
        loss.
    axis : int, default -1
        The axis of the keys. Without keys (n = 0) every row is one without a visible key.

    Returns
    -------
    loss : ndarray of float64, the shape of ``scores`` without ``axis``
        Nonnegative; 0 iff the probabilities, as `entmax` rounds them, are equal to the target, up to underflow.
        ``+inf`` for a target with mass on a key that is not visible. 0 for a row without a visible key, whatever its
        target, so that padding costs nothing; NaN for a row with a visible NaN or ``+inf``.

    Raises
    ------
    TypeError
        If ``scores`` or ``target`` is not real and numeric, or ``alpha`` or ``axis`` not of its kind.
    ValueError
        If ``alpha`` is below 1 or does not broadcast to the rows, ``axis`` is absent, or ``target`` has
        another shape, an index out of range, or is no distribution.

    See Also
    --------
    entmax_loss_grad : the gradient for the scores.

    Notes
    -----
    With p the probabilities, y the target and :math:`H_\alpha` the Tsallis entropy of `entmax`, the loss is defined as
    :math:`(p - y) \cdot s + H_\alpha(p) - H_\alpha(y)` [1]_. It is evaluated as

    .. math:: \sum_{j \in S} \frac{1}{\alpha} p_j^\alpha f(y_j / p_j)
       + \sum_{j \notin S} y_j \left( x_j + \frac{\ell(y_j) - 1}{\alpha} \right), \qquad
       f(r) = r \, \ell(r) - (r - 1), \qquad \ell(r) = \frac{r^{\alpha - 1} - 1}{\alpha - 1},

    with S the support, :math:`\ell = \log` at alpha 1, and :math:`x_j = (1 + \tau - z_j) / (\alpha - 1)`, at least
    :math:`1 / (\alpha - 1)` outside the support. No term is negative, and scores enter relative to their maximum, so
    that neither large scores nor an offset nor alpha close to 1 costs digits. Where y / p is within 1/8 of 1, f is
    summed as a power series. The relative error of a term is some 50 units of 2**-53 and, in the first sum, that of
    the probability times the derivative of the term.

    References
    ----------
    .. [1] Mathieu Blondel, A. F. T. Martins and V. Niculae, "Learning with Fenchel-Young Losses", JMLR 2020.
    .. [2] Ben Peters, V. Niculae and A. F. T. Martins, "Sparse Sequence-to-Sequence Models", ACL 2019.

    Examples
    --------
    >>> entmax_loss([[2.0, 0.0, 0.0], [0.0, 0.0, 0.5]], [0, 2], alpha=2.0)
    array([0.        , 0.08333333])
    >>> entmax_loss([0.0, 0.0], [0.5, 0.5], alpha=2.0)
    array(0.)
    """
    rows, problem = _accept("entmax_loss", scores, target, alpha, axis)
    return _loss_of(rows, problem)


def entmax_loss_grad(scores: ArrayLike, target: ArrayLike, alpha: ArrayLike = 1.5, *, axis: int = -1) -> Floats:
    r"""Return the gradient of `entmax_loss` for the scores, the probabilities less the target.

    Parameters
    ----------
    scores, target, alpha, axis
        As given to `entmax_loss`.

    Returns
    -------
    d_scores : ndarray of float64, the shape of ``scores``
        The gradient of each row's own loss. 0 throughout a row without a visible key; NaN on the visible keys of a
        row with a visible NaN or ``+inf``.

    Raises
    ------
    TypeError, ValueError
        As `entmax_loss` does.

    Notes
    -----
    It is continuous in the scores for alpha from 1 to 2, at the edges of the support too. The entry of a right key
    given by its index is the negative sum of the other probabilities, so it keeps its digits as the loss goes to 0.

    Examples
    --------
    >>> entmax_loss_grad([0.5, 0.25, -1.0], 1, alpha=2.0)
    array([ 0.625, -0.625,  0.   ])
    """
    rows, problem = _accept("entmax_loss_grad", scores, target, alpha, axis)
    probs = probs_of(rows, problem.alpha)
    found = probs - problem.target
    if problem.classes is not None:
        others = probs.copy()
        np.put_along_axis(others, problem.classes[..., None], 0.0, axis=-1)
        right = np.take_along_axis(probs, problem.classes[..., None], axis=-1)
        with np.errstate(invalid="ignore"):
            away = np.where(np.isnan(right), right, -others.sum(axis=-1, keepdims=True))
        # A right key that is not visible keeps 0 - 1.
        away = np.where(np.take_along_axis(rows.visible, problem.classes[..., None], axis=-1), away, -1.0)
        np.put_along_axis(found, problem.classes[..., None], away, axis=-1)
    found = np.where(rows.visible.any(axis=-1, keepdims=True), found, 0.0)
    return np.moveaxis(found, -1, problem.place)


def sparsemax_loss(scores: ArrayLike, target: ArrayLike, *, axis: int = -1) -> Floats:
    """Return the sparsemax loss of each row, `entmax_loss` with alpha 2.

    Parameters
    ----------
    scores, target, axis
        As given to `entmax_loss`.

    Returns
    -------
    loss : ndarray of float64, the shape of ``scores`` without ``axis``
        As `entmax_loss` returns it.

    Raises
    ------
    TypeError, ValueError
        As `entmax_loss` does.

    References
    ----------
    .. [1] André F. T. Martins and R. F. Astudillo, "From Softmax to Sparsemax: A Sparse Model of Attention and
       Multi-Label Classification", ICML 2016.

    Examples
    --------
    >>> sparsemax_loss([0.5, 0.25, -1.0], 0)
    array(0.14...)
    """
    rows, problem = _accept("sparsemax_loss", scores, target, 2.0, axis)
    return _loss_of(rows, problem)


def entmax15_loss(scores: ArrayLike, target: ArrayLike, *, axis: int = -1) -> Floats:
    """Return the 1.5-entmax loss of each row, `entmax_loss` with alpha 1.5.

    Parameters
    ----------
    scores, target, axis
        As given to `entmax_loss`.

    Returns
    -------
    loss : ndarray of float64, the shape of ``scores`` without ``axis``
        As `entmax_loss` returns it.

    Raises
    ------
    TypeError, ValueError
        As `entmax_loss` does.

    References
    ----------
    .. [1] Ben Peters, V. Niculae and A. F. T. Martins, "Sparse Sequence-to-Sequence Models", ACL 2019.

    Examples
    --------
    >>> entmax15_loss([8.0, 0.0], 0)
    array(0.)
    """
    rows, problem = _accept("entmax15_loss", scores, target, 1.5, axis)
    return _loss_of(rows, problem)


class _Problem(NamedTuple):
    """What the losses need besides the solved rows; the keys are on the last axis."""

    scores: Floats
    target: Floats
    classes: np.ndarray[tuple[int, ...], np.dtype[np.intp]] | None  # the shape of the rows, where given by index
    alpha: float | Floats
    place: int


def _accept(
    function: str, scores: ArrayLike, target: ArrayLike, alpha: ArrayLike, axis: int
) -> tuple[SolvedRows, _Problem]:
    order, array, place, _ = accept(function, scores, alpha, axis, None)
    wanted, classes = as_target(function, target, array.shape, place)
    return solve_rows(array, order, None), _Problem(array, wanted, classes, order, place)


def _loss_of(rows: SolvedRows, problem: _Problem) -> Floats:
    """Return the loss of solved rows, (...)."""
    order = problem.alpha[..., None] if isinstance(problem.alpha, np.ndarray) else np.float64(problem.alpha)
    step, y = order - 1.0, problem.target
    top = np.max(problem.scores, axis=-1, keepdims=True, initial=-np.inf)
    with np.errstate(invalid="ignore", over="ignore"):
        depth = rows.theta[..., None] + (top - problem.scores)
    # Where y is 0 the depth does not matter, and may be infinite; where y is not, log_of(y) is small beside it.
    outside = np.where(y > 0.0, y, 0.0) * (np.where(y > 0.0, depth, 0.0) + (_log_of(y, step) - 1.0) / order)
    probs, gap = rows.probs, np.where(rows.gap > 0.0, rows.gap, 1.0)
    with np.errstate(over="ignore"):
        ratio = y / np.where(probs > 0.0, probs, 1.0)
    close = (probs > 0.0) & (ratio <= LARGE_RATIO)
    inside = probs * gap * _divergence(np.where(close, ratio, 1.0), step) / order
    terms = np.where(close, inside, np.maximum(outside + probs * rows.gap / order, 0.0))
    with np.errstate(over="ignore"):
        loss = terms.sum(axis=-1)
    loss = np.where(rows.undefined, np.nan, loss)
    return np.where(rows.visible.any(axis=-1), loss, 0.0)


def _log_of(ratio: Floats, step: Floats | np.float64) -> Floats:
    """Return ``(ratio ** step - 1) / step``, ``log(ratio)`` at step 0; anything finite for a ratio of 0."""
    log = np.log(np.where(ratio > 0.0, ratio, 1.0))
    safe = np.where(step == 0.0, 1.0, step)
    with np.errstate(over="ignore"):
        return np.where(step == 0.0, log, np.expm1(safe * log) / safe)


def _divergence(ratio: Floats, step: Floats | np.float64) -> Floats:
    """Return ``f(r) = r * (r ** step - 1) / step - (r - 1)``, at least 0, and 0 at r = 1 only."""
    away = ratio - 1.0
    reach = RATIO_NEAR_1 / np.maximum(1.0, step)
    # f(1 + d) = (1 + step) * sum of binomial(step - 1, i) * d ** (i + 2) / ((i + 1) * (i + 2)) over i >= 0
    d = np.clip(away, -reach, reach)
    series = np.zeros(np.broadcast_shapes(d.shape, step.shape))
    for i in range(SERIES_TERMS, 0, -1):
        series = (step - i) / (i + 2) * d * (1.0 + series)  # each term by the one before it
    near = (1.0 + step) * 0.5 * d * d * (1.0 + series)
    return np.where(np.abs(away) <= reach, near, ratio * _log_of(ratio, step) - away)
