"""Between which numbers do tau and the probabilities lie for any alpha?  By ball arithmetic, with its errors."""

import importlib
import math
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from entmax_ref.arguments import Floats
from entmax_ref.certify.found import Found
from entmax_ref.certify.split import Split

# The bracket of row_max - tau ends within 2 ** -BITS of its own size, and closer for alpha near 1.
BITS = 90

# Newton takes two or three steps; bisection, should it be needed all the way, takes one a bit.
MAX_STEPS = 400

# Enough for the exact difference of any two float64 numbers.
MOST_BITS = 2200


class Key(NamedTuple):
    """What is proven of a key."""

    prob: Split
    inside: bool
    outside: bool


class Balls:
    """Solves rows for one alpha in ball arithmetic."""

    def __init__(self, alpha: float) -> None:
        try:
            self.flint: Any = importlib.import_module("flint")
        except ImportError as error:
            raise ImportError(
                "certify: ball arithmetic needs python-flint, which is not installed. Install the extra: "
                "pip install 'adasplash2[certify]'; rationals (alpha=2) work without it."
            ) from error
        self.ball: Any = self.flint.arb
        sharpness = max(0, math.ceil(-math.log2(alpha - 1.0)))  # bits that the power 1 / (alpha - 1) costs
        self.bits = BITS + 38 + sharpness
        with self.precision():
            self.order = self.ball(alpha) - 1
            self.power = 1 / self.order
            self.width = self.ball((1, -BITS - sharpness))
        self.alpha = alpha

    def precision(self) -> Any:
        """Return a context in which to solve."""
        return self.flint.ctx.workprec(self.bits)

    def solve(self, row: Floats, start: float, place: int, found: Found) -> None:
        """Write what is proven of one row."""
        top = float(row.max())
        with np.errstate(over="ignore"):
            drops = (self.alpha - 1.0) * (top - row)  # in float64, to sort out what is surely far from tau
        peak = self.order * top
        guess = None if found.guess is None else float(found.guess[place])
        bracket = self._bracket_around(guess, peak, row, drops, top)
        # Keys well below the guess are left out, and the root of the others is checked to lie above them.
        cut = min(1.0, start * (1.0 + 2.0**-20)) if start > 0.0 else 1.0
        near = np.flatnonzero(drops <= cut * (1.0 + 2.0**-40))
        root = self._root(row[near].tolist(), top, start, bracket)
        rest = drops[drops > cut * (1.0 + 2.0**-40)]
        if rest.size and not root < float(rest.min()) * (1.0 - 2.0**-40):
            near = np.flatnonzero(drops <= 1.0 + 2.0**-40)
            root = self._root(row[near].tolist(), top, start, bracket)

        found.tau[place] = self._split(peak - root)
        values: list[float] = row[near].tolist()
        keys = self._keys(Counter(values), root, top)
        found.probs[place, near] = [keys[score].prob for score in values]
        found.in_support[place, near] = [keys[score].inside for score in values]
        found.out_of_support[place] = True
        found.out_of_support[place, near] = [keys[score].outside for score in values]
        if guess is not None:
            self._judge(guess, peak, root, place, found)

    def _keys(self, counts: Counter[float], root: Any, top: float) -> dict[float, Key]:
        """Return what is proven of the keys, by score; ``counts`` says how many have it.  Lemma: threshold_unique"""
        gaps = {score: root - self._drop(score, top) for score in counts}
        probs = {score: self._probability(gap) for score, gap in gaps.items()}
        inside = {score: bool(gap > 0) for score, gap in gaps.items()}
        outside = {score: bool(gap <= 0) for score, gap in gaps.items()}
        unsure = [score for score in counts if not inside[score] and not outside[score]]
        for edge in unsure:
            inside[edge], outside[edge] = self._decide(edge, counts)
            if outside[edge]:
                probs[edge] = self.ball(0)
        if self.alpha > 2.0 and len(unsure) <= 1:
            # The gap of the smallest key says little where its power has an infinite slope; what the others leave does.
            least = unsure[0] if unsure else min(score for score in counts if inside[score])
            if not outside[least]:
                others = sum((probs[score] * counts[score] for score in counts if score != least), self.ball(0))
                left = ((1 - others) / counts[least]).nonnegative_part()
                probs[least] = probs[least] if probs[least].rad() < left.rad() else left
        return {score: Key(self._split(probs[score]), inside[score], outside[score]) for score in counts}

    def _decide(self, edge: float, counts: Counter[float]) -> tuple[bool, bool]:
        """Return whether a key is proven inside, and outside: z > tau if and only if the mass at z is below 1.

        The key itself adds nothing to that mass. More bits are tried where the first do not tell.
        """
        for bits in (self.bits, 4 * self.bits, MOST_BITS):
            with self.flint.ctx.workprec(bits):
                power = 1 / self.order
                mass = self.ball(0)
                for score, count in counts.items():
                    if score > edge:
                        mass += (self.order * (self.ball(score) - edge)) ** power * count
                if mass < 1 or mass >= 1:
                    return bool(mass < 1), bool(mass >= 1)
        return False, False

    def _drop(self, score: float, top: float) -> Any:
        """Return row_max - z of a key."""
        return self.order * (self.ball(top) - score)

    def _probability(self, gap: Any) -> Any:
        """Return ``max(gap, 0) ** power``."""
        if gap > 0:
            return gap**self.power
        if gap <= 0:
            return self.ball(0)
        return self.ball(0).union(gap.upper() ** self.power)

    def _mass(self, x: Any, drops: Iterable[tuple[Any, int]]) -> tuple[Any, Any]:
        """Return mass and slope at ``row_max - x``."""
        mass, slope = self.ball(0), self.ball(0)
        for drop, count in drops:
            gap = x - drop
            term = self._probability(gap) * count
            mass += term
            if gap > 0:
                slope += term / gap
        return mass, slope

    def _around_root(self, x: Any, mass: Any) -> tuple[Any, Any]:
        """Return exact bounds of row_max - tau, given the mass at ``row_max - x``, x exact.  Lemma: residual_bound"""
        # Not the union of the two as one ball: its radius has 30 bits, and would blur the end that is x itself.
        if not mass > 0:
            return x, self.ball(1)
        other = x * mass**-self.order
        return min(x, other.lower()), max(x, other.upper())

    def _root(self, scores: list[float], top: float, start: float, bracket: tuple[Any, Any]) -> Any:
        """Return a ball that holds the root of the keys given, a largest one among them.  Lemma: threshold_bracket"""
        drops = [(self._drop(score, top), count) for score, count in Counter(scores).items()]
        lo, hi = bracket
        lo = max(lo, (self.ball(len(scores)) ** -self.order).lower())
        x = self.ball(start) if lo <= start <= hi else ((lo + hi) / 2).mid()
        last = None
        for _ in range(MAX_STEPS):
            mass, slope = self._mass(x, drops)
            low, high = self._around_root(x, mass)
            lo, hi = max(lo, low), min(hi, high)
            width = hi - lo
            if width <= self.width * hi:
                break
            x = (x - (mass - 1) * self.order / slope).mid()
            # An infinite slope at a key that is just entering (alpha > 2) defeats Newton; halving does not mind.
            if not lo <= x <= hi or (last is not None and 2 * width > last):
                x = ((lo + hi) / 2).mid()
            last = width
        return lo.union(hi)

    def _bracket_around(
        self, guess: float | None, peak: Any, row: Floats, drops: Floats, top: float
    ) -> tuple[Any, Any]:
        """Return bounds of row_max - tau: those that the mass at a given tau proves, or the widest."""
        if guess is None or not math.isfinite(guess):
            return self.ball(0), self.ball(1)
        x = peak - guess
        if not (x > 0 and x < 1):
            return self.ball(0), self.ball(1)
        keys = [(self._drop(score, top), count) for score, count in Counter(row[drops <= 1.001].tolist()).items()]
        ends = [self._around_root(end, self._mass(end, keys)[0]) for end in (x.lower(), x.upper())]
        return max(self.ball(0), min(low for low, _ in ends)), min(self.ball(1), max(high for _, high in ends))

    def _judge(self, guess: float, peak: Any, root: Any, place: int, found: Found) -> None:
        """Compare a tau that was given with the root."""
        if not math.isfinite(guess):
            found.error[place] = guess, 0.0, 0.0
            found.is_lower[place], found.is_upper[place] = guess == -math.inf, guess == math.inf
            return
        excess = root - (peak - guess)
        found.error[place] = self._split(excess)
        found.is_lower[place], found.is_upper[place] = bool(excess <= 0), bool(excess >= 0)

    def _split(self, ball: Any) -> Split:
        """Return a ball as float64 numbers."""
        head = float(ball)
        if not math.isfinite(head):
            return Split(head, 0.0, math.inf)
        left = ball - head
        rest = float(left)
        error = (left - rest).abs_upper()
        return Split(head, rest, math.nextafter(float(error), math.inf) if error > 0 else 0.0)
