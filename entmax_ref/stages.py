"""What does each kernel stage compute?  The executable specification: one function a stage, under the stage's name.

Rows are float64 arrays ``z = (alpha - 1) * scores`` with the keys on the last axis, ``-inf`` where one is not visible.
Everything is in the unit of z and counted from 0; the kernels count from ``row_max`` to keep digits in float32.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from entmax_ref.arguments import Booleans, Floats

BINS = 16


class Bracket(NamedTuple):
    """Bounds of the threshold of each row and a first estimate between them; shape (...)."""

    lo: Floats
    hi: Floats
    tau: Floats


class Refined(NamedTuple):
    """What refinement leaves for each row; shape (...).

    ``residual`` is ``abs(mass - 1)`` where it was last evaluated, ``passes`` the number of steps that the tolerance
    asked for; a last step is taken from the point that met it.
    """

    tau: Floats
    lo: Floats
    residual: Floats
    passes: NDArray[np.int64]


class Output(NamedTuple):
    """Output and centre, (..., n_queries, value_dim), and the mass of each row at tau, (..., n_queries)."""

    out: Floats
    centre: Floats
    mass: Floats


def row_max(z: Floats, block: int) -> tuple[Floats, Booleans]:
    """Return the maximum of each row, and which blocks of ``block`` keys may hold support.

    Blocks are visited from the last to the first.  A block is a candidate if its maximum lies less than 1 below the
    running maximum, its own included.  A row with NaN or +inf has the maximum +inf and keeps every block that it sees.

    Parameters
    ----------
    z : ndarray of float64, shape (..., n)
    block : int

    Returns
    -------
    row_max : ndarray of float64, shape (...)
    candidates : ndarray of bool, shape (..., ceil(n / block))

    Notes
    -----
    Lemmas: candidate_superset, threshold_bracket, threshold_subset
    """
    blocks = block_max(np.where(np.isnan(z), np.inf, z), block)
    running = np.maximum.accumulate(blocks[..., ::-1], axis=-1)[..., ::-1]
    highest = running[..., 0] if blocks.shape[-1] else np.full(z.shape[:-1], -np.inf)
    with np.errstate(invalid="ignore"):  # inf - inf: rows without a key have no candidate, poisoned rows follow
        candidates = blocks - running > -1.0
    poisoned = (highest == np.inf)[..., None]
    return highest, np.where(poisoned, blocks > -np.inf, candidates)


def block_max(z: Floats, block: int) -> Floats:
    """Return the maximum of each block of keys, shape (..., ceil(n / block)); a last short block counts as full."""
    padding = [(0, 0)] * (z.ndim - 1) + [(0, -z.shape[-1] % block)]
    padded = np.pad(z, padding, constant_values=-np.inf)
    result: Floats = padded.reshape(*z.shape[:-1], -1, block).max(axis=-1)
    return result


def bin_edges(bins: int = BINS) -> Floats:
    """Return the ``bins + 1`` edges of the histogram in ``row_max - z``, from 1 down to 0.

    They are the float32 numbers whose mantissa is 1 or 1.5, so an edge is found from the leading bits of a number, and
    bins shrink with the distance from the maximum: flat rows of any length have their threshold near it.
    """
    steps = np.arange(bins)
    octave = (steps + 1) // 2
    edges = np.where(steps % 2 == 0, 1.0, 1.5) * 2.0**-octave
    return np.append(edges, 0.0)


def histogram(z: Floats, alpha: float = 1.5, *, bins: int = BINS) -> Bracket:
    """Return a bracket of each row's threshold from the counts of its scores in bins.

    Each of the three is the exact root of a row: with every score (but the maximum) lowered to the far edge of its bin,
    raised to the near edge, and moved to the middle.

    Notes
    -----
    Lemmas: histogram_bracket, counter_no_carry
    """
    highest, _ = row_max(z, max(z.shape[-1], 1))
    ordinary = np.isfinite(highest)
    drop = np.where(ordinary, highest, 0.0)[..., None] - z
    edges = bin_edges(bins)
    with np.errstate(invalid="ignore"):
        # side "left" of the negated, ascending edges: bin b holds edges[b + 1] <= drop < edges[b].
        index = np.searchsorted(-edges[1:-1], -drop, side="left")
    inside = drop < 1.0
    counts = np.stack([np.sum(inside & (index == b), axis=-1) for b in range(bins)], axis=-1).astype(np.float64)
    counts[..., -1] -= ordinary  # the maximum is not rounded
    far, near = edges[:-1], edges[1:]
    lo, hi, tau = (
        highest - _histogram_root(np.maximum(counts, 0.0), knots, alpha) for knots in (far, near, 0.5 * (far + near))
    )
    special = np.where(highest == -np.inf, np.inf, np.nan)
    lo = np.where(ordinary, np.maximum(lo, highest - 1.0), special)
    hi = np.where(ordinary, hi, special)
    return Bracket(lo, hi, np.where(ordinary, np.clip(tau, lo, hi), special))


def _histogram_root(counts: Floats, knots: Floats, alpha: float) -> Floats:
    """Return ``row_max - tau`` of rows with their maximum once and ``counts[..., b]`` scores ``knots[b]`` below it."""
    power = 1.0 / (alpha - 1.0)
    depths = np.append(knots, 0.0)
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
    """Return mass, slope and count of each row at tau."""
    power = 1.0 / (alpha - 1.0)
    gap = np.maximum(z - tau[..., None], 0.0)
    live = gap > 0.0
    slope = np.sum(np.where(live, np.where(live, gap, 1.0) ** (power - 1.0), 0.0), axis=-1)
    return np.sum(gap**power, axis=-1), slope, np.sum(live, axis=-1).astype(np.float64)


def norm_step(mass: Floats, slope: Floats, alpha: float) -> Floats:
    """Return Newton's step on ``mass ** (alpha - 1)``, the norm of the gaps; it lands at or left of tau.

    Notes
    -----
    Lemma: newton_norm_left
    """
    result: Floats = (mass - mass ** (2.0 - alpha)) / slope
    return result


def active_set_step(mass: Floats, slope: Floats, count: Floats, alpha: float) -> Floats:
    """Return the step that is exact if the support does not change; NaN where it has no root.

    It exists in closed form for alpha 1.5 and 2; elsewhere this is `norm_step`.
    """
    if alpha == 1.5:
        with np.errstate(invalid="ignore"):
            root = np.sqrt(slope * slope - count * (mass - 1.0))
        result: Floats = (mass - 1.0) / (slope + root)
        return result
    return norm_step(mass, slope, alpha)


def safeguarded_step(
    tau: Floats, lo: Floats, hi: Floats, mass: Floats, slope: Floats, count: Floats, tolerance: float, alpha: float
) -> Bracket:
    """Return the next tau and the bracket that the sums at the present one prove.

    Notes
    -----
    A step is only a proposal inside the bracket: Halley's method, for one, can overshoot from the left.
    Lemmas: step_keeps_bracket, newton_norm_left, residual_bound, halley_overshoots
    """
    lo = np.maximum(lo, tau + norm_step(mass, slope, alpha))
    hi = np.minimum(hi, np.where(mass < 1.0, tau, tau + (mass - 1.0)))
    step = tau + active_set_step(mass, slope, count, alpha)
    inside = (lo <= step) & (step <= hi)  # a step that does not exist is NaN, and bisects
    otherwise = np.where(np.abs(mass - 1.0) <= tolerance, tau, 0.5 * (lo + hi))
    return Bracket(lo, hi, np.maximum(np.where(inside, step, otherwise), lo))


def refine(z: Floats, bracket: Bracket, alpha: float = 1.5, *, tolerance: float = 2.0**-18) -> Refined:
    """Return the threshold of each row, refined from a bracket until ``abs(mass - 1) <= tolerance``.

    Notes
    -----
    Lemmas: residual_bound, step_keeps_bracket
    """
    lo, hi, tau = (np.array(part, dtype=np.float64) for part in bracket)
    still_open = np.isfinite(tau)
    residual = np.where(np.isnan(tau), np.nan, 0.0)
    passes = np.zeros(tau.shape, dtype=np.int64)
    while still_open.any():
        rows = still_open
        mass, slope, count = sums(z[rows], tau[rows], alpha)
        step = safeguarded_step(tau[rows], lo[rows], hi[rows], mass, slope, count, tolerance, alpha)
        lo[rows], hi[rows], tau[rows] = step
        residual[rows] = np.abs(mass - 1.0)
        passes[rows] += residual[rows] > tolerance
        still_open = rows & (residual > tolerance)
    return Refined(tau, lo, residual, passes)


def block_mask(z: Floats, bound: Floats, block: int) -> Booleans:
    """Return which blocks of keys reach above ``bound``, shape (..., ceil(n / block)).

    With a bound at or below tau, a block that is False holds no support.  A row whose bound is NaN keeps what it sees.

    Notes
    -----
    Lemmas: block_mask_superset, block_mask_unsound_above
    """
    highest = block_max(np.where(np.isnan(z), np.inf, z), block)
    return (highest > -np.inf) & ~(highest <= bound[..., None])


def gaps(z: Floats, tau: Floats) -> Floats:
    """Return ``max(z - tau, 0)``, 0 where not visible, NaN where visible in a row whose tau is NaN."""
    return np.where(z == -np.inf, 0.0, np.maximum(np.where(z == -np.inf, 0.0, z) - tau[..., None], 0.0))


def probs_and_sensitivity(z: Floats, tau: Floats, alpha: float) -> tuple[Floats, Floats]:
    """Return ``gap ** power`` and, on the support, ``gap ** (power - 1)``.

    Notes
    -----
    Lemma: jacobian_form
    """
    power = 1.0 / (alpha - 1.0)
    gap = gaps(z, tau)
    live = gap != 0.0
    return gap**power, np.where(live, np.where(live, gap, 1.0) ** (power - 1.0), 0.0)


def output(z: Floats, tau: Floats, value: Floats, alpha: float = 1.5) -> Output:
    """Return the output, corrected to first order for the distance of the mass from 1, the centre, and the mass.

    Notes
    -----
    Lemma: first_order_correction
    """
    probs, sensitivity = probs_and_sensitivity(z, tau, alpha)
    mass, slope = probs.sum(axis=-1), sensitivity.sum(axis=-1)
    empty = slope == 0.0
    centre = (sensitivity @ value) / np.where(empty, 1.0, slope)[..., None]
    defect = np.where(empty, 0.0, mass - 1.0)
    return Output(probs @ value - defect[..., None] * centre, centre, mass)


def delta(centre: Floats, d_out: Floats) -> Floats:
    """Return what each row subtracts from ``d_probs``.

    Notes
    -----
    Lemma: delta_is_centre
    """
    result: Floats = np.sum(centre * d_out, axis=-1)
    return result


def score_gradient(z: Floats, tau: Floats, value: Floats, d_out: Floats, delta: Floats, alpha: float = 1.5) -> Floats:
    """Return the gradient of the scores, (..., n_queries, n_keys).

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
    """Return the gradient of the query."""
    result: Floats = scale * (score_gradient(z, tau, value, d_out, delta, alpha) @ key)
    return result


def backward_dkdv(
    z: Floats, tau: Floats, query: Floats, value: Floats, d_out: Floats, delta: Floats, scale: float, alpha: float = 1.5
) -> tuple[Floats, Floats]:
    """Return the gradients of key and value, one query head at a time; grouped heads add up."""
    probs, _ = probs_and_sensitivity(z, tau, alpha)
    d_scores = score_gradient(z, tau, value, d_out, delta, alpha)
    return scale * (np.swapaxes(d_scores, -1, -2) @ query), np.swapaxes(probs, -1, -2) @ d_out
