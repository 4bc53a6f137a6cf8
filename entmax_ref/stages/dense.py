"""What does the one pass over all keys leave?"""

from typing import NamedTuple

import numpy as np

from entmax_ref.arguments import Booleans, Floats
from entmax_ref.stages.blocks import block_max
from entmax_ref.stages.histogram import histogram_root

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
        What the pass found of each row.

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
    below = histogram_root(np.maximum(np.stack(counts, axis=-1), 0.0), knots, alpha)
    special = np.where(highest == -np.inf, np.inf, np.nan)
    return Dense(highest, np.where(ordinary, highest - below, special), candidates)
