"""Between which numbers do tau and the probabilities provably lie?  Ball arithmetic, or rationals for alpha 2."""

import dataclasses
import importlib
import math
from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from entmax_ref.arguments import Booleans, Floats, as_alpha, as_axis, as_mask, as_real, as_scores
from entmax_ref.reading import shown
from entmax_ref.rows.threshold import threshold

# The bracket of row_max - tau ends within 2 ** -BITS of its own size, and closer for alpha near 1.
BITS = 90
# Newton takes two or three steps; bisection, should it be needed all the way, takes one a bit.
MAX_STEPS = 400
# Enough for the exact difference of any two float64 numbers.
MOST_BITS = 2200

Method = Literal["ball", "rational"]


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What is proven of the rows of ``scores``, shape (..., n); made by `certify`.

    A number is given twice: as float64 bounds ``lo <= exact <= hi``, and as the unevaluated sum ``head + rest`` with
    ``abs(exact - (head + rest)) <= radius``, which keeps the digits that the bounds round away.

    Attributes
    ----------
    alpha : float
        The order, taken as the exact value of the float64.
    tau_lo, tau_hi : ndarray of float64, shape (...)
        Bounds of tau, in the unit of ``z = (alpha - 1) * scores``. Both are ``+inf`` for a row without a visible key
        and NaN for a row with a visible NaN or ``+inf``.
    tau, tau_rest, tau_radius : ndarray of float64, shape (...)
        Head, rest and radius of tau.
    probs_lo, probs_hi : ndarray of float64, shape (..., n)
        Bounds of the probabilities; NaN on the visible keys of a row with a visible NaN or ``+inf``.
    probs, probs_rest, probs_radius : ndarray of float64, shape (..., n)
        Head, rest and radius of the probabilities.
    in_support, out_of_support : ndarray of bool, shape (..., n)
        Keys that provably have ``z > tau``, and keys that provably do not (also keys that are not visible). Neither
        holds for a key that could not be decided, nor for a visible key of a row with a visible NaN or ``+inf``.
    error_lo, error_hi : ndarray of float64, shape (...), or None
        Bounds of ``abs(t - tau)`` for the ``tau=t`` given to `certify`; None if none was given.
    is_lower, is_upper : ndarray of bool, shape (...), or None
        Whether ``t <= tau`` and ``t >= tau`` are proven; None if no ``tau`` was given.

    Examples
    --------
    >>> proof = certify([0.5, 0.25, -1.0], alpha=2.0, tau=-0.25)
    >>> proof.tau_lo, proof.tau_hi
    (array(-0.125), array(-0.125))
    >>> proof.in_support, proof.is_lower, proof.is_upper, proof.error_hi
    (array([ True,  True, False]), array(True), array(False), array(0.125))
    """

    alpha: float
    tau_lo: Floats
    tau_hi: Floats
    tau: Floats
    tau_rest: Floats
    tau_radius: Floats
    probs_lo: Floats
    probs_hi: Floats
    probs: Floats
    probs_rest: Floats
    probs_radius: Floats
    in_support: Booleans
    out_of_support: Booleans
    error_lo: Floats | None = None
    error_hi: Floats | None = None
    is_lower: Booleans | None = None
    is_upper: Booleans | None = None

    @property
    def undecided(self) -> Booleans:
        """Keys of which neither `in_support` nor `out_of_support` is proven."""
        return ~(self.in_support | self.out_of_support)

    def tau_error(self, found: ArrayLike) -> tuple[Floats, Floats]:
        """Return float64 bounds of ``abs(found - tau)``; ``found`` broadcasts to the shape of tau."""
        given = _as_found("tau_error", found, self.tau.shape)
        return _distance(given, self.tau, self.tau_rest, self.tau_radius)

    def probs_error(self, found: ArrayLike) -> tuple[Floats, Floats]:
        """Return float64 bounds of ``abs(found - probs)``; ``found`` broadcasts to the shape of the probabilities."""
        given = _as_found("probs_error", found, self.probs.shape)
        return _distance(given, self.probs, self.probs_rest, self.probs_radius)


def certify(
    scores: ArrayLike,
    alpha: float = 1.5,
    *,
    tau: ArrayLike | None = None,
    where: ArrayLike | None = None,
    method: Method | None = None,
) -> Certificate:
    r"""Return proven bounds of tau and of every probability, and the support as far as it can be decided.

    Parameters
    ----------
    scores : array_like of real numbers, shape (..., n)
        Converted to float64, taken as exact and never modified. ``-inf`` marks a key that is not visible, and so does
        the mask of a masked array. Without keys (n = 0) every row is one without a visible key.
    alpha : float, default 1.5
        Order of the transform, above 1, taken as the exact value of the float64.
    tau : array_like of real numbers, optional
        Somebody's threshold for each row, in the unit of ``z = (alpha - 1) * scores``; broadcasts to (...). The
        certificate then says how far it is off, and whether it is a proven lower or upper bound.
    where : array_like of bool, optional
        Broadcasts to the shape of ``scores``; False marks a key that is not visible, whatever its score.
    method : {"ball", "rational"}, optional
        Ball arithmetic takes any alpha and needs python-flint. Rationals take alpha 2 only, are exact and leave
        nothing undecided; they are the default for alpha 2.

    Returns
    -------
    certificate : Certificate

    Raises
    ------
    TypeError
        If ``scores`` or ``tau`` is not real and numeric, ``where`` not boolean, ``alpha`` not one number.
    ValueError
        If ``alpha`` is not finite and above 1, ``scores`` has no axis, ``where`` or ``tau`` does not broadcast, or
        ``method`` is unknown or not for this alpha.
    ImportError
        If ball arithmetic is asked for and python-flint is not installed: it comes with the extra ``certify``.

    Notes
    -----
    Let p = 1 / (alpha - 1) and, for x > 0, :math:`F(x) = \sum_i \max(x - w_i, 0)^p` with the distances :math:`w_i \ge
    0` of the z from their maximum, so that the root r of F(r) = 1 is row_max - tau. For any p > 0 the exact r lies
    between

    .. math:: x \quad\text{and}\quad x\,F(x)^{-1/p}.

    Indeed, for x >= r every :math:`x - w_i \ge (x / r) (r - w_i)`, so :math:`F(x) \ge (x / r)^p F(r) = (x / r)^p`,
    and r <= x because F increases; for x <= r both inequalities turn round. It follows that
    :math:`|x - r| \le r\,|F(x)^{1/p} - 1|`, where r <= 1: for p >= 1 this implies the residual bound, and it holds
    for p < 1 as well. So one evaluation of F at any point, in arithmetic that carries its own
    error bounds, is a proof. Newton's method, started from `threshold`, only chooses the points; a wrong start costs
    time and never truth. The bracket is narrowed until it is ``2**-90`` of its size wide (and narrower for alpha near
    1, where the probabilities ask for it), then every gap and probability follows in ball arithmetic.

    A key whose gap has no proven sign is decided by the mass at that key, to which it does not contribute itself: it is
    supported if and only if that mass is below 1. More bits are taken for it, up to 2200; only where the mass is 1 to
    so many does the key stay undecided.
    For alpha above 2 the probability of the smallest key is what the others leave of 1, because the power of its gap
    has an infinite slope at 0.

    For alpha 2 the keys are sorted as integers over one power of two, and ``tau = (sum of the k largest - 1) / k``
    for the last k whose k-th largest exceeds it; every comparison is exact.

    Rows of twelve keys take 50 to 200 microseconds each, the more the closer alpha is to 1, and 25 for alpha 2.

    Lemmas: residual_bound, threshold_unique, threshold_bracket, candidate_superset

    References
    ----------
    .. [1] Fredrik Johansson, "Arb: Efficient Arbitrary-Precision Midpoint-Radius Interval Arithmetic",
       IEEE Transactions on
       Computers 66(8), 2017.

    Examples
    --------
    >>> proof = certify([[1.0, 0.5, -2.0], [3.0, 3.0, 3.0]])  # doctest: +SKIP
    >>> proof.in_support  # doctest: +SKIP
    array([[ True,  True, False],
           [ True,  True,  True]])
    """
    order = as_alpha("certify", alpha)
    array = as_scores("certify", "scores", scores)
    as_axis("certify", "scores", -1, array.shape)
    mask = as_mask("certify", "where", where, array.shape)
    chosen = _as_method(method, order)
    shape, n = array.shape[:-1], array.shape[-1]
    candidates = None
    if tau is not None:
        given = as_real("certify", "tau", tau)
        try:
            candidates = np.broadcast_to(given, shape).reshape(-1)
        except ValueError as error:
            raise ValueError(
                f"certify: tau must broadcast to one value per row, shape {shape}; its shape is {given.shape}. "
                f"Give one threshold per row of scores, whose last axis holds the keys."
            ) from error

    visible = array != -np.inf
    if mask is not None:
        visible &= mask
    undefined = np.any(visible & ~(array < np.inf), axis=-1).reshape(-1)
    rows = np.where(visible, array, -np.inf).reshape(math.prod(shape), n)
    live = ~undefined & np.any(visible, axis=-1).reshape(-1)
    found = _Found.empty(rows, undefined, candidates)
    solver = _Balls(order) if chosen == "ball" else _Rationals()
    with solver.precision():
        for row, start in zip(np.flatnonzero(live).tolist(), _starts(rows[live], order), strict=True):
            solver.solve(rows[row], start, row, found)
    return found.certificate(order, shape, n)


def _as_found(method: str, found: ArrayLike, shape: tuple[int, ...]) -> Floats:
    """Return somebody's numbers as float64; raise unless they broadcast to ``shape``."""
    given = as_real(f"Certificate.{method}", "found", found)
    try:
        return np.broadcast_to(given, shape)
    except ValueError as error:
        raise ValueError(
            f"Certificate.{method}: found must broadcast to shape {shape}; its shape is {given.shape}. "
            "Give one number for each that was certified."
        ) from error


