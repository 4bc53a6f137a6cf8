"""Find tau, the threshold of each row, by sorting."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from entmax_ref.arguments import Booleans, Floats, as_alpha, as_axis, as_mask, as_real

MAX_STEPS = 200  # Newton took at most 14 on millions of drawn rows; meeting this cap is a bug of ours


class SolvedRows(NamedTuple):
    """What one solve of rows of shape (..., n) yields; ``transform`` and ``attention`` build on it."""

    gap: Floats  # (..., n): z - tau on the support, exactly 0 elsewhere, free of the offset of the row
    tau: Floats  # (...): unit of z; +inf without a visible key, NaN where undefined
    visible: Booleans  # (..., n)
    undefined: Booleans  # (...): a visible score is NaN or +inf


def threshold(scores: ArrayLike, alpha: float = 1.5, *, axis: int = -1, where: ArrayLike | None = None) -> Floats:
    r"""Return tau, the root of ``sum(max((alpha - 1) * scores - tau, 0) ** (1 / (alpha - 1))) == 1``, by row.

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
    tau : ndarray of float64, the shape of ``scores`` without ``axis``
        In the unit of ``z = (alpha - 1) * scores``. ``+inf`` for a row without a visible key, NaN for a row
        with a visible NaN or ``+inf``. It overflows only where ``(alpha - 1) * max(scores)`` does.

    Raises
    ------
    TypeError
        If ``scores`` is not real and numeric, ``where`` not boolean, ``alpha`` or ``axis`` not one number.
    ValueError
        If ``alpha`` is not finite and above 1, ``axis`` is empty or absent, or ``where`` does not broadcast.

    See Also
    --------
    entmax : the probabilities.
    support : the keys whose z lies above tau.

    Notes
    -----
    The keys of the support are the largest ones, so a binary search over the sorted row finds how many there
    are: the k-th largest, :math:`z_{(k)}`, belongs to it iff the mass at :math:`z_{(k)}` is below 1. Ties
    have one mass, so they enter or stay out together. With the support known, tau has a closed form for alpha
    1.5 and 2; for any other alpha Newton starts to the right of the root of a convex function, which it
    cannot overshoot, and runs until float64 allows no further progress. Everything happens relative to
    ``row_max = (alpha - 1) * max(scores)`` and to the smallest key of the support, in sums of terms of one
    sign.

    With u = 2**-53, and D <= min(n - 1, 19 + log2(n)) the depth of the summation of n terms,

    ``abs(tau - exact) <= u * (2 * abs(row_max) + 6 + 2 * max(1, alpha - 1) * (2 + log(n) + D))``

    to first order in u, and provided that ``numpy.power`` errs by at most one unit in the last place. Two
    roundings of z and two of each gap move tau by at most their size, because tau is 1-Lipschitz in the
    scores; a relative error e of the mass moves it by at most ``max(1, alpha - 1) * e``; the remaining ones
    are those of the final sum. The tests hold short rows to 4 * 2**-52 * max(1, abs(row_max)).

    Lemmas: threshold_unique, threshold_bracket, threshold_shift, threshold_subset, residual_bound

    References
    ----------
    .. [1] A. F. T. Martins and R. F. Astudillo, "From Softmax to Sparsemax: A Sparse Model of Attention and
       Multi-Label Classification", ICML 2016. The threshold for alpha 2 by sorting.
    .. [2] B. Peters, V. Niculae and A. F. T. Martins, "Sparse Sequence-to-Sequence Models", ACL 2019. The
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
    order = as_alpha("threshold", alpha)
    array = as_real("threshold", "scores", scores)
    place = as_axis("threshold", "scores", axis, array.shape)
    mask = as_mask("threshold", "where", where, array.shape)
    return solve_rows(np.moveaxis(array, place, -1), order, None if mask is None else np.moveaxis(mask, place, -1)).tau


def power_of(gap: Floats, alpha: float) -> Floats:
    """Return ``gap ** (1 / (alpha - 1))`` for gaps >= 0, without a power where a product will do."""
    if alpha == 2.0:
        return gap
    if alpha == 1.5:
        return gap * gap
    return np.power(gap, 1.0 / (alpha - 1.0))


def solve_rows(scores: Floats, alpha: float, mask: Booleans | None) -> SolvedRows:
    """Solve every row of ``scores``, (..., n) with n >= 1; ``mask`` has the same shape, True where visible.

    A score that is not visible is dropped before any arithmetic, so its NaN or inf reaches nothing.
    """
    visible = scores != -np.inf
    if mask is not None:
        visible &= mask
    undefined = np.any(visible & ~(scores < np.inf), axis=-1)  # NaN fails every comparison
    shown = np.where(visible & ~undefined[..., None], scores, -np.inf)
    top = np.max(shown, axis=-1, keepdims=True)
    empty = top == -np.inf
    top = np.where(empty, 0.0, top)
    with np.errstate(over="ignore"):  # a score 1e308 below the top is as invisible as -inf
        relative = (alpha - 1.0) * (shown - top)
        row_max = (alpha - 1.0) * top[..., 0]
    relative[..., :1] = np.where(empty, 0.0, relative[..., :1])  # a row without a key is solved as a row of one

    n = scores.shape[-1]
    floor, lift = _solve_relative(relative.reshape(-1, n), alpha)
    floor, lift = floor.reshape(top.shape), lift.reshape(top.shape)
    # The sorted row decided the support; asking the rounded gap again could let a key in at the edge.
    gap = np.where((relative >= floor) & ~empty, lift + (relative - floor), 0.0)
    tau = np.where(empty[..., 0], np.inf, row_max + (floor - lift)[..., 0])
    tau = np.where(undefined, np.nan, tau)
    return SolvedRows(gap, tau, visible, undefined)


