"""What is the root of many keys in any order, for alpha 1.5 and 2?  A search that reads them a few times, unsorted.

What it buys, on 2**20 scores: rows of 4,096 keys and more of which most are supported take half to two thirds of the
time where NumPy sorts with AVX2, three quarters where it has AVX-512; other rows take no longer. Below 2,048 keys a
sort is as fast.
"""

import numpy as np
from numpy.typing import NDArray

from entmax_ref.arguments import Floats
from entmax_ref.rows.roots.form import EDGE, LEAST, Root, edge_width, how_many, root_by_lift

MAX_STEPS = 200  # no drawn row took more than 14; meeting this cap is a bug of ours


def root_of_many(drop: Floats, reach: Floats, step: float) -> Root:
    """Solve for alpha 1.5 and 2 without a sort: rows of many keys, in any order, with a root within ``reach``, (m, 1).

    Where the keys above a point have their root with no other key above it, it is that of the row. So the search goes
    from a point to the root of the keys above it, until those stay the same. That may lead too far up; Newton on the
    norm of the gaps leads back, as it never does itself.  Lemma: newton_norm_left
    """
    at, least, found, left = reach.copy(), np.full(reach.shape, np.inf), reach.copy(), np.zeros(reach.shape)
    size = np.zeros(at.shape, dtype=np.intp)
    closed, done = np.zeros(at.shape, dtype=np.bool_), np.zeros(at.shape, dtype=np.bool_)
    gap = np.empty(drop.shape)
    for _ in range(MAX_STEPS):
        np.subtract(at, drop, out=gap)
        now = how_many(gap > 0.0)
        np.maximum(gap, 0.0, out=gap)
        rest, to_closed, to_newton = _moves(gap, now, step)
        # A point that Newton led to has a mass of 1 or more, so below 1 it is 1 to rounding. A key within rounding of
        # the root may come and go; it is one of those that count as close.
        new = ~done & (np.where(closed, now == size, rest >= 0.0) | (np.abs(to_closed) <= EDGE / 4.0 * at))
        found[new], left[new] = at[new], to_closed[new]
        done |= new
        if done.all():
            return _root_around(drop, found, left, step)
        least = np.minimum(least, at + to_newton)
        size, closed = now, (rest < 0.0) & ~np.isnan(to_closed)
        at = np.where(done, found, np.where(closed, at + to_closed, least))
    raise AssertionError(f"entmax_ref: the search for a support met its cap of {MAX_STEPS} steps; please report it")


def _moves(gap: Floats, size: NDArray[np.intp], step: float) -> tuple[Floats, Floats, Floats]:
    """Return 1 - mass, and how far it is to the root of the keys above, NaN if there is none, and by Newton.

    ``gap`` is in the unit of the scores, and is overwritten.
    """
    first = gap.sum(axis=-1, keepdims=True)
    if step == 1.0:
        rest = 1.0 - first
        return rest, rest / size, rest / size
    gap *= gap
    second = gap.sum(axis=-1, keepdims=True)
    rest, norm = 4.0 - second, np.sqrt(second)
    with np.errstate(invalid="ignore"):
        return rest, rest / (first + np.sqrt(first * first + size * rest)), (2.0 - norm) * norm / first


def _root_around(drop: Floats, at: Floats, left: Floats, step: float) -> Root:
    """Return the root at the drop ``at + left``, with ``left`` a few roundings of it."""
    width = edge_width(step) / step
    close = how_many(drop < at - width) != how_many(drop < at + width)
    floor, lift = at, step * left
    if close.any():  # there the floor has to be a key, for its gap to be positive
        rows = np.flatnonzero(close)
        part, top = drop[rows], at[rows]
        floor[rows] = np.where(part < top, part, -np.inf).max(axis=-1, keepdims=True)
        lift[rows] = np.maximum(step * ((top - floor[rows]) + left[rows]), LEAST)
    return root_by_lift(step, floor, lift, close)