def _as_method(method: Any, alpha: float) -> Method:
    """Return the method to use; raise unless it is known and takes this alpha."""
    if method is None:
        return "rational" if alpha == 2.0 else "ball"
    if not (isinstance(method, str) and method in ("ball", "rational")):
        raise ValueError(
            f"certify: method must be 'ball', 'rational' or None; it is {shown(method)}. Leave it out to get rationals "
            f"for alpha 2 and balls for any other."
        )
    if method == "rational" and alpha != 2.0:
        raise ValueError(
            f"certify: method 'rational' is for alpha 2 only, where tau is a rational number; alpha is {alpha!r}. "
            f"Use 'ball', or leave it out."
        )
    return "ball" if method == "ball" else "rational"


def _starts(rows: Floats, alpha: float) -> list[float]:
    """Return a guess of row_max - tau for each row.  Nothing that is proven depends on it."""
    if rows.shape[0] == 0:
        return []
    with np.errstate(over="ignore"):
        guess: list[float] = np.abs(threshold(rows - rows.max(axis=-1, keepdims=True), alpha)).tolist()
    return guess


class _Split(NamedTuple):
    """A real number as head + rest, off by at most radius."""

    head: float
    rest: float
    radius: float


class _Key(NamedTuple):
    """What is proven of a key."""

    prob: _Split
    inside: bool
    outside: bool


