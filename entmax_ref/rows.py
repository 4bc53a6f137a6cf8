"""Which keys of a row may be supported, and what are their gaps and probabilities, a range of rows at a time?

Rows lie on the last axis. Few of the keys of a long row matter, so those are gathered, and only they are sorted; what
follows from the root is computed for them alone and written where they came from.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from entmax_ref.arguments import Booleans, Floats
from entmax_ref.edge import support_size
from entmax_ref.roots import EDGE, LEAST, Root, log_probs, power_of_step, root_of_support, shortfall, solve

Column = TypeVar("Column", float, float | Floats, Floats, Booleans)

KEYS_PER_CHUNK = 2**17  # 1 MiB an array: what a chunk needs stays in the second-level cache
LOWEST = -np.finfo(np.float64).max


@dataclass(frozen=True)
class Chunk:
    """Some rows, their keys that may be supported, and their root.

    The keys are either all of them, as (m, n) arrays, or those at the flat positions ``index``, as 1-D arrays.
    """

    rows: slice
    shape: tuple[int, int]
    top: Floats  # (m,): max(scores); 0 for a row that is empty or undefined
    empty: Booleans  # (m,): no key is visible
    undefined: Booleans  # (m,): a visible score is NaN or +inf
    step: float | Floats  # alpha - 1, a float or (m, 1)
    root: Root
    drop: Floats  # inf for a hidden key, and for one that only its exact score tells from the support
    index: NDArray[np.intp] | None
    count: NDArray[np.intp]  # (m,): keys of each row in ``index``

    def along(self, column: Column) -> Column:
        """Return a value per row, (m, 1), so that it broadcasts to ``drop``."""
        if self.index is None or not isinstance(column, np.ndarray):
            return column
        return np.repeat(column[:, 0], self.count)

    @property
    def tau(self) -> Floats:
        """The threshold of each row, (m,), in the unit of z."""
        step, root = self.step, self.root
        with np.errstate(over="ignore"):
            row_max = (step * self.top[:, None])[:, 0]
        relative = np.where(root.near, step * root.theta - 1.0, -(step * root.floor + root.lift))[:, 0]
        return np.where(self.undefined, np.nan, np.where(self.empty, np.inf, row_max + relative))

    @property
    def supported(self) -> Booleans:
        """Which of the keys are supported: that is decided, and asking a rounded gap again could undo it."""
        return np.asarray(self.drop <= self.along(self.root.floor))

    def gap(self) -> Floats:
        """Return ``z - tau`` of the keys, positive on the support and exactly 0 elsewhere."""
        near = self.root.near
        if near.all():
            return self._near_gap()
        if not near.any():
            return self._far_gap()
        return np.where(self.along(near), self._near_gap(), self._far_gap())

    def _far_gap(self) -> Floats:
        found = np.subtract(self.along(self.root.floor), self.drop)
        with np.errstate(invalid="ignore"):  # a hidden key beside a row of alpha 1, which is not read
            found *= self.along(self.step)
        found += self.along(self.root.lift)
        np.maximum(found, 0.0, out=found)
        found *= self.supported  # quicker than a where, whose branches no processor can foresee
        return found

    def _near_gap(self) -> Floats:
        found = 1.0 - shortfall(self.along(self.step), self.along(self.root.theta) + self.drop)
        return np.asarray(np.maximum(found, LEAST, out=found) * self.supported)

    def probs(self) -> Floats:
        """Return the probabilities of the keys."""
        near, step = self.root.near, self.along(self.step)
        if not near.any():
            return power_of_step(self._far_gap(), step)
        found = np.exp(log_probs(step, self.along(self.root.theta) + self.drop))
        found *= self.supported
        return found if near.all() else np.where(self.along(near), found, power_of_step(self._far_gap(), step))

    def fill(self, out: Floats | Booleans, values: Floats | Booleans) -> None:
        """Write the values of the keys into the rows of ``out``, (.., n), which is 0 so far."""
        if self.index is None:
            out[self.rows] = values
        else:
            out[self.rows].reshape(-1)[self.index] = values


def chunks(scores: Floats, alpha: float | Floats, mask: Booleans | None) -> Iterator[Chunk]:
    """Solve the rows of ``scores``, (m, n), with alpha a float or (m,), a range of rows at a time, in order.

    A score that is not visible is dropped before any arithmetic, so its NaN or inf reaches nothing.
    """
    m, n = scores.shape
    length = max(1, KEYS_PER_CHUNK // n)
    for start in range(0, m, length):
        rows = slice(start, min(start + length, m))
        step = alpha[rows, None] - 1.0 if isinstance(alpha, np.ndarray) else alpha - 1.0
        shown = scores[rows] if mask is None else np.where(mask[rows], scores[rows], -np.inf)
        yield _solved(rows, shown, step)


def _solved(rows: slice, shown: Floats, step: float | Floats) -> Chunk:
    """Find the keys of some rows that may be supported, and solve for the root."""
    m, n = shown.shape
    top = np.max(shown, axis=-1)
    empty, undefined = top == -np.inf, ~(top < np.inf)  # NaN passes through the maximum and fails every comparison
    top = np.where(empty | undefined, 0.0, top)
    # mass(row_max - 1) >= 1, so nothing at or below that depth is supported. Rounding is monotone, so comparing with
    # the rounded end loses no key.  Lemmas: threshold_bracket, candidate_superset
    with np.errstate(divide="ignore", over="ignore"):
        reach = np.nextafter(1.0 / np.asarray(step), np.inf)
        cut = np.maximum(top[:, None] - reach, LOWEST)
    cut[undefined] = np.nan
    keep = shown >= cut
    count = np.count_nonzero(keep, axis=-1)
    widest = int(count.max(initial=1))
    bounded = np.any(np.asarray(step) == 0.0)  # only there can a visible key lie so low that its drop overflows
    with np.errstate(over="ignore", invalid="ignore"):
        if 2 * widest > n:
            index = None
            drop = top[:, None] - shown
            if bounded:
                drop = np.where(keep, np.minimum(drop, -LOWEST), np.inf)
            if undefined.any():
                drop[undefined] = np.inf
            padded = np.sort(drop, axis=-1)[:, :widest]
        else:
            index = np.flatnonzero(keep)
            drop = np.repeat(top, count) - shown.reshape(-1)[index]
            if bounded:
                drop = np.minimum(drop, -LOWEST)
            padded = _sorted_by_row(drop, count)
    hollow = empty | undefined
    if hollow.any():  # solved as rows of one key; nothing reads the answer
        padded[hollow, 0] = 0.0
    root = solve(padded, np.maximum(count, 1), step)
    if hollow.any():
        root.floor[hollow] = -1.0  # no key is supported
    least = _least_score(shown, top, step, root)
    if least is not None:
        if index is None:
            drop[shown < least] = np.inf
        else:
            drop[shown.reshape(-1)[index] < np.repeat(least[:, 0], count)] = np.inf
    return Chunk(rows, (m, n), top, empty, undefined, step, root, drop, index, count)


def _sorted_by_row(values: Floats, count: NDArray[np.intp]) -> Floats:
    """Return the values, ``count`` of them for each row in turn, ascending, filled up with inf."""
    widest = int(count.max(initial=1))
    found = np.full((count.size, widest), np.inf)
    found[np.arange(widest) < count[:, None]] = values
    found.sort(axis=-1)
    return found


def _least_score(shown: Floats, top: Floats, step: float | Floats, root: Root) -> Floats | None:
    """Decide the keys within rounding of tau, and correct the root in place where that changes the support.

    Returns the smallest supported score of the rows that changed, -inf for the others, (m, 1); None if no row did.
    """
    with np.errstate(invalid="ignore", over="ignore"):  # inf - inf, and 0 * inf at step 0: no key is near the edge
        margin = step * (root.beyond - root.floor) - root.lift
    slack = EDGE * np.maximum(1.0, step)
    rows = np.flatnonzero((root.lift < slack) | (margin < slack))
    if rows.size == 0:
        return None
    keys, top, step = shown[rows], top[rows, None], _at(step, rows)
    floor, lift, slack = root.floor[rows], root.lift[rows], EDGE * np.maximum(1.0, step)
    with np.errstate(over="ignore"):
        drop = top - keys
    keep = drop <= floor + (lift + slack) / step
    inside = np.count_nonzero(drop < floor + (lift - slack) / step, axis=-1)
    count = np.count_nonzero(keep, axis=-1)
    scores = -_sorted_by_row(-keys[keep], count)
    size = support_size(scores, np.maximum(inside, 1), count, step)[:, None]
    changed = size[:, 0] != np.count_nonzero(drop <= floor, axis=-1)
    if not changed.any():
        return None
    rows, scores, top, size, step = rows[changed], scores[changed], top[changed], size[changed], _at(step, changed)
    _correct(root, rows, top - scores, size, step)
    least = np.full(root.floor.shape, -np.inf)
    least[rows] = np.take_along_axis(scores, size - 1, axis=-1)
    return least


def _correct(root: Root, rows: NDArray[np.intp], drop: Floats, size: NDArray[np.intp], step: float | Floats) -> None:
    """Make the first ``size`` of the ascending drops the support of those rows."""
    floor = np.take_along_axis(drop, size - 1, axis=-1)
    near = root.near[rows, 0]  # theta does not feel such a key
    root.floor[rows] = floor
    root.lift[rows] = np.maximum(1.0 - shortfall(step, root.theta[rows] + floor), LEAST)
    far = np.flatnonzero(~near)
    if far.size:
        solved = root_of_support(drop[far], size[far], _at(step, far))
        for whole, part in zip(root, solved, strict=True):
            whole[rows[far]] = part


def _at(step: float | Floats, rows: NDArray[np.intp] | Booleans) -> float | Floats:
    return step[rows] if isinstance(step, np.ndarray) else step
