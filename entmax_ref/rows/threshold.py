"""What is tau, the threshold of each row?"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from entmax_ref.arguments import Booleans, Floats, as_axis, as_mask, as_orders, as_scores
from entmax_ref.rows.chunks import Chunk, chunks


class SolvedRows(NamedTuple):
    """What one solve of rows of shape (..., n) yields, dense; derivatives, losses and attention build on it."""

    gap: Floats  # (..., n): z - tau on the support, exactly 0 elsewhere, free of the offset of the row; 1 for alpha 1
    tau: Floats  # (...): unit of z; +inf without a visible key, NaN where undefined
    visible: Booleans  # (..., n)
    undefined: Booleans  # (...): a visible score is NaN or +inf
    probs: Floats  # (..., n): gap ** power, to more digits than the gap holds where alpha is close to 1
    theta: Floats  # (...): (1 + tau - row_max) / (alpha - 1); for alpha 1 its limit logsumexp(scores) - max(scores)


def threshold(scores: ArrayLike, alpha: ArrayLike = 1.5, *, axis: int = -1, where: ArrayLike | None = None) -> Floats:
    r"""Return tau, the root of ``sum(max((alpha - 1) * scores - tau, 0) ** (1 / (alpha - 1))) == 1``, by row.

    Parameters
    ----------
    scores : array_like of real numbers, shape (..., n, ...)
        Converted to float64 and never modified. ``-inf`` marks a key that is not visible, and so does the mask of a
        masked array.
    alpha : float or array_like, default 1.5
        Order of the transform, above 1: 1.5 is entmax, 2 is sparsemax. An array has the shape of ``scores`` without
        ``axis``, or broadcasts to it: one order per row, for example ``alpha[:, None]`` for one per head of scores of
        shape (batch, heads, n_queries, n_keys).
    axis : int, default -1
        The axis of the keys. Without keys (n = 0) every row is one without a visible key.
    where : array_like of bool, optional
        Broadcasts to the shape of ``scores``; False marks a key that is not visible, whatever its score.

    Returns
    -------
    tau : ndarray of float64, the shape of ``scores`` without ``axis``
        In the unit of ``z = (alpha - 1) * scores``. ``+inf`` for a row without a visible key, NaN for a row
        with a visible NaN or ``+inf``. It overflows only where ``(alpha - 1) * max(scores)`` does.

    Raises
    ------
    TypeError
        If ``scores`` or ``alpha`` is not real and numeric, ``where`` not boolean, or ``axis`` not one integer.
    ValueError
        If ``alpha`` is not finite and above 1 or does not broadcast to the rows, ``axis`` is absent, or
        ``where`` does not broadcast. At alpha 1 there is no threshold: ``tau / (alpha - 1)`` tends to -inf, and
        ``(1 + tau) / (alpha - 1)`` to ``log(sum(exp(scores)))``.

    See Also
    --------
    entmax : the probabilities.
    support : the keys whose z lies above tau.

    Notes
    -----
    Only keys with z above ``row_max - 1`` can be supported, and in a long row only those above the tau of the maxima of
    groups of keys, which is a lower bound. They are gathered, where they are few, and sorted. The keys of the support
    are the largest ones: the k-th largest belongs to it iff the mass at it is below 1. Ties have one mass, so they
    enter or stay out together.

    With the support known, tau has a closed form for alpha 1.5 and 2. From a key that is not supported a step of Newton
    on the norm of the gaps leads to a lower bound of tau, and the keys above it are fewer, until all of them are
    supported; many keys are not sorted for it. For other alpha below 2 that Newton finds the root itself. For alpha
    above 2 the support is bisected for, and Newton runs on it, right of the root of a convex function, which it cannot
    overshoot. Newton runs until float64 allows no further progress, and rows leave as they are done. Everything happens
    relative to the maximum, in sums of terms of one sign.

    About keys within ``2**-45 * max(1, alpha - 1)`` of tau the exact mass decides, see `support`; where it puts one on
    the other side, the root is found again for that support, relative to its smallest key.

    With u = 2**-53, and D <= min(n - 1, 19 + log2(n)) the depth of the summation of n terms,

    ``abs(tau - exact) <= u * (2 * abs(row_max) + 6 + 2 * max(1, alpha - 1) * (2 + log(n) + D))``

    to first order in u, and provided that ``numpy.power``, ``exp`` and ``log1p`` err by at most one unit in the last
    place. Two roundings of z and two of each gap move tau by at most their size, because tau is 1-Lipschitz in the
    scores; a relative error e of the mass moves it by at most ``max(1, alpha - 1) * e``; the remaining ones
    are those of the final sum. The tests hold short rows to 4 * 2**-52 * max(1, abs(row_max)).

    Lemmas: threshold_unique, threshold_bracket, threshold_shift, threshold_subset, candidate_superset,
    newton_norm_left, residual_bound

    References
    ----------
    .. [1] André F. T. Martins and R. F. Astudillo, "From Softmax to Sparsemax: A Sparse Model of Attention and
       Multi-Label Classification", ICML 2016. The threshold for alpha 2 by sorting.
    .. [2] Ben Peters, V. Niculae and A. F. T. Martins, "Sparse Sequence-to-Sequence Models", ACL 2019. The
       transform for any alpha, and the threshold for alpha 1.5 by sorting.

    Examples
    --------
    >>> threshold([0.5, 0.25, -1.0], alpha=2.0)
    array(-0.125)
    >>> threshold([[0.0, 0.0, 0.0, 0.0], [7.0, 0.0, 0.0, 0.0]])
    array([-0.5,  2.5])
    >>> threshold([1.0, 2.0], where=[False, False])
    array(inf)
    """
    array = as_scores("threshold", "scores", scores)
    place = as_axis("threshold", "scores", axis, array.shape)
    moved = np.moveaxis(array, place, -1)
    orders = as_orders("threshold", alpha, moved.shape[:-1], softmax=False)
    mask = as_mask("threshold", "where", where, array.shape)
    tau = np.full(moved.shape[:-1], np.inf)
    for chunk in chunks_of(moved, orders, None if mask is None else np.moveaxis(mask, place, -1)):
        tau.reshape(-1)[chunk.rows] = chunk.tau
    return tau


def chunks_of(scores: Floats, alpha: float | Floats, mask: Booleans | None) -> Iterator[Chunk]:
    """Solve the rows of ``scores``, (..., n), a range of them at a time, counted in C order.

    ``mask`` has the shape of ``scores``; ``alpha`` is a float or an array that broadcasts to the shape of the rows.
    Rows without keys have nothing to solve, and none is yielded.
    """
    n = scores.shape[-1]
    if n == 0:
        return iter(())
    if isinstance(alpha, np.ndarray):
        alpha = np.broadcast_to(alpha, scores.shape[:-1]).reshape(-1)
    flat = np.ascontiguousarray(scores).reshape(-1, n)
    return chunks(flat, alpha, None if mask is None else mask.reshape(-1, n))


def solve_rows(scores: Floats, alpha: float | Floats, mask: Booleans | None) -> SolvedRows:
    """Solve every row of ``scores``, (..., n); ``mask`` has the same shape, True where visible.

    ``alpha`` is a float from 1, or an array that broadcasts to the shape of the rows, (...). A score that is not
    visible is dropped before any arithmetic, so its NaN or inf reaches nothing.
    """
    rows_shape, n = scores.shape[:-1], scores.shape[-1]
    visible = scores != -np.inf
    if mask is not None:
        visible &= mask
    gap, probs = np.zeros(scores.shape), np.zeros(scores.shape)
    tau, theta = np.full(rows_shape, np.inf), np.zeros(rows_shape)
    undefined = np.zeros(rows_shape, dtype=np.bool_)
    for chunk in chunks_of(scores, alpha, mask):
        chunk.fill(gap.reshape(-1, n), chunk.gap())
        chunk.fill(probs.reshape(-1, n), chunk.probs())
        tau.reshape(-1)[chunk.rows] = chunk.tau
        theta.reshape(-1)[chunk.rows] = chunk.root.theta[:, 0]
        undefined.reshape(-1)[chunk.rows] = chunk.undefined
    return SolvedRows(gap, tau, visible, undefined, probs, theta)
