"""Which keys of a row may be supported, and what are their gaps and probabilities, a range of rows at a time?

Rows lie on the last axis. Few of the keys of a long row matter, so those are gathered, and only they are sorted; what
follows from the root is computed for them alone and written where they came from.

What it buys, on 2**20 scores of six kinds: gathering makes rows of 512 keys and more up to seven times as fast, and
short rows no slower; the maxima of groups make rows of 4,096 keys 0.8 to 4 times as fast, and 0.8 to 5 at 32,768.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from entmax_ref.arguments import Booleans, Floats
from entmax_ref.rows.exact_support.settled import by_row, settle
from entmax_ref.rows.roots import solve
from entmax_ref.rows.roots.form import EDGE, LEAST, Root, how_many, log_probs, power_of_step, shortfall
from entmax_ref.rows.roots.unsorted import root_of_many

Column = TypeVar("Column", float, float | Floats, Floats, Booleans)

KEYS_PER_CHUNK = 2**17  # 1 MiB an array: what a chunk needs stays in the second-level cache
LONG = 2048  # keys of a row from which on it pays to look at the maxima of groups first, and not to sort
GROUP = 16
LOWEST = -np.finfo(np.float64).max


@dataclass(frozen=True)
class Chunk:
    """Some rows, their keys that may be supported, and their root.

    The keys are either all of them, as (m, n) arrays, or those at the flat positions ``index``, as 1-D arrays.
    """

    rows: slice
    shape: tuple[int, int]
    origin: (
        Floats  # (m,): the score that drops are counted from, mostly max(scores); 0 if the row is empty or undefined
    )
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
            origin = (step * self.origin[:, None])[:, 0]
        relative = np.where(root.near, step * root.theta - 1.0, -(step * root.floor + root.lift))[:, 0]
        return np.where(self.undefined, np.nan, np.where(self.empty, np.inf, origin + relative))

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
        return np.maximum(found, 0.0, out=found)  # keys off the support are below 0 by more than rounding, or at -inf

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
    peaks = _peaks(shown) if n >= LONG else shown
    top = np.max(peaks, axis=-1)
    empty, undefined = top == -np.inf, ~(top < np.inf)  # NaN passes through the maximum and fails every comparison
    top = np.where(empty | undefined, 0.0, top)
    # mass(row_max - 1) >= 1, so nothing at or below that depth is supported. Rounding is monotone, so comparing with
    # the rounded end loses no key.  Lemmas: threshold_bracket, candidate_superset
    with np.errstate(divide="ignore", over="ignore"):
        reach = np.nextafter(1.0 / np.asarray(step), np.inf) + np.zeros((m, 1))
        if n >= LONG and 4 * np.count_nonzero(peaks >= top[:, None] - reach) > peaks.size:
            reach = np.minimum(reach, _reach(peaks, top, step))
        cut = np.maximum(top[:, None] - reach, LOWEST)
    cut[undefined] = np.nan
    keep = shown >= cut
    count = how_many(keep)[:, 0]
    hollow = empty | undefined
    drop, index = _dropped(shown, top, step, keep, count, undefined)
    table = drop if index is None else by_row(drop, count)
    table[hollow, 0] = 0.0  # solved as rows of one key; nothing reads the answer
    if not isinstance(step, np.ndarray) and step in (0.5, 1.0) and table.shape[1] >= LONG:
        root = root_of_many(table, reach, step)
    else:
        root = solve(np.sort(table, axis=-1), np.maximum(count, 1), step)
    if hollow.any():
        root.floor[hollow] = -1.0  # no key is supported
        drop = np.where(hollow[:, None], np.inf, drop) if index is None else drop
    settled = settle(shown, top, step, root)
    if settled is not None:
        settled.recount(drop, shown if index is None else shown.reshape(-1)[index], None if index is None else count)
        top[settled.rows] = settled.origin
    return Chunk(rows, (m, n), top, empty, undefined, step, root, drop, index, count)


def _dropped(
    shown: Floats,
    top: Floats,
    step: float | Floats,
    keep: Booleans,
    count: NDArray[np.intp],
    undefined: Booleans,
) -> tuple[Floats, NDArray[np.intp] | None]:
    """Return the drops of the keys that are kept and their places, or of all of them if those are not few."""
    bounded = np.any(np.asarray(step) == 0.0)  # only there can a visible key lie so low that its drop overflows
    with np.errstate(over="ignore", invalid="ignore"):
        if 2 * int(count.max(initial=1)) <= shown.shape[1]:
            index = np.flatnonzero(keep)
            drop = np.repeat(top, count) - shown.reshape(-1)[index]
            return (np.minimum(drop, -LOWEST) if bounded else drop), index
        drop = top[:, None] - shown
        if bounded:
            drop = np.where(keep, np.minimum(drop, -LOWEST), np.inf)
        if undefined.any():
            drop[undefined] = np.inf
        return drop, None


def _peaks(shown: Floats) -> Floats:
    """Return the maxima of groups of keys, which cover each row: few keys, and yet most of the large ones."""
    m, n = shown.shape
    width = n // GROUP
    peaks: Floats = shown[:, : GROUP * width].reshape(m, GROUP, width).max(axis=1)
    over = n - GROUP * width
    np.maximum(peaks[:, :over], shown[:, GROUP * width :], out=peaks[:, :over])
    return peaks


def _reach(peaks: Floats, top: Floats, step: float | Floats) -> Floats:
    """Return a drop beyond which no key is supported nor within rounding of it, inf at alpha 1.

    The tau of some keys is at most that of all.  Lemma: threshold_subset
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        drop = np.maximum(top[:, None] - peaks, 0.0)  # not of +inf
        drop[np.isnan(drop)] = np.inf
        drop.sort(axis=-1)
        drop[:, 0] = 0.0  # also of a row without a key, or an undefined one, of which nothing is read
        drop = np.minimum(drop, -LOWEST) if np.any(np.asarray(step) == 0.0) else drop
        root = solve(drop, np.count_nonzero(drop < np.inf, axis=-1), step)
        slack = 4.0 * EDGE * np.maximum(1.0, step)
        return np.asarray(
            np.where(root.near, (1.0 + slack) / step - root.theta, root.floor + (root.lift + slack) / step)
        )