@dataclasses.dataclass(frozen=True)
class _Found:
    """The arrays that the solvers fill, one row after the other; rows are flat."""

    tau: Floats  # (rows, 3): head, rest, radius
    probs: Floats  # (rows, n, 3)
    in_support: Booleans
    out_of_support: Booleans
    guess: Floats | None  # tau as it was given
    error: Floats  # (rows, 3) of guess - tau
    is_lower: Booleans
    is_upper: Booleans

    @staticmethod
    def empty(rows: Floats, undefined: Booleans, guess: Floats | None) -> "_Found":
        """Return what holds before any row is solved; rows without a key and undefined ones stay that way."""
        count, n = rows.shape
        tau = np.zeros((count, 3))
        tau[:, 0] = np.where(undefined, np.nan, np.inf)
        probs = np.zeros((count, n, 3))
        hidden = rows == -np.inf
        probs[..., 0] = np.where(undefined[:, None] & ~hidden, np.nan, 0.0)
        error = np.zeros((count, 3))
        proven = np.zeros(count, dtype=np.bool_)
        if guess is None:
            return _Found(tau, probs, np.zeros_like(hidden), hidden.copy(), None, error, proven, proven.copy())
        with np.errstate(invalid="ignore"):
            equal = ~undefined & (guess == np.inf)  # right where no key is visible, replaced where one is
            error[:, 0] = np.where(equal, 0.0, guess - tau[:, 0])
            is_lower, is_upper = ~undefined & (guess <= np.inf), equal
        return _Found(tau, probs, np.zeros_like(hidden), hidden.copy(), guess, error, is_lower, is_upper)

    def certificate(self, alpha: float, shape: tuple[int, ...], n: int) -> Certificate:
        """Return the certificate, with the leading axes that the scores had."""
        tau = self.tau.reshape(*shape, 3)
        probs = self.probs.reshape(*shape, n, 3)
        tau_lo, tau_hi = _outward(tau)
        probs_lo, probs_hi = _outward(probs)
        proof: dict[str, Any] = {}
        if self.guess is not None:
            low, high = _outward(np.stack([np.abs(self.error[:, 0]), self._turned(), self.error[:, 2]], axis=-1))
            proof = {
                "error_lo": np.maximum(low, 0.0).reshape(shape),
                "error_hi": high.reshape(shape),
                "is_lower": self.is_lower.reshape(shape),
                "is_upper": self.is_upper.reshape(shape),
            }
        return Certificate(
            alpha=alpha,
            tau_lo=tau_lo,
            tau_hi=tau_hi,
            tau=tau[..., 0],
            tau_rest=tau[..., 1],
            tau_radius=tau[..., 2],
            probs_lo=np.maximum(probs_lo, 0.0),
            probs_hi=np.minimum(probs_hi, 1.0),
            probs=probs[..., 0],
            probs_rest=probs[..., 1],
            probs_radius=probs[..., 2],
            in_support=self.in_support.reshape(*shape, n),
            out_of_support=self.out_of_support.reshape(*shape, n),
            **proof,
        )

    def _turned(self) -> Floats:
        """Return the rest of ``abs(error)``."""
        turned: Floats = np.where(self.error[:, 0] < 0.0, -self.error[:, 1], self.error[:, 1])
        return turned


