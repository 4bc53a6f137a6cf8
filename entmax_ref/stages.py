"""What does each kernel stage compute?  The executable specification: one function a stage, under the stage's name.

Rows are float64 arrays ``z = (alpha - 1) * scores`` with the keys on the last axis, ``-inf`` where one is not visible.
Everything is in the unit of z and counted from 0; the kernels count from ``row_max`` to keep digits in float32. Alpha
is one float in (1, 2], and ``power = 1 / (alpha - 1)``. Leading axes are free: heads and queries, or none.

Arguments are not checked here: these functions state what kernels compute, and tests call them with the kernels' own
intermediate values. `entmax_ref.solvers` compares the solver below with its alternatives.

Examples
--------
The stages in their order, on one row with support 2:

>>> import numpy as np
>>> z, value = np.array([0.5, 0.3, -1.0, -2.0]), np.eye(4)
>>> found = dense(z, block=2)
>>> float(found.row_max), found.candidates, bool(found.lo <= -0.3)
(0.5, array([ True,  True]), True)
>>> live = collect(z, found.lo)
>>> tau = solve(z, live)
>>> bool(abs(tau - refine(z, histogram(z)).tau) < 1e-5)
True
>>> block_list(block_mask(z, tau, block=2))
[array([0])]
>>> output(z, tau, value).out.round(6)
array([0.64, 0.36, 0.  , 0.  ])
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from entmax_ref.arguments import Booleans, Floats

BINS = 16
# Bins of the block maxima: so many in a unit of z, and so many in all.
LEVELS = 8
LEVELS_PER_UNIT = 12


class Dense(NamedTuple):
    """What the dense pass leaves for each row.

    Attributes
    ----------
    row_max : ndarray of float64, shape (...)
        ``-inf`` for a row without a visible key, ``+inf`` for one with NaN or ``+inf``.
    lo : ndarray of float64, shape (...)
        A lower bound of the threshold; ``+inf`` for a row without a visible key, NaN for a poisoned one.
    candidates : ndarray of bool, shape (..., ceil(n / block))
        False only for blocks without support.
    """

    row_max: Floats
    lo: Floats
    candidates: Booleans


class Bracket(NamedTuple):
    """Bounds of the threshold of each row and an estimate between them.

    Attributes
    ----------
    lo, hi : ndarray of float64, shape (...)
        ``lo <= tau <= hi`` for the exact tau. ``+inf`` for a row without a visible key, NaN for a row with NaN or
        ``+inf``; so is ``tau``.
    tau : ndarray of float64, shape (...)
        The estimate.
    """

    lo: Floats
    hi: Floats
    tau: Floats


class Refined(NamedTuple):
    """What refinement leaves for each row.

    Attributes
    ----------
    tau : ndarray of float64, shape (...)
        The threshold, one step beyond the point that met the tolerance.
    lo : ndarray of float64, shape (...)
        A lower bound of the exact threshold and of ``tau``: what the block mask is built from.
    residual : ndarray of float64, shape (...)
        ``abs(mass - 1)`` where it was last evaluated; NaN for a poisoned row, 0 for a row without a visible key.
    passes : ndarray of int64, shape (...)
        Steps that the tolerance asked for. The first evaluation may meet it: then this is 0.
    """

    tau: Floats
    lo: Floats
    residual: Floats
    passes: NDArray[np.int64]


class Output(NamedTuple):
    """What the output stage leaves for each row.

    Attributes
    ----------
    out : ndarray of float64, shape (..., n_queries, value_dim)
        The output; 0 for a row without a visible key, NaN for a poisoned one.
    mass : ndarray of float64, shape (..., n_queries)
        At the given tau; 1 at the exact one.
    """

    out: Floats
    mass: Floats


def dense(z: Floats, alpha: float = 1.5, *, block: int) -> Dense:
    """Return the maximum of each row, a lower bound of its threshold, and which blocks of keys may hold support.

    Blocks are visited from the last to the first.  A block is a candidate if its maximum lies less than 1 below the
    running maximum, its own included.  The maxima of the blocks are scores of the row, so their threshold is at most
    that of the row; they are counted in `LEVELS` bins of an absolute grid, which end with that of ``row_max``, and each
    but ``row_max`` is lowered to the far edge of its bin.  A row with NaN or +inf keeps every block that it sees.

    Parameters
    ----------
    z : ndarray of float64, shape (..., n)
        ``-inf`` where a key is not visible.
    alpha : float, default 1.5
        Order, in (1, 2].
    block : int
        Keys in a block; the last one may be shorter.

    Returns
    -------
    dense : Dense

    Notes
    -----
    Lemmas: candidate_superset, threshold_bracket, threshold_subset, histogram_bracket, pruning_keeps_threshold
    """
    blocks = block_max(np.where(np.isnan(z), np.inf, z), block)
    running = np.maximum.accumulate(blocks[..., ::-1], axis=-1)[..., ::-1]
    highest = running[..., 0] if blocks.shape[-1] else np.full(z.shape[:-1], -np.inf)
    with np.errstate(invalid="ignore"):  # inf - inf: rows without a key have no candidate, poisoned rows follow
        candidates = blocks - running > -1.0
    poisoned = (highest == np.inf)[..., None]
    candidates = np.where(poisoned, blocks > -np.inf, candidates)
    ordinary = np.isfinite(highest)
    top = np.where(ordinary, highest, 0.0)[..., None]
    with np.errstate(invalid="ignore"):
        level = np.floor(LEVELS_PER_UNIT * top) - np.floor(LEVELS_PER_UNIT * blocks)
    counts = [np.sum(level == index, axis=-1, dtype=np.float64) for index in range(LEVELS)]
    counts[0] = counts[0] - 1.0  # row_max is not rounded
    excess = (LEVELS_PER_UNIT * top - np.floor(LEVELS_PER_UNIT * top))[..., 0]
    knots = np.stack([(excess + index) / LEVELS_PER_UNIT for index in range(LEVELS)], axis=-1)
    below = _histogram_root(np.maximum(np.stack(counts, axis=-1), 0.0), knots, alpha)
    special = np.where(highest == -np.inf, np.inf, np.nan)
    return Dense(highest, np.where(ordinary, highest - below, special), candidates)


def collect(z: Floats, lo: Floats) -> Booleans:
    """Return which keys reach above a lower bound of the threshold; all support is among them.

    Parameters
    ----------
    z : ndarray of float64, shape (..., n)
        ``-inf`` where a key is not visible.
    lo : ndarray of float64, shape (...)
        Of `dense`.

    Returns
    -------
    live : ndarray of bool, shape (..., n)

    Notes
    -----
    Lemma: block_mask_superset
    """
    return z > lo[..., None]


def solve(z: Floats, live: Booleans, alpha: float = 1.5) -> Floats:
    """Return the threshold of each row from its live keys alone, by Newton on the norm of their gaps until it stops.

    Parameters
    ----------
    z : ndarray of float64, shape (..., n)
        ``-inf`` where a key is not visible.
    live : ndarray of bool, shape (..., n)
        All support, and perhaps other keys: `collect`.
    alpha : float, default 1.5
        Order, in (1, 2].

    Returns
    -------
    tau : ndarray of float64, shape (...)
        ``+inf`` for a row without a live key.

    Notes
    -----
    From the left the step never passes the root, so a row has arrived when it does not rise any more.

    Lemmas: newton_norm_left, threshold_bracket
    """
    held = np.where(live, z, -np.inf)
    highest = block_max(held, max(z.shape[-1], 1))[..., 0] if z.shape[-1] else np.full(z.shape[:-1], -np.inf)
    seen = highest > -np.inf
    top = np.where(seen, highest, 0.0)
    shifted = np.where(seen[..., None], held - top[..., None], 0.0)
    tau = np.full(top.shape, -1.0)
    while True:
        mass, slope, _ = sums(shifted, tau, alpha)
        step = tau + norm_step(mass, slope, alpha)
        rises = step > tau
        if not rises.any():
            return np.where(seen, top + tau, np.inf)
        tau = np.where(rises, step, tau)


def block_list(kept: Booleans) -> list[NDArray[np.int64]]:
    """Return the indices of the set blocks of each row of a mask, ascending.

    Parameters
    ----------
    kept : ndarray of bool, shape (..., n_blocks)

    Returns
    -------
    lists : list of ndarray of int64
        One for each row, in the order of the flattened leading axes.
    """
    return [np.flatnonzero(row) for row in kept.reshape(-1, kept.shape[-1])]


def block_mask_transpose(kept: Booleans) -> Booleans:
    """Return a mask by key blocks of one by query blocks.

    Parameters
    ----------
    kept : ndarray of bool, shape (..., n_query_blocks, n_key_blocks)

    Returns
    -------
    transposed : ndarray of bool, shape (..., n_key_blocks, n_query_blocks)
    """
    return np.swapaxes(kept, -1, -2)


def block_max(z: Floats, block: int) -> Floats:
    """Return the maximum of each block of keys.

    Parameters
    ----------
    z : ndarray of float64, shape (..., n)
        ``-inf`` where a key is not visible.
    block : int
        Keys in a block; a last short block counts as full.

    Returns
    -------
    block_max : ndarray of float64, shape (..., ceil(n / block))
        ``-inf`` for a block without a visible key.
    """
    padding = [(0, 0)] * (z.ndim - 1) + [(0, -z.shape[-1] % block)]
    padded = np.pad(z, padding, constant_values=-np.inf)
    result: Floats = padded.reshape(*z.shape[:-1], padded.shape[-1] // block, block).max(axis=-1)
    return result


def bin_edges(bins: int = BINS, alpha: float = 1.5) -> Floats:
    """Return the ``bins + 1`` edges of the histogram in ``row_max - z``, from 1 down to 0.

    They are the float32 numbers whose mantissa is 1 or 1.5, so an edge is found from the leading bits of a number, and
    bins shrink towards the maximum: flat rows of any length have their threshold near it. Above alpha 1.75 it is
    nearer, and the edges are the powers of two alone.

    Parameters
    ----------
    bins : int, default 16
        How many; the last one reaches from its far edge to the maximum.
    alpha : float, default 1.5
        Order, in (1, 2].

    Returns
    -------
    edges : ndarray of float64, shape (bins + 1,)
        Bin b holds the scores with ``edges[b + 1] <= row_max - z < edges[b]``.

    Examples
    --------
    >>> bin_edges(4)
    array([1.   , 0.75 , 0.5  , 0.375, 0.   ])
    >>> bin_edges(4, alpha=2.0)
    array([1.   , 0.5  , 0.25 , 0.125, 0.   ])
    """
    steps = np.arange(bins)
    if alpha > 1.75:
        return np.append(2.0**-steps, 0.0)
    octave = (steps + 1) // 2
    edges = np.where(steps % 2 == 0, 1.0, 1.5) * 2.0**-octave
    return np.append(edges, 0.0)


def linear_edges(bins: int) -> Floats:
    """Return the ``bins + 1`` edges of equally wide bins in ``row_max - z``, from 1 down to 0.

    Parameters
    ----------
    bins : int
        How many.

    Returns
    -------
    edges : ndarray of float64, shape (bins + 1,)
        As those of `bin_edges`, which the kernels use; AdaSplash-2 publishes 8 linear bins.
    """
    return 1.0 - np.arange(bins + 1) / bins


def histogram(z: Floats, alpha: float = 1.5, *, bins: int = BINS, edges: Floats | None = None) -> Bracket:
    """Return a bracket of each row's threshold from the counts of its scores in bins.

    Each of the three is the exact root of a row: with every score (but the maximum) lowered to the far edge of its bin,
    raised to the near edge, and moved to the middle.

    Parameters
    ----------
    z : ndarray of float64, shape (..., n)
        ``-inf`` where a key is not visible.
    alpha : float, default 1.5
        Order, in (1, 2].
    bins : int, default 16
        Number of bins, with the edges that `bin_edges` gives.
    edges : ndarray of float64, shape (bins + 1,), optional
        Other edges, descending from 1 to 0; ``bins`` is then not read.

    Returns
    -------
    bracket : Bracket
        No wider than the widest bin.

    Notes
    -----
    The bracket resolves a threshold closer to ``row_max`` than the last bin is wide only to that width. A row of n
    equal scores has it at a distance of ``n ** (1 - alpha)``: 16 bins, which end at 2**-7.5 and above alpha 1.75 at
    2**-15, cover alpha 1.5 and alpha 2 up to a length of 2**15. Beyond, refinement takes a pass or more in addition.

    Lemmas: histogram_bracket, counter_no_carry

    References
    ----------
    .. [1] Nuno M. T. Gonçalves et al., "AdaSplash-2: Faster Differentiable Sparse Attention", ICML 2026.
    """
    highest = _row_max(z)
    ordinary = np.isfinite(highest)
    drop = np.where(ordinary, highest, 0.0)[..., None] - z
    edges = bin_edges(bins, alpha) if edges is None else edges
    with np.errstate(invalid="ignore"):
        # side "left" of the negated, ascending edges: bin b holds edges[b + 1] <= drop < edges[b].
        index = np.searchsorted(-edges[1:-1], -drop, side="left")
    inside = drop < 1.0
    held = [np.sum(inside & (index == b), axis=-1) for b in range(len(edges) - 1)]
    counts = np.stack(held, axis=-1).astype(np.float64)
    counts[..., -1] -= ordinary  # the maximum is not rounded
    far, near = edges[:-1], edges[1:]
    lo, hi, tau = (
        highest - _histogram_root(np.maximum(counts, 0.0), knots, alpha) for knots in (far, near, 0.5 * (far + near))
    )
    special = np.where(highest == -np.inf, np.inf, np.nan)
    lo = np.where(ordinary, np.maximum(lo, highest - 1.0), special)
    hi = np.where(ordinary, hi, special)
    return Bracket(lo, hi, np.where(ordinary, np.clip(tau, lo, hi), special))


def _row_max(z: Floats) -> Floats:
    """Return the maximum of each row, ``+inf`` where it holds NaN, ``-inf`` where it has no visible key."""
    result: Floats = np.max(np.where(np.isnan(z), np.inf, z), axis=-1, initial=-np.inf)
    return result


def _histogram_root(counts: Floats, knots: Floats, alpha: float) -> Floats:
    """Return ``row_max - tau`` of rows with their maximum once and ``counts[..., b]`` scores ``knots[b]`` below it."""
    power = 1.0 / (alpha - 1.0)
    depths = np.concatenate([knots, np.zeros((*knots.shape[:-1], 1))], axis=-1)
    weights = np.concatenate([counts, np.ones_like(counts[..., :1])], axis=-1)

    def mass(at: Floats) -> Floats:
        result: Floats = np.sum(weights * np.maximum(at[..., None] - depths, 0.0) ** power, axis=-1)
        return result

    low, high = np.zeros(counts.shape[:-1]), np.ones(counts.shape[:-1])
    for _ in range(60):  # mass grows with the distance from the maximum; 60 halvings reach the last bit
        middle = 0.5 * (low + high)
        light = mass(middle) < 1.0
        low, high = np.where(light, middle, low), np.where(light, high, middle)
    return high


def sums(z: Floats, tau: Floats, alpha: float) -> tuple[Floats, Floats, Floats]:
    """Return what one pass over the keys yields for each row at tau.

    Parameters
    ----------
    z : ndarray of float64, shape (..., n)
        ``-inf`` where a key is not visible.
    tau : ndarray of float64, shape (...)
        Where to evaluate, below ``row_max``.
    alpha : float
        Order, in (1, 2].

    Returns
    -------
    mass : ndarray of float64, shape (...)
        Sum of ``gap ** power``.
    slope : ndarray of float64, shape (...)
        Sum of ``gap ** (power - 1)`` over the positive gaps; ``-power * slope`` is the derivative of mass.
    curve : ndarray of float64, shape (...)
        Sum of ``gap ** (power - 2)`` over the positive gaps; ``power * (power - 1) * curve`` is the second derivative.
        For alpha 1.5 it is their count. For alpha 2, where the second derivative is 0, it is the count as well.
    """
    power = 1.0 / (alpha - 1.0)
    gap = np.maximum(z - tau[..., None], 0.0)
    live = gap > 0.0
    positive = np.where(live, gap, 1.0)
    slope = np.sum(np.where(live, positive ** (power - 1.0), 0.0), axis=-1)
    if alpha in (1.5, 2.0):
        curve = np.sum(live, axis=-1).astype(np.float64)
    else:
        with np.errstate(over="ignore"):  # alpha > 1.5 and a gap next to nothing
            curve = np.sum(np.where(live, positive ** (power - 2.0), 0.0), axis=-1)
    return np.sum(gap**power, axis=-1), slope, curve


def norm_step(mass: Floats, slope: Floats, alpha: float) -> Floats:
    """Return Newton's step on ``mass ** (alpha - 1)``, the norm of the gaps; it lands at or left of tau.

    Parameters
    ----------
    mass, slope : ndarray of float64, shape (...)
        What `sums` returns.
    alpha : float
        Order, in (1, 2].

    Returns
    -------
    step : ndarray of float64, shape (...)
        What to add to tau. Exact if all positive gaps are equal and stay positive; Newton's step on the mass, which is
        exact if the support stays, for alpha 2.

    Notes
    -----
    The norm of a nonnegative vector that depends affinely on t is convex in t, so a tangent meets 1 at or left of the
    root, from either side.

    Lemma: newton_norm_left
    """
    if alpha in (1.5, 2.0):
        return (mass - mass ** (2.0 - alpha)) / slope
    # the same, with the digits that the difference loses as alpha approaches 1
    result: Floats = mass * -np.expm1((1.0 - alpha) * np.log(mass)) / slope
    return result


def active_set_step(mass: Floats, slope: Floats, curve: Floats, alpha: float) -> Floats:
    """Return the step to the root of the quadratic through the squared norm; NaN where it has no root.

    Parameters
    ----------
    mass, slope, curve : ndarray of float64, shape (...)
        What `sums` returns.
    alpha : float
        Order, in (1, 2].

    Returns
    -------
    step : ndarray of float64, shape (...)
        What to add to tau. It may land on either side of the root.

    Notes
    -----
    As long as the support stays the same, the squared norm of the gaps, ``mass ** (2 / power)``, is a quadratic in t
    for power 1 and 2, and for any power if the gaps are equal. So the step is exact in these cases, and of third order
    in all others (power >= 2). With ``excess = mass - mass ** (1 - 2 / power)`` and ``bend = (power - 1) * curve -
    (power - 2) * slope ** 2 / mass`` it is ``excess / (slope + sqrt(slope ** 2 - bend * excess))``: for alpha 1.5
    ``excess = mass - 1`` and ``bend`` is the count. A row to the right of its root always has this root, since ``bend``
    is positive (by Cauchy and Schwarz, ``mass * curve >= slope ** 2``). For alpha 2 it is `norm_step`, which needs no
    root.

    For alpha between 1.5 and 2 the second derivative is unbounded where a key enters the support; the step is then of
    use only beside a safeguard, as in `safeguarded_step`.
    """
    if alpha == 2.0:
        return norm_step(mass, slope, alpha)
    with np.errstate(invalid="ignore", over="ignore"):
        if alpha == 1.5:
            root = np.sqrt(slope * slope - curve * (mass - 1.0))
            result: Floats = (mass - 1.0) / (slope + root)
            return result
        power = 1.0 / (alpha - 1.0)
        excess = mass * -np.expm1(-2.0 / power * np.log(mass))
        bend = (power - 1.0) * curve - (power - 2.0) * slope * slope / mass
        result = excess / (slope + np.sqrt(slope * slope - bend * excess))
    # An infinite curve would pin a row to its place.
    return np.where(np.isfinite(curve), result, np.nan)


def safeguarded_step(
    tau: Floats, lo: Floats, hi: Floats, mass: Floats, slope: Floats, curve: Floats, tolerance: float, alpha: float
) -> Bracket:
    """Return the next tau and the bracket that the sums at the present one prove.

    Parameters
    ----------
    tau, lo, hi : ndarray of float64, shape (...)
        The present point and bracket, ``lo <= tau <= hi``.
    mass, slope, curve : ndarray of float64, shape (...)
        What `sums` returns at ``tau``.
    tolerance : float
        A row with ``abs(mass - 1)`` within it stays where it is rather than jump far.
    alpha : float
        Order, in (1, 2].

    Returns
    -------
    bracket : Bracket
        ``lo`` from `norm_step`, ``hi`` from the residual, ``tau`` from `active_set_step` between them.

    Notes
    -----
    A step is only a proposal inside the bracket: Halley's method, for one, can overshoot from the left. If it falls
    outside or does not exist, the bracket is halved, save for alpha strictly between 1.5 and 2: there the lower bound
    is taken, from which Newton's method cannot fail. Measured, that needs 6 passes where halving needs 16 (clusters of
    equal scores, alpha 1.9, length 131072), and changes nothing for alpha below 1.5.

    Lemmas: step_keeps_bracket, newton_norm_left, residual_bound, halley_overshoots
    """
    lo = np.maximum(lo, tau + norm_step(mass, slope, alpha))
    hi = np.minimum(hi, np.where(mass < 1.0, tau, tau + (mass - 1.0)))
    step = tau + active_set_step(mass, slope, curve, alpha)
    if alpha not in (1.5, 2.0):
        step = np.maximum(step, lo)  # for small alpha the two steps differ by less than their rounding
    inside = (lo <= step) & (step <= hi)  # a step that does not exist is NaN, and not inside
    retreat = lo if 1.5 < alpha < 2.0 else 0.5 * (lo + hi)
    otherwise = np.where(np.abs(mass - 1.0) <= tolerance, tau, retreat)
    return Bracket(lo, hi, np.maximum(np.where(inside, step, otherwise), lo))


def refine(z: Floats, bracket: Bracket, alpha: float = 1.5, *, tolerance: float = 2.0**-18) -> Refined:
    """Return the threshold of each row, refined from a bracket until ``abs(mass - 1) <= tolerance``.

    Parameters
    ----------
    z : ndarray of float64, shape (..., n)
        ``-inf`` where a key is not visible.
    bracket : Bracket
        What `histogram` returns, or any other proven bracket.
    alpha : float, default 1.5
        Order, in (1, 2].
    tolerance : float, default 2**-18
        Bound of ``abs(mass - 1)``.

    Returns
    -------
    refined : Refined
        ``abs(tau - exact) <= residual``; after the last step the error is far smaller.

    Notes
    -----
    A row whose tau and bracket stop moving ends above the tolerance, as its ``residual`` then says: at an offset of
    2**35 neighbouring float64 numbers lie further apart than that. Count from ``row_max``, as the kernels do, to avoid
    it.

    Mean and greatest number of passes until 1e-5, from 16 bins, over the rows of ``tests/hard.py`` (equal, Gaussian of
    standard deviation 0.0005 to 4, uniform, ties, clusters, exponential, Cauchy, one above the rest):

    ========  ========  ========  ========  ========  ========  ========  ========  ========
    n         1.01      1.1       1.25      4/3       1.5       1.75      1.9       2
    ========  ========  ========  ========  ========  ========  ========  ========  ========
    1024      0.81 / 1  0.92 / 1  1.00 / 2  1.08 / 2  1.00 / 2  1.38 / 3  1.58 / 3  1.58 / 5
    16384     0.77 / 1  0.92 / 2  1.04 / 3  1.08 / 3  1.00 / 2  1.54 / 4  1.65 / 3  1.54 / 3
    131072    0.81 / 1  0.92 / 2  1.04 / 2  1.08 / 2  1.15 / 2  1.88 / 4  1.77 / 3  1.50 / 4
    ========  ========  ========  ========  ========  ========  ========  ========  ========

    For alpha 1.75 the last bin is too wide for long flat rows (see `histogram`): with 32 bins, at 131072, it is
    1.27 / 3.

    Lemmas: residual_bound, step_keeps_bracket, refine_loop_certifies
    """
    lo, hi, tau = (np.array(part, dtype=np.float64) for part in bracket)
    still_open = np.isfinite(tau)
    residual = np.where(np.isnan(tau), np.nan, 0.0)
    passes = np.zeros(tau.shape, dtype=np.int64)
    while still_open.any():
        rows = still_open
        before = lo[rows], hi[rows], tau[rows]
        mass, slope, curve = sums(z[rows], before[2], alpha)
        step = safeguarded_step(before[2], before[0], before[1], mass, slope, curve, tolerance, alpha)
        lo[rows], hi[rows], tau[rows] = step
        residual[rows] = np.abs(mass - 1.0)
        passes[rows] += residual[rows] > tolerance
        moved = np.zeros(tau.shape, dtype=np.bool_)
        moved[rows] = np.any([old != new for old, new in zip(before, step, strict=True)], axis=0)
        still_open = moved & (residual > tolerance)
    return Refined(tau, lo, residual, passes)


def block_mask(z: Floats, bound: Floats, block: int) -> Booleans:
    """Return which blocks of keys reach above ``bound``, shape (..., ceil(n / block)).

    With a bound at or below tau, a block that is False holds no support.  A row whose bound is NaN keeps what it sees.

    Parameters
    ----------
    z : ndarray of float64, shape (..., n)
        ``-inf`` where a key is not visible.
    bound : ndarray of float64, shape (...)
        A lower bound of the threshold that all later stages use: ``lo`` of `refine`.
    block : int
        Keys in a block; the last one may be shorter.

    Returns
    -------
    kept : ndarray of bool, shape (..., ceil(n / block))
        Which blocks the later stages visit. A kernel keeps a block if any row of its query block does.

    Notes
    -----
    Lemmas: block_mask_superset, block_mask_unsound_above
    """
    highest = block_max(np.where(np.isnan(z), np.inf, z), block)
    return (highest > -np.inf) & ~(highest <= bound[..., None])


def gaps(z: Floats, tau: Floats) -> Floats:
    """Return ``max(z - tau, 0)``, the gap of every key.

    Parameters
    ----------
    z : ndarray of float64, shape (..., n)
        ``-inf`` where a key is not visible.
    tau : ndarray of float64, shape (...)
        The threshold.

    Returns
    -------
    gap : ndarray of float64, shape (..., n)
        0 where not visible, NaN where visible in a row whose tau is NaN.
    """
    return np.where(z == -np.inf, 0.0, np.maximum(np.where(z == -np.inf, 0.0, z) - tau[..., None], 0.0))


def probs_and_sensitivity(z: Floats, tau: Floats, alpha: float) -> tuple[Floats, Floats]:
    """Return the probabilities at tau, ``gap ** power``, and the sensitivities.

    Parameters
    ----------
    z : ndarray of float64, shape (..., n)
        ``-inf`` where a key is not visible.
    tau : ndarray of float64, shape (...)
        The threshold.
    alpha : float
        Order, in (1, 2].

    Returns
    -------
    probs, sensitivity : ndarray of float64, shape (..., n)
        ``sensitivity`` is ``gap ** (power - 1)`` on the support and 0 elsewhere.

    Notes
    -----
    Lemma: jacobian_form
    """
    power = 1.0 / (alpha - 1.0)
    gap = gaps(z, tau)
    live = gap != 0.0
    return gap**power, np.where(live, np.where(live, gap, 1.0) ** (power - 1.0), 0.0)


def output(z: Floats, tau: Floats, value: Floats, alpha: float = 1.5) -> Output:
    """Return the mean of the values weighted by the probabilities at tau, and the mass of these.

    Parameters
    ----------
    z : ndarray of float64, shape (..., n_queries, n_keys)
        ``-inf`` where a key is not visible.
    tau : ndarray of float64, shape (..., n_queries)
        A threshold near the exact one.
    value : ndarray of float64, shape (..., n_keys, value_dim)
        The values.
    alpha : float, default 1.5
        Order, in (1, 2].

    Returns
    -------
    output : Output
        Off by at most twice the spread of the values times ``abs(mass - 1)``.

    Notes
    -----
    Lemma: normalised_output
    """
    probs, _ = probs_and_sensitivity(z, tau, alpha)
    mass = probs.sum(axis=-1)
    return Output((probs @ value) / np.where(mass == 0.0, 1.0, mass)[..., None], mass)


def delta(z: Floats, tau: Floats, value: Floats, d_out: Floats, alpha: float = 1.5) -> Floats:
    """Return what each row subtracts from ``d_probs``: their mean weighted by the sensitivity.

    Parameters
    ----------
    z : ndarray of float64, shape (..., n_queries, n_keys)
        ``-inf`` where a key is not visible.
    tau : ndarray of float64, shape (..., n_queries)
        The threshold of the forward.
    value : ndarray of float64, shape (..., n_keys, value_dim)
        The values.
    d_out : ndarray of float64, shape (..., n_queries, value_dim)
        Gradient of the output.
    alpha : float, default 1.5
        Order, in (1, 2].

    Returns
    -------
    delta : ndarray of float64, shape (..., n_queries)
        0 for a row without a visible key.

    Notes
    -----
    The kernel finds it in the pass that makes d_query, as ``d_out . out`` and the weighted mean of what the rest of
    ``d_probs`` is.

    Lemma: delta_is_centre
    """
    _, sensitivity = probs_and_sensitivity(z, tau, alpha)
    slope = sensitivity.sum(axis=-1)
    moment = np.sum(sensitivity * (d_out @ np.swapaxes(value, -1, -2)), axis=-1)
    result: Floats = moment / np.where(slope == 0.0, 1.0, slope)
    return result


def score_gradient(z: Floats, tau: Floats, value: Floats, d_out: Floats, delta: Floats, alpha: float = 1.5) -> Floats:
    """Return the gradient of the scores.

    Parameters
    ----------
    z : ndarray of float64, shape (..., n_queries, n_keys)
        ``-inf`` where a key is not visible.
    tau : ndarray of float64, shape (..., n_queries)
        The threshold of the forward.
    value : ndarray of float64, shape (..., n_keys, value_dim)
        The values.
    d_out : ndarray of float64, shape (..., n_queries, value_dim)
        Gradient of the output.
    delta : ndarray of float64, shape (..., n_queries)
        Of the function of that name.
    alpha : float, default 1.5
        Order, in (1, 2].

    Returns
    -------
    d_scores : ndarray of float64, shape (..., n_queries, n_keys)
        0 off the support; NaN where visible in a poisoned row.

    Notes
    -----
    Lemmas: jacobian_form, jacobian_rows_zero, delta_is_centre
    """
    _, sensitivity = probs_and_sensitivity(z, tau, alpha)
    result: Floats = sensitivity * (d_out @ np.swapaxes(value, -1, -2) - delta[..., None])
    return result


def backward_dq(
    z: Floats, tau: Floats, key: Floats, value: Floats, d_out: Floats, delta: Floats, scale: float, alpha: float = 1.5
) -> Floats:
    """Return the gradient of the query.

    Parameters
    ----------
    z : ndarray of float64, shape (..., n_queries, n_keys)
        ``-inf`` where a key is not visible.
    tau : ndarray of float64, shape (..., n_queries)
        The threshold of the forward.
    key : ndarray of float64, shape (..., n_keys, head_dim)
        The keys.
    value : ndarray of float64, shape (..., n_keys, value_dim)
        The values.
    d_out : ndarray of float64, shape (..., n_queries, value_dim)
        Gradient of the output.
    delta : ndarray of float64, shape (..., n_queries)
        Of the function of that name.
    scale : float
        Multiplier of the products.
    alpha : float, default 1.5
        Order, in (1, 2].

    Returns
    -------
    d_query : ndarray of float64, shape (..., n_queries, head_dim)
        ``scale * d_scores @ key``.
    """
    result: Floats = scale * (score_gradient(z, tau, value, d_out, delta, alpha) @ key)
    return result


def backward_dkdv(
    z: Floats, tau: Floats, query: Floats, value: Floats, d_out: Floats, delta: Floats, scale: float, alpha: float = 1.5
) -> tuple[Floats, Floats]:
    """Return the gradients of key and value, one query head at a time; grouped heads add up.

    Parameters
    ----------
    z : ndarray of float64, shape (..., n_queries, n_keys)
        ``-inf`` where a key is not visible.
    tau : ndarray of float64, shape (..., n_queries)
        The threshold of the forward.
    query : ndarray of float64, shape (..., n_queries, head_dim)
        The queries.
    value : ndarray of float64, shape (..., n_keys, value_dim)
        The values.
    d_out : ndarray of float64, shape (..., n_queries, value_dim)
        Gradient of the output.
    delta : ndarray of float64, shape (..., n_queries)
        Of the function of that name.
    scale : float
        Multiplier of the products.
    alpha : float, default 1.5
        Order, in (1, 2].

    Returns
    -------
    d_key : ndarray of float64, shape (..., n_keys, head_dim)
        ``scale * d_scores.T @ query``.
    d_value : ndarray of float64, shape (..., n_keys, value_dim)
        ``probs.T @ d_out``.
    """
    probs, _ = probs_and_sensitivity(z, tau, alpha)
    d_scores = score_gradient(z, tau, value, d_out, delta, alpha)
    return scale * (np.swapaxes(d_scores, -1, -2) @ query), np.swapaxes(probs, -1, -2) @ d_out