def _solve_relative(relative: Floats, alpha: float) -> tuple[Floats, Floats]:
    """Return the smallest supported value of each row and its gap, (rows, 1), from z - row_max, (rows, n).

    tau - row_max is their difference. Keeping the two apart keeps the digits of gaps far smaller than 1.
    """
    # mass(row_max - 1) >= 1, so nothing at or below that depth is supported.  Lemma: threshold_bracket
    candidates = np.count_nonzero(relative > -1.0, axis=-1)
    widest = int(candidates.max(initial=1))
    # Descending, and contiguous, so that NumPy sums the rows pairwise.
    ordered = np.ascontiguousarray(np.sort(relative, axis=-1)[:, ::-1][:, :widest])
    size = _support_size(ordered, candidates, alpha)
    floor = np.take_along_axis(ordered, size[:, None] - 1, axis=-1)
    inside = np.arange(widest) < size[:, None]
    above = np.where(inside, ordered - floor, 0.0)
    if alpha == 2.0:
        lift = (1.0 - above.sum(axis=-1, keepdims=True)) / size[:, None]
    elif alpha == 1.5:
        # size * lift**2 + 2 * first * lift + second = 1, and no coefficient is negative: nothing cancels
        first = above.sum(axis=-1, keepdims=True)
        rest = 1.0 - (above * above).sum(axis=-1, keepdims=True)
        lift = rest / (first + np.sqrt(first * first + size[:, None] * rest))
    else:
        lift = _lift_by_newton(above, inside, size[:, None], alpha)
    return floor, lift


def _support_size(ordered: Floats, candidates: NDArray[np.intp], alpha: float) -> NDArray[np.intp]:
    """Return how many of the first ``candidates`` values of each descending row are supported; at least 1.

    The mass at the k-th value does not decrease with k, so the test mass < 1 holds up to one place and fails
    after it. Equal values give bitwise equal masses: a tie is never split.  Lemma: threshold_unique
    """
    fewest, most = np.ones_like(candidates), candidates.copy()
    while np.any(fewest < most):
        middle = (fewest + most + 1) // 2
        value = np.take_along_axis(ordered, middle[:, None] - 1, axis=-1)
        mass = power_of(np.maximum(ordered - value, 0.0), alpha).sum(axis=-1)
        supported = (mass < 1.0) | (middle <= fewest)
        fewest, most = np.where(supported, middle, fewest), np.where(supported, most, middle - 1)
    return fewest


def _lift_by_newton(above: Floats, inside: Booleans, size: NDArray[np.intp], alpha: float) -> Floats:
    """Return the gap of the smallest supported key, (rows, 1): lift with sum((lift + above) ** power) == 1.

    The unknown is x with lift = x ** max(1, alpha - 1). Then mass ** min(1, 1 / power) is convex in x: for
    alpha <= 2 it is a p-norm of affine functions, above 2 each term is a norm of an affine function. So
    Newton, started at or right of the root, cannot overshoot it.
    """
    power = 1.0 / (alpha - 1.0)
    bend = max(1.0, alpha - 1.0)
    inner = max(1.0, power)
    # Each of the size terms is at least lift ** power, and the largest gap, lift + above[0], is at most 1.
    x: Floats = np.minimum(size ** ((1.0 - alpha) / bend), (1.0 - above[:, :1]) ** (1.0 / bend))
    last_mass = np.full(x.shape, np.inf)
    done = np.zeros(x.shape, dtype=np.bool_)
    for _ in range(MAX_STEPS):
        lift: Floats = np.power(x, bend)
        if np.all(done):
            return lift
        gap = lift + above
        if alpha < 2.0:
            terms = np.where(inside, np.power(gap, power), 0.0)
            slope = np.sum(terms / gap, axis=-1, keepdims=True)  # of the norm: its factors power cancel
        else:
            # where above is 0 the term is x itself, also where x ** bend underflows
            terms = np.where(inside, np.where(above > 0.0, np.power(gap, power), x), 0.0)
            ratio = np.where(inside, x / np.where(inside, terms, 1.0), 0.0)
            slope = np.sum(np.power(ratio, bend - 1.0), axis=-1, keepdims=True)
        mass = terms.sum(axis=-1, keepdims=True)
        step = x + mass * np.expm1(-np.log(mass) / inner) / slope
        # Only rounding can throw a step out of (0, x]; then the root is 0 to rounding, and 0 cannot be divided by.
        step = np.where(step > 0.0, step, x * 2.0**-53)
        x = np.where(done, x, step)
        # The mass falls from step to step until rounding stops it, at the latest below 1; that step is the last.
        done |= (mass <= 1.0) | (mass >= last_mass)
        last_mass = mass
    raise AssertionError(f"entmax_ref: Newton met its cap of {MAX_STEPS} steps for alpha={alpha!r}; please report it")
