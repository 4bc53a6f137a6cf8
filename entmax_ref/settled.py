"""What becomes of the rows that have a key within rounding of tau?

The solvers work on rounded drops, and may put such a key on the wrong side; and two scores may share one drop, one of
them supported and one not. `entmax_ref.edge` decides; here the root and the drops are made to agree with it.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from entmax_ref.arguments import Booleans, Floats
from entmax_ref.edge import support_size
from entmax_ref.roots import EDGE, LEAST, Root, at_rows, root_of_support, shortfall


class Settled(NamedTuple):
    """The rows whose support changed, the others as they were; (m,) each."""

    changed: Booleans
    least: Floats  # the smallest supported score
    origin: Floats  # the score that drops are counted from

    def recount(self, drop: Floats, scores: Floats, count: NDArray[np.intp] | None) -> None:
        """Write the drops of the rows that changed, inf off their support.

        ``drop`` and ``scores`` are (m, n), or 1-D with ``count`` of them for each row in turn.
        """
        if count is None:
            which, per_row = self.changed, np.ones(np.count_nonzero(self.changed), dtype=np.intp)
        else:
            which, per_row = np.repeat(self.changed, count), count[self.changed]
        shape = (-1, 1) if count is None else (-1,)
        least, origin = (np.repeat(of[self.changed], per_row).reshape(shape) for of in (self.least, self.origin))
        own = scores[which]
        drop[which] = np.where(own >= least, origin - own, np.inf)


def settle(shown: Floats, top: Floats, step: float | Floats, root: Root) -> Settled | None:
    """Decide the keys within rounding of tau exactly, and correct the root in place where that changes the support.

    ``shown`` is (m, n) with -inf for hidden keys, ``top`` its maxima; rows without a key within rounding of tau pay a
    comparison. Returns None if no support changed.
    """
    with np.errstate(invalid="ignore", over="ignore"):  # inf - inf, and 0 * inf at step 0: no key is near the edge
        margin = step * (root.beyond - root.floor) - root.lift
    slack = _slack(step)
    rows = np.flatnonzero((root.lift < slack) | (margin < slack))
    if rows.size == 0:
        return None
    scores, size, wrong = _decided(shown[rows], top[rows, None], root.floor[rows], root.lift[rows], at_rows(step, rows))
    if not wrong.any():
        return None
    rows, scores, size = rows[wrong], scores[wrong], size[wrong]
    found = Settled(np.zeros(top.shape, dtype=np.bool_), np.full(top.shape, -np.inf), top.copy())
    found.changed[rows] = True
    found.least[rows] = np.take_along_axis(scores, size - 1, axis=-1)[:, 0]
    near = root.near[rows, 0]
    _correct_theta_form(root, rows[near], top, found.least, step)
    _correct_lift_form(root, rows[~near], scores[~near], size[~near], top, found, step)
    return found


def sorted_by_row(values: Floats, count: NDArray[np.intp]) -> Floats:
    """Return the values, ``count`` of them for each row in turn, ascending, filled up with inf."""
    widest = int(count.max(initial=1))
    found = np.full((count.size, widest), np.inf)
    found[np.arange(widest) < count[:, None]] = values
    found.sort(axis=-1)
    return found


def _slack(step: float | Floats) -> float | Floats:
    return EDGE * np.maximum(1.0, step)


def _decided(
    keys: Floats, top: Floats, floor: Floats, lift: Floats, step: float | Floats
) -> tuple[Floats, NDArray[np.intp], Booleans]:
    """Return the scores that may be supported, descending, how many are, (m, 1), and whether the floor has it wrong."""
    with np.errstate(over="ignore"):
        drop = top - keys
    keep = drop <= floor + (lift + _slack(step)) / step
    inside = np.count_nonzero(drop < floor + (lift - _slack(step)) / step, axis=-1)
    count = np.count_nonzero(keep, axis=-1)
    scores = -sorted_by_row(-keys[keep], count)
    size = support_size(scores, np.maximum(inside, 1), count, step)
    return scores, size[:, None], size != np.count_nonzero(drop <= floor, axis=-1)


def _correct_theta_form(root: Root, rows: NDArray[np.intp], top: Floats, least: Floats, step: float | Floats) -> None:
    """Correct floor and lift; theta does not feel a key at the edge, whose power is above 1."""
    root.floor[rows] = (top - least)[rows, None]
    depth = root.theta[rows] + root.floor[rows]
    root.lift[rows] = np.maximum(1.0 - shortfall(at_rows(step, rows), depth), LEAST)


def _correct_lift_form(
    root: Root,
    rows: NDArray[np.intp],
    scores: Floats,
    size: NDArray[np.intp],
    top: Floats,
    found: Settled,
    step: float | Floats,
) -> None:
    """Solve again with the support known, and count drops from its smallest key.

    A gap at the edge is smaller than what the rounding of a drop from the maximum takes.
    """
    if rows.size == 0:
        return
    found.origin[rows] = found.least[rows]
    solved = root_of_support(found.least[rows, None] - scores, size, at_rows(step, rows))
    for whole, part in zip(root, solved, strict=True):
        whole[rows] = part
    root.theta[rows] -= (top - found.least)[rows, None]
