"""Between which numbers do tau and the probabilities lie for alpha 2?  Exactly, in integers over a power of two."""

import contextlib
import math
from typing import Any

import numpy as np

from entmax_ref.arguments import Floats
from entmax_ref.certify.found import Found
from entmax_ref.certify.split import split_ratio


class Rationals:
    """Solves rows for alpha 2 in integers."""

    def precision(self) -> Any:
        """Return a context in which to solve: none is needed."""
        return contextlib.nullcontext()

    def solve(self, row: Floats, start: float, place: int, found: Found) -> None:
        """Write what is proven of one row; ``start`` is not needed."""
        top = float(row.max())
        # A key 1 or more below the maximum has no support; the difference may round up to -1, not past it.
        with np.errstate(over="ignore"):
            near = np.flatnonzero(row - top >= -1.0).tolist()
        ratios = [row.item(key).as_integer_ratio() for key in near]
        unit = max(denominator for _, denominator in ratios)  # powers of two: the largest is a multiple of all
        values = [numerator * (unit // denominator) for numerator, denominator in ratios]
        total, size = 0, 0
        for value in sorted(values, reverse=True):
            if unit + (size + 1) * value <= total + value:
                break
            total, size = total + value, size + 1
        above, below = total - unit, size * unit  # tau
        found.tau[place] = split_ratio(above, below)
        found.out_of_support[place] = True
        for key, value in zip(near, values, strict=True):
            if size * value > above:
                found.probs[place, key] = split_ratio(size * value - above, below)
                found.in_support[place, key], found.out_of_support[place, key] = True, False
        if found.guess is not None:
            self._judge(float(found.guess[place]), above, below, place, found)

    @staticmethod
    def _judge(guess: float, above: int, below: int, place: int, found: Found) -> None:
        """Compare a tau that was given with ``above / below``."""
        if not math.isfinite(guess):
            found.error[place] = guess, 0.0, 0.0
            found.is_lower[place], found.is_upper[place] = guess == -math.inf, guess == math.inf
            return
        numerator, denominator = guess.as_integer_ratio()
        excess = numerator * below - above * denominator
        found.error[place] = split_ratio(excess, denominator * below)
        found.is_lower[place], found.is_upper[place] = excess <= 0, excess >= 0
