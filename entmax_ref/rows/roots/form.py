"""In which unknown does a root keep its digits?  theta near alpha 1, the gap at the smallest supported key elsewhere.

A key is known by its ``drop = max(scores) - score``, in the unit of the scores, so that an offset common to a row is
gone before anything else happens. With ``step = alpha - 1`` the root is kept in two forms:

- ``theta = (1 + tau - row_max) / step``, so that ``gap = 1 - step * (theta + drop)``. This is the form for small
  ``step``, where every gap is close to 1; at ``step = 0`` theta is ``logsumexp(scores) - max(scores)``;
- ``lift``, the gap at ``floor``, a drop between the last supported key and the first that is not, mostly that of the
  former: ``gap = lift + step * (floor - drop)``. This is the form for long supports and large ``step``, where gaps are
  small.

A relative error e of ``1 - gap`` becomes an error of the mass of at most ``e * power * (size ** step - 1)``, a relative
error e of the gap one of ``e * power``: so theta is used where ``size ** step < 2``, and either way the factor is at
most ``1.5 * log(size)`` or so.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from entmax_ref.arguments import Booleans, Floats

EDGE = 2.0**-45  # times max(1, step) it is above the bound of a gap's error, up to 2**40 keys
LEAST = 5e-324


class Root(NamedTuple):
    """The root of each row, (m, 1) each, in both forms; ``near`` says that theta is the one to use.

    A key with a gap within ``EDGE * max(1, step)`` of 0 may be on the wrong side of it: `exact_support` decides.
    """

    theta: Floats
    floor: Floats
    lift: Floats
    near: Booleans
    close: Booleans  # a key lies within that of 0


def shortfall(step: float | Floats, depth: Floats) -> Floats:
    """Return ``step * depth = 1 - gap``; 0 at step 0, also for a depth of inf."""
    with np.errstate(invalid="ignore", over="ignore"):
        found = step * depth
    return np.where(step == 0.0, 0.0, found)


def log_probs(step: float | Floats, depth: Floats) -> Floats:
    """Return ``log(1 - step * depth) / step``, which is ``-depth`` at step 0; a very low value off the support."""
    if not isinstance(step, np.ndarray):
        if step == 0.0:
            return -depth
        return np.asarray(np.log1p(-np.minimum(step * depth, 1.0 - 2.0**-53)) / step)
    safe = np.where(step == 0.0, 1.0, step)
    with np.errstate(over="ignore"):
        found = np.log1p(-np.minimum(safe * depth, 1.0 - 2.0**-53)) / safe
    return np.where(step == 0.0, -depth, found)


def power_of_step(gap: Floats, step: float | Floats) -> Floats:
    """Return ``gap ** (1 / step)`` for gaps >= 0, without a power where a product will do."""
    if isinstance(step, np.ndarray):
        return np.power(gap, 1.0 / np.where(step == 0.0, 1.0, step))
    if step == 1.0:
        return gap
    if step == 0.5:
        return gap * gap
    return np.power(gap, 1.0 / step)


def root_by_lift(step: float | Floats, floor: Floats, lift: Floats, close: Booleans) -> Root:
    return Root((1.0 - lift) / step - floor, floor, lift, np.zeros(floor.shape, dtype=np.bool_), close)


def edge_width(step: float | Floats) -> float | Floats:
    """Return how far from 0 a gap tells whether it is positive."""
    return EDGE * np.maximum(1.0, step)


def is_close(drop: Floats, size: NDArray[np.intp], floor: Floats, lift: Floats, step: float | Floats) -> Booleans:
    """Return whether the last of the first ``size`` drops, ``floor``, or the one after it is close to the edge."""
    after = np.take_along_axis(drop, np.minimum(size, drop.shape[1] - 1), axis=-1)
    with np.errstate(invalid="ignore", over="ignore"):  # inf - inf, and 0 * inf at step 0: no key is near the edge
        margin = step * (np.where(size < drop.shape[1], after, np.inf) - floor) - lift
    return np.asarray((lift < edge_width(step)) | (margin < edge_width(step)))


def at_rows(step: float | Floats, rows: NDArray[np.intp]) -> float | Floats:
    """Return the step of some rows."""
    return step[rows] if isinstance(step, np.ndarray) else step


def how_many(which: Booleans) -> NDArray[np.intp]:
    """Return the count by row, (m, 1); of bits, as it is several times faster than of bytes."""
    return np.asarray(np.bitwise_count(np.packbits(which, axis=-1)).sum(axis=-1, dtype=np.intp, keepdims=True))
