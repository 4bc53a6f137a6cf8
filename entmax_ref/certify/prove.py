"""Between which numbers do tau and the probabilities provably lie?  The entrance: arguments, rows, and the method."""

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from entmax_ref.arguments import Floats, as_alpha, as_axis, as_mask, as_real, as_scores
from entmax_ref.certify.balls import Balls
from entmax_ref.certify.certificate import Certificate
from entmax_ref.certify.found import Found
from entmax_ref.certify.rationals import Rationals
from entmax_ref.reading import shown
from entmax_ref.rows.threshold import threshold

Method = Literal["ball", "rational"]


def certify(
    scores: ArrayLike,
    alpha: float = 1.5,
    *,
    tau: ArrayLike | None = None,
    where: ArrayLike | None = None,
    method: Method | None = None,
) -> Certificate:
    r"""Return proven bounds of tau and of every probability, and the support as far as it can be decided.

    Parameters
    ----------
    scores : array_like of real numbers, shape (..., n)
        Converted to float64, taken as exact and never modified. ``-inf`` marks a key that is not visible, and so does
        the mask of a masked array. Without keys (n = 0) every row is one without a visible key.
    alpha : float, default 1.5
        Order of the transform, above 1, taken as the exact value of the float64.
    tau : array_like of real numbers, optional
        Somebody's threshold for each row, in the unit of ``z = (alpha - 1) * scores``; broadcasts to (...). The
        certificate then says how far it is off, and whether it is a proven lower or upper bound.
    where : array_like of bool, optional
        Broadcasts to the shape of ``scores``; False marks a key that is not visible, whatever its score.
    method : {"ball", "rational"}, optional
        Ball arithmetic takes any alpha and needs python-flint. Rationals take alpha 2 only, are exact and leave
        nothing undecided; they are the default for alpha 2.

    Returns
    -------
    certificate : Certificate
        The bounds, in the shape of the scores.

    Raises
    ------
    TypeError
        If ``scores`` or ``tau`` is not real and numeric, ``where`` not boolean, ``alpha`` not one number.
    ValueError
        If ``alpha`` is not finite and above 1, ``scores`` has no axis, ``where`` or ``tau`` does not broadcast, or
        ``method`` is unknown or not for this alpha.
    ImportError
        If ball arithmetic is asked for and python-flint is not installed: it comes with the extra ``certify``.

    Notes
    -----
    Let p = 1 / (alpha - 1) and, for x > 0, :math:`F(x) = \sum_i \max(x - w_i, 0)^p` with the distances :math:`w_i \ge
    0` of the z from their maximum, so that the root r of F(r) = 1 is row_max - tau. For any p > 0 the exact r lies
    between

    .. math:: x \quad\text{and}\quad x\,F(x)^{-1/p}.

    Indeed, for x >= r every :math:`x - w_i \ge (x / r) (r - w_i)`, so :math:`F(x) \ge (x / r)^p F(r) = (x / r)^p`,
    and r <= x because F increases; for x <= r both inequalities turn round. It follows that
    :math:`|x - r| \le r\,|F(x)^{1/p} - 1|`, where r <= 1: for p >= 1 this implies the residual bound, and it holds
    for p < 1 as well. So one evaluation of F at any point, in arithmetic that carries its own
    error bounds, is a proof. Newton's method, started from `threshold`, only chooses the points; a wrong start costs
    time and never truth. The bracket is narrowed until it is ``2**-90`` of its size wide (and narrower for alpha near
    1, where the probabilities ask for it), then every gap and probability follows in ball arithmetic.

    A key whose gap has no proven sign is decided by the mass at that key, to which it does not contribute itself: it is
    supported if and only if that mass is below 1. More bits are taken for it, up to 2200; only where the mass is 1 to
    so many does the key stay undecided.
    For alpha above 2 the probability of the smallest key is what the others leave of 1, because the power of its gap
    has an infinite slope at 0.

    For alpha 2 the keys are sorted as integers over one power of two, and ``tau = (sum of the k largest - 1) / k``
    for the last k whose k-th largest exceeds it; every comparison is exact.

    Rows of twelve keys take 50 to 200 microseconds each, the more the closer alpha is to 1, and 25 for alpha 2.

    Lemmas: residual_bound, threshold_unique, threshold_bracket, candidate_superset

    References
    ----------
    .. [1] Fredrik Johansson, "Arb: Efficient Arbitrary-Precision Midpoint-Radius Interval Arithmetic",
       IEEE Transactions on
       Computers 66(8), 2017.

    Examples
    --------
    >>> proof = certify([[1.0, 0.5, -2.0], [3.0, 3.0, 3.0]])  # doctest: +SKIP
    >>> proof.in_support  # doctest: +SKIP
    array([[ True,  True, False],
           [ True,  True,  True]])
    """
    order = as_alpha("certify", alpha)
    array = as_scores("certify", "scores", scores)
    as_axis("certify", "scores", -1, array.shape)
    mask = as_mask("certify", "where", where, array.shape)
    chosen = _as_method(method, order)
    shape, n = array.shape[:-1], array.shape[-1]
    candidates = None
    if tau is not None:
        given = as_real("certify", "tau", tau)
        try:
            candidates = np.broadcast_to(given, shape).reshape(-1)
        except ValueError as error:
            raise ValueError(
                f"certify: tau must broadcast to one value per row, shape {shape}; its shape is {given.shape}. "
                f"Give one threshold per row of scores, whose last axis holds the keys."
            ) from error

    visible = array != -np.inf
    if mask is not None:
        visible &= mask
    undefined = np.any(visible & ~(array < np.inf), axis=-1).reshape(-1)
    rows = np.where(visible, array, -np.inf).reshape(math.prod(shape), n)
    live = ~undefined & np.any(visible, axis=-1).reshape(-1)
    found = Found.empty(rows, undefined, candidates)
    solver = Balls(order) if chosen == "ball" else Rationals()
    with solver.precision():
        for row, start in zip(np.flatnonzero(live).tolist(), _starts(rows[live], order), strict=True):
            solver.solve(rows[row], start, row, found)
    return found.certificate(order, shape, n)


def _as_method(method: Any, alpha: float) -> Method:
    """Return the method to use; raise unless it is known and takes this alpha."""
    if method is None:
        return "rational" if alpha == 2.0 else "ball"
    if not (isinstance(method, str) and method in ("ball", "rational")):
        raise ValueError(
            f"certify: method must be 'ball', 'rational' or None; it is {shown(method)}. Leave it out to get rationals "
            f"for alpha 2 and balls for any other."
        )
    if method == "rational" and alpha != 2.0:
        raise ValueError(
            f"certify: method 'rational' is for alpha 2 only, where tau is a rational number; alpha is {alpha!r}. "
            f"Use 'ball', or leave it out."
        )
    return "ball" if method == "ball" else "rational"


def _starts(rows: Floats, alpha: float) -> list[float]:
    """Return a guess of row_max - tau for each row.  Nothing that is proven depends on it."""
    if rows.shape[0] == 0:
        return []
    with np.errstate(over="ignore"):
        guess: list[float] = np.abs(threshold(rows - rows.max(axis=-1, keepdims=True), alpha)).tolist()
    return guess
