"""What is the root of sorted keys for alpha 1.5 and 2, where it has a closed form once the support is known?"""

import numpy as np
from numpy.typing import NDArray

from entmax_ref.arguments import Floats
from entmax_ref.rows.roots.form import EDGE, Root, is_close, root_by_lift


def root_in_closed_form(drop: Floats, count: NDArray[np.intp], step: float) -> Root:
    """Solve for alpha 1.5 and 2, where the root has a closed form once the support is known.

    The k-th key is supported iff the mass at it is below 1. From a key where it is not, a Newton step gives a lower
    bound of tau, and the keys above that bound are fewer.  Lemmas: threshold_unique, newton_norm_left
    """
    size = count[:, None]
    part = drop[:, : int(size.max(initial=1))]
    floor, first, second = _sums_above(part, size, step)
    while np.any(over := (second >= 1.0) & (size > 1)):
        slope = size if step == 1.0 else first
        ahead = (second - (1.0 if step == 1.0 else np.sqrt(second))) / np.where(over, slope, 1.0)
        fewer = np.count_nonzero(part <= floor - (ahead - EDGE) / step, axis=-1)[:, None]
        size = np.where(over, np.maximum(np.minimum(size - 1, fewer), 1), size)
        part = part[:, : int(size.max())]
        floor, first, second = _sums_above(part, size, step)
    # The width of a sum may have changed between the keys of a tie; the support holds all of them.
    size = np.count_nonzero(part <= floor, axis=-1)[:, None]
    rest = 1.0 - second
    if step == 1.0:
        lift = rest / size
    else:
        # size * lift**2 + 2 * first * lift + second = 1, and no coefficient is negative: nothing cancels
        lift = rest / (first + np.sqrt(first * first + size * rest))
    return root_by_lift(step, floor, lift, is_close(drop, size, floor, lift, step))


def _sums_above(drop: Floats, size: NDArray[np.intp], step: float) -> tuple[Floats, Floats, Floats]:
    """Return the drop of the last of ``size`` keys, and the sums of z above it and of their powers: slope and mass."""
    floor = np.take_along_axis(drop, size - 1, axis=-1)
    above = floor - drop
    np.maximum(above, 0.0, out=above)
    above *= step
    first = above.sum(axis=-1, keepdims=True)
    if step == 1.0:
        return floor, first, first
    above *= above
    return floor, first, above.sum(axis=-1, keepdims=True)
