"""What becomes of the rows that have a key within rounding of tau?

The solvers work on rounded drops, and may put such a key on the wrong side; and two scores may share one drop, one of
them supported and one not. `edge` decides; here the root and the drops are made to agree with it.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from entmax_ref.arguments import Booleans, Floats
from entmax_ref.rows.exact_support.edge import support_size
from entmax_ref.rows.roots.form import LEAST, Root, at_rows, edge_width, how_many, shortfall
from entmax_ref.rows.roots.support import root_of_support


class Settled(NamedTuple):
    """The rows that have such a key, (k,) each."""

    rows: NDArray[np.intp]
    least: Floats  # the smallest supported score
    origin: Floats  # the score that drops are counted from

    def recount(self, drop: Floats, scores: Floats, count: NDArray[np.intp] | None) -> None:
        """Write the drops of those rows, inf off their support.

        ``drop`` and ``scores`` are (m, n), or 1-D with ``count`` of them for each row in turn.
        """
        if count is None:
            own = scores[self.rows]
            drop[self.rows] = np.where(own >= self.least[:, None], self.origin[:, None] - own, np.inf)
            return
        which = np.zeros(count.shape, dtype=np.bool_)
        which[self.rows] = True
        place, count = np.repeat(which, count), count[self.rows]
        own = scores[place]
        drop[place] = np.where(own >= np.repeat(self.least, count), np.repeat(self.origin, count) - own, np.inf)


def settle(shown: Floats, top: Floats, step: float | Floats, root: Root) -> Settled | None:
    """Decide the keys within rounding of tau exactly, and correct the root in place where that changes the support.

    ``shown`` is (m, n) with -inf for hidden keys, ``top`` its maxima, (m,). Returns None if there is no such key.
    """
    rows = np.flatnonzero(root.close)
    if rows.size == 0:
        return None
    peak, step = top[rows, None], at_rows(step, rows)
    scores, size, wrong = _decided(shown[rows], peak, root.floor[rows], root.lift[rows], step)
    least = np.take_along_axis(scores, size - 1, axis=-1)
    origin, near = peak.copy(), root.near[rows, 0]
    by_theta = np.flatnonzero(wrong & near)
    if by_theta.size:  # theta does not feel a key at the edge, whose power is above 1
        own = rows[by_theta]
        root.floor[own] = (peak - least)[by_theta]
        depth = root.theta[own] + root.floor[own]
        root.lift[own] = np.maximum(1.0 - shortfall(at_rows(step, by_theta), depth), LEAST)
    by_lift = np.flatnonzero(wrong & ~near)
    if by_lift.size:  # the gap of such a key is smaller than what the rounding of a drop from the maximum takes
        own, origin[by_lift] = rows[by_lift], least[by_lift]
        solved = root_of_support(least[by_lift] - scores[by_lift], size[by_lift], at_rows(step, by_lift))
        for whole, part in zip(root, solved, strict=True):
            whole[own] = part
        root.theta[own] -= (peak - least)[by_lift]
    return Settled(rows, least[:, 0], origin[:, 0])


def by_row(values: Floats, count: NDArray[np.intp]) -> Floats:
    """Return the values, ``count`` of them for each row in turn, filled up with inf."""
    widest = int(count.max(initial=1))
    found = np.full((count.size, widest), np.inf)
    found[np.arange(widest) < count[:, None]] = values
    return found


def _decided(
    keys: Floats, top: Floats, floor: Floats, lift: Floats, step: float | Floats
) -> tuple[Floats, NDArray[np.intp], Booleans]:
    """Return the scores that may be supported, descending, how many are, (m, 1), and whether the floor has it wrong."""
    with np.errstate(over="ignore"):
        drop = top - keys
    keep = drop <= floor + (lift + edge_width(step)) / step
    inside = how_many(drop < floor + (lift - edge_width(step)) / step)[:, 0]
    count = how_many(keep)[:, 0]
    scores = -np.sort(by_row(-keys[keep], count), axis=-1)
    size = support_size(scores, np.maximum(inside, 1), count, step)
    return scores, size[:, None], size != how_many(drop <= floor)[:, 0]
