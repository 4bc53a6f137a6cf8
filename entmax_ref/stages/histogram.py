"""Between which thresholds does a histogram of the scores put tau?"""

from typing import NamedTuple

import numpy as np

from entmax_ref.arguments import Floats

BINS = 16


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
        highest - histogram_root(np.maximum(counts, 0.0), knots, alpha) for knots in (far, near, 0.5 * (far + near))
    )
    special = np.where(highest == -np.inf, np.inf, np.nan)
    lo = np.where(ordinary, np.maximum(lo, highest - 1.0), special)
    hi = np.where(ordinary, hi, special)
    return Bracket(lo, hi, np.where(ordinary, np.clip(tau, lo, hi), special))


def _row_max(z: Floats) -> Floats:
    """Return the maximum of each row, ``+inf`` where it holds NaN, ``-inf`` where it has no visible key."""
    result: Floats = np.max(np.where(np.isnan(z), np.inf, z), axis=-1, initial=-np.inf)
    return result


def histogram_root(counts: Floats, knots: Floats, alpha: float) -> Floats:
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
