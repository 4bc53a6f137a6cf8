"""How does a number keep more digits than a float64?  As a head and a rest, off by at most a radius."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from entmax_ref.arguments import Floats


class Split(NamedTuple):
    """A real number as head + rest, off by at most radius."""

    head: float
    rest: float
    radius: float


def split_ratio(numerator: int, denominator: int) -> Split:
    """Return a rational number as float64 numbers; Python rounds the quotient of two integers correctly."""
    try:
        head = numerator / denominator
    except OverflowError:
        return Split(math.copysign(math.inf, numerator), 0.0, math.inf)
    above, below = head.as_integer_ratio()
    left, unit = numerator * below - above * denominator, denominator * below
    rest = left / unit
    above, below = rest.as_integer_ratio()
    is_exact = left * below == above * unit
    return Split(head, rest, 0.0 if is_exact else math.nextafter(abs(rest) * 2.0**-53, math.inf))


def outward(parts: Floats) -> tuple[Floats, Floats]:
    """Return float64 bounds of numbers given as (..., 3): head, rest, radius."""
    head, rest, radius = (parts[..., part] for part in range(3))
    with np.errstate(invalid="ignore", over="ignore"):
        below, above = rest - radius, rest + radius
        # Each sum rounds to nearest, so the next number beyond is a bound; an overflowed head has the largest below it.
        below = np.where(radius > 0.0, np.nextafter(below, -np.inf), below)
        above = np.where(radius > 0.0, np.nextafter(above, np.inf), above)
        lo = np.where(below >= 0.0, head, np.nextafter(head + below, -np.inf))
        hi = np.where(above <= 0.0, head, np.nextafter(head + above, np.inf))
    large = np.finfo(np.float64).max
    overflowed = np.isinf(head) & (radius > 0.0)
    lo = np.where(overflowed, np.where(head > 0.0, large, -np.inf), lo)
    hi = np.where(overflowed, np.where(head > 0.0, np.inf, -large), hi)
    return lo, hi


def distance_to(found: Floats, head: Floats, rest: Floats, radius: Floats) -> tuple[Floats, Floats]:
    """Return bounds of ``abs(found - exact)``.

    The difference of two float64 numbers is again the sum of two, exactly, and every rounding after that is below
    2 ** -50 of the result.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        difference = found - head
        back = difference - found
        error = (found - (difference - back)) - (head + back)
        distance = np.abs(difference + (error - rest))
        distance = np.where((found == head) & np.isinf(head) & (radius == 0.0), 0.0, distance)
        low: Floats = np.maximum(distance * (1.0 - 2.0**-50) - radius * (1.0 + 2.0**-50), 0.0)
        high: NDArray[np.float64] = distance * (1.0 + 2.0**-50) + radius * (1.0 + 2.0**-50)
    return low, high
