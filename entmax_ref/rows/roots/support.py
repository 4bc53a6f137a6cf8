"""What is the root of sorted keys for alpha above 2?  The support is bisected for, then Newton runs on it."""

import numpy as np
from numpy.typing import NDArray

from entmax_ref.arguments import Booleans, Floats
from entmax_ref.rows.roots.form import Root, is_close, power_of_step, root_by_lift
from entmax_ref.rows.roots.newton import lift_by_newton

FIRST_WIDTH = 32  # most supports are no larger, so most rows are solved on a prefix of this width


def root_by_support(drop: Floats, count: NDArray[np.intp], step: float | Floats) -> Root:
    """Solve for alpha above 2: bisect for the support, then Newton."""
    return root_of_support(drop, _support_size(drop, count, step)[:, None], step)


def root_of_support(drop: Floats, size: NDArray[np.intp], step: float | Floats) -> Root:
    """Solve for the lift of rows of ascending drops whose first ``size`` keys, (m, 1), are the support."""
    width = int(size.max())
    floor = np.take_along_axis(drop, size - 1, axis=-1)
    above = step * np.maximum(floor - drop[:, :width], 0.0)
    # Each of the size terms is at least lift ** power, and the largest gap, lift + above[0], is at most 1; the last
    # term keeps the start right of the root where above[0] rounded up.
    most = 1.0 - above[:, :1] + 2.0**-50
    if np.all(np.asarray(step) > 1.0):
        start = np.minimum(1.0 / size, np.power(most, 1.0 / step))
    else:
        start = np.minimum(np.power(1.0 / size, step), most)
    lift = lift_by_newton(above, np.arange(width) < size, start, step)
    return root_by_lift(step, floor, lift, is_close(drop, size, floor, lift, step))


def _support_size(drop: Floats, count: NDArray[np.intp], step: float | Floats) -> NDArray[np.intp]:
    """Return how many of the first ``count`` keys are supported.

    The mass at the k-th key does not decrease with k, so the test mass < 1 holds up to one place and fails after it.
    Equal keys give bitwise equal masses: a tie is never split.  Lemma: threshold_unique
    """

    def supported(place: NDArray[np.intp]) -> Booleans:
        value = np.take_along_axis(drop, place[:, None] - 1, axis=-1)
        mass = power_of_step(step * np.maximum(value - drop, 0.0), step).sum(axis=-1)
        return np.asarray((mass < 1.0) | (place <= 1))

    whole, width = drop, FIRST_WIDTH
    while width < whole.shape[1]:
        drop = whole[:, :width]
        if not np.any((count > width) & supported(np.minimum(count, width))):
            break
        width *= 4
    width = min(width, whole.shape[1])
    drop = whole[:, :width]
    fewest, most = np.ones_like(count), np.minimum(count, width)
    middle = most  # a row that is supported throughout is done at once
    while np.any(fewest < most):
        holds = supported(middle)
        fewest, most = np.where(holds, middle, fewest), np.where(holds, most, middle - 1)
        middle = (fewest + most + 1) // 2
    return fewest