class _Rationals:
    """Solves rows for alpha 2 in integers."""

    def precision(self) -> Any:
        """Return a context in which to solve: none is needed."""
        return _Nothing()

    def solve(self, row: Floats, start: float, place: int, found: _Found) -> None:
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
        found.tau[place] = _split_ratio(above, below)
        found.out_of_support[place] = True
        for key, value in zip(near, values, strict=True):
            if size * value > above:
                found.probs[place, key] = _split_ratio(size * value - above, below)
                found.in_support[place, key], found.out_of_support[place, key] = True, False
        if found.guess is not None:
            self._judge(float(found.guess[place]), above, below, place, found)

    @staticmethod
    def _judge(guess: float, above: int, below: int, place: int, found: _Found) -> None:
        """Compare a tau that was given with ``above / below``."""
        if not math.isfinite(guess):
            found.error[place] = guess, 0.0, 0.0
            found.is_lower[place], found.is_upper[place] = guess == -math.inf, guess == math.inf
            return
        numerator, denominator = guess.as_integer_ratio()
        excess = numerator * below - above * denominator
        found.error[place] = _split_ratio(excess, denominator * below)
        found.is_lower[place], found.is_upper[place] = excess <= 0, excess >= 0


class _Nothing:
    """A context that does nothing."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


class _Balls:
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

    def solve(self, row: Floats, start: float, place: int, found: _Found) -> None:
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

    def _keys(self, counts: Counter[float], root: Any, top: float) -> dict[float, _Key]:
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
        return {score: _Key(self._split(probs[score]), inside[score], outside[score]) for score in counts}

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

    def _judge(self, guess: float, peak: Any, root: Any, place: int, found: _Found) -> None:
        """Compare a tau that was given with the root."""
        if not math.isfinite(guess):
            found.error[place] = guess, 0.0, 0.0
            found.is_lower[place], found.is_upper[place] = guess == -math.inf, guess == math.inf
            return
        excess = root - (peak - guess)
        found.error[place] = self._split(excess)
        found.is_lower[place], found.is_upper[place] = bool(excess <= 0), bool(excess >= 0)

    def _split(self, ball: Any) -> _Split:
        """Return a ball as float64 numbers."""
        head = float(ball)
        if not math.isfinite(head):
            return _Split(head, 0.0, math.inf)
        left = ball - head
        rest = float(left)
        error = (left - rest).abs_upper()
        return _Split(head, rest, math.nextafter(float(error), math.inf) if error > 0 else 0.0)


def _split_ratio(numerator: int, denominator: int) -> _Split:
    """Return a rational number as float64 numbers; Python rounds the quotient of two integers correctly."""
    try:
        head = numerator / denominator
    except OverflowError:
        return _Split(math.copysign(math.inf, numerator), 0.0, math.inf)
    above, below = head.as_integer_ratio()
    left, unit = numerator * below - above * denominator, denominator * below
    rest = left / unit
    above, below = rest.as_integer_ratio()
    is_exact = left * below == above * unit
    return _Split(head, rest, 0.0 if is_exact else math.nextafter(abs(rest) * 2.0**-53, math.inf))


def _outward(parts: Floats) -> tuple[Floats, Floats]:
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


def _distance(found: Floats, head: Floats, rest: Floats, radius: Floats) -> tuple[Floats, Floats]:
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
