"""How many passes over a row does each published way of finding tau take?  All behind one interface.

A pass reads every key once and yields the sums of `entmax_ref.stages.sums`; what a solver does with them is its step.
All solvers are safe: they keep a proven bracket and never leave it. `entmax_ref.threshold` needs none of this, it
sorts.

Mean and greatest number of passes until ``abs(mass - 1) <= 1e-5`` over the rows of ``tests/hard.py`` of length 16384:

================  ==========  ==========  ==========  ==========  ==========
alpha             1.1         4/3         1.5         1.75        2
================  ==========  ==========  ==========  ==========  ==========
bisection         17.69 / 20  18.62 / 22  19.54 / 24  20.04 / 27  21.65 / 27
newton            8.46 / 13   8.50 / 12   8.27 / 11   7.42 / 11   4.77 / 10
newton_norm       2.04 / 3    2.92 / 5    3.38 / 6    4.23 / 8    4.77 / 10
halley_bisection  4.31 / 5    4.69 / 6    4.88 / 7    4.96 / 7    4.46 / 10
histogram_halley  1.96 / 3    2.35 / 4    2.62 / 4    3.12 / 5    3.12 / 8
active_set        1.77 / 3    2.42 / 6    2.50 / 7    3.88 / 11   4.96 / 11
mixture           0.92 / 2    1.08 / 3    1.00 / 2    1.54 / 4    1.96 / 5
================  ==========  ==========  ==========  ==========  ==========

Examples
--------
>>> import numpy as np
>>> z = 0.5 * np.random.default_rng(0).normal(size=4096)
>>> for name in SOLVERS:
...     print(name, solve(name, z, 1.5, passes=40).passes_until(1e-5))
bisection 15
newton 7
newton_norm 5
halley_bisection 2
histogram_halley 1
active_set 4
mixture 1
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from entmax_ref import stages
from entmax_ref.arguments import Floats, as_alpha, as_axis, as_scores
from entmax_ref.reading import shown
from entmax_ref.stages import Bracket

__all__ = ["SOLVERS", "Solver", "Sums", "Trace", "solve"]

MOST_PASSES = 10_000


class Sums(NamedTuple):
    """What one pass over the keys yields at tau, by row; see `entmax_ref.stages.sums`.

    Attributes
    ----------
    mass, slope, curve : ndarray of float64, shape (...)
        The sums.
    """

    mass: Floats
    slope: Floats
    curve: Floats


class Trace(NamedTuple):
    """Where a solver was after 0, 1, 2, ... passes.

    Attributes
    ----------
    tau : ndarray of float64, shape (passes + 1, ...)
        The iterates, in the unit of z; the first one is the start. ``+inf`` for a row without a visible key, NaN for a
        row with NaN or ``+inf``; so are ``lo`` and ``hi``.
    residual : ndarray of float64, shape (passes + 1, ...)
        ``abs(mass - 1)`` at each of them, which bounds ``abs(tau - exact)``; 0 for a row without a visible key.
    lo, hi : ndarray of float64, shape (passes + 1, ...)
        The bracket that the passes before prove.
    """

    tau: Floats
    residual: Floats
    lo: Floats
    hi: Floats

    def passes_until(self, tolerance: float) -> NDArray[np.int64]:
        """Return how many passes each row took until ``residual <= tolerance``.

        Parameters
        ----------
        tolerance : float
            Bound of ``abs(mass - 1)``.

        Returns
        -------
        passes : ndarray of int64, shape (...)
            The pass that only confirms the last iterate is not counted, as in `entmax_ref.stages.refine`. A row that
            never gets there has the number of iterates, one more than the passes made.
        """
        reached = self.residual <= tolerance
        return np.where(reached.any(axis=0), reached.argmax(axis=0), len(self.residual)).astype(np.int64)


@dataclass(frozen=True)
class Solver:
    """A start and a step.

    Attributes
    ----------
    name : str
        Its key in `SOLVERS`.
    start : callable
        Takes z, counted from ``row_max``, and alpha; returns a `Bracket`. A start that reads the keys (a histogram)
        costs about a pass, which is not counted among the passes.
    step : callable
        Takes a `Bracket`, the `Sums` at its tau and alpha; returns the next `Bracket`.
    source : str
        Where it was published.
    """

    name: str
    start: Callable[[Floats, float], Bracket]
    step: Callable[[Bracket, Sums, float], Bracket]
    source: str

    @property
    def contract(self) -> str:
        """Which side the step lands on and what keeps it safe: the docstring of the step."""
        return self.step.__doc__ or ""


def solve(name: str, z: ArrayLike, alpha: float = 1.5, *, passes: int = 20) -> Trace:
    """Run one solver for a number of passes and return everything it went through.

    Parameters
    ----------
    name : str
        A key of `SOLVERS`.
    z : array_like of real numbers, shape (..., n)
        ``(alpha - 1) * scores``, keys on the last axis; ``-inf`` or masked where one is not visible. Never modified.
    alpha : float, default 1.5
        Order, in (1, 2]: above 2 mass is not convex, and a residual proves nothing.
    passes : int, default 20
        How many; rows do not stop early.

    Returns
    -------
    trace : Trace
        ``passes + 1`` iterates of each row.

    Raises
    ------
    TypeError
        If ``z`` is not real and numeric, or ``alpha`` or ``passes`` not a number of its kind.
    ValueError
        If there is no such solver, ``z`` has no axis, or ``alpha`` or ``passes`` is out of range.

    Notes
    -----
    Rows are solved relative to ``row_max``, so an offset costs digits only in the ``tau``, ``lo`` and ``hi`` returned,
    not in the residual. The bracket holds up to the rounding of the sums, which moves it by less than ``(log2(n) + 24)
    * 2**-52`` times the mass.

    Lemmas: step_keeps_bracket, residual_bound, threshold_shift

    Examples
    --------
    >>> trace = solve("newton", [0.0, -0.5, -2.0], alpha=2.0, passes=2)
    >>> trace.tau
    array([-1.  , -0.75, -0.75])
    >>> trace.residual
    array([0.5, 0. , 0. ])
    """
    if not isinstance(name, str) or name not in SOLVERS:
        raise ValueError(f"solve: there is no solver {shown(name)}. Use one of {', '.join(SOLVERS)}.")
    order = as_alpha("solve", alpha)
    if order > 2.0:
        raise ValueError(
            f"solve: alpha must be in (1, 2]; it is {shown(alpha)}. Use entmax_ref.threshold, which takes any."
        )
    count = _as_passes(passes)
    rows = as_scores("solve", "z", z)
    as_axis("solve", "z", -1, rows.shape)
    if rows.shape[-1] == 0:
        rows = np.full((*rows.shape[:-1], 1), -np.inf)  # a row without keys is one whose key is not visible
    highest = np.max(np.where(np.isnan(rows), np.inf, rows), axis=-1)
    ordinary = np.isfinite(highest)
    top = np.where(ordinary, highest, 0.0)
    with np.errstate(over="ignore", invalid="ignore"):
        shifted = np.where(ordinary[..., None], rows - top[..., None], 0.0)  # other rows are solved as equal scores

    solver = SOLVERS[name]
    at = solver.start(shifted, order)
    found: list[tuple[Floats, ...]] = []
    for _ in range(count + 1):
        sums = Sums(*stages.sums(shifted, at.tau, order))
        found.append((at.tau, np.abs(sums.mass - 1.0), at.lo, at.hi))
        at = solver.step(at, sums, order)
    tau, residual, lo, hi = (np.stack(part) for part in zip(*found, strict=True))
    special = np.where(highest == -np.inf, np.inf, np.nan)
    nothing = np.where(highest == -np.inf, 0.0, np.nan)
    return Trace(
        np.where(ordinary, tau + top, special),
        np.where(ordinary, residual, nothing),
        np.where(ordinary, lo + top, special),
        np.where(ordinary, hi + top, special),
    )


def bounds(z: Floats, alpha: float) -> Bracket:
    """Return the bracket that holds for any row, ``-1`` and ``-n ** (1 - alpha)``, and its lower end.

    Parameters
    ----------
    z : ndarray of float64, shape (..., n)
        Counted from ``row_max``.
    alpha : float
        Order, in (1, 2].

    Returns
    -------
    bracket : Bracket
        n counts the visible keys; ``tau`` is ``lo``.

    Notes
    -----
    Lemma: threshold_bracket
    """
    visible = np.count_nonzero(z > -np.inf, axis=-1)
    lo = np.full(z.shape[:-1], -1.0)
    return Bracket(lo, -(visible ** (1.0 - alpha)), lo)


def bounds_middle(z: Floats, alpha: float) -> Bracket:
    """Return `bounds` and their midpoint."""
    lo, hi, _ = bounds(z, alpha)
    return Bracket(lo, hi, 0.5 * (lo + hi))


def bounds_right(z: Floats, alpha: float) -> Bracket:
    """Return `bounds` and their upper end."""
    lo, hi, _ = bounds(z, alpha)
    return Bracket(lo, hi, hi)


def histogram_linear(z: Floats, alpha: float) -> Bracket:
    """Return the bracket and the estimate of 8 equally wide bins."""
    return stages.histogram(z, alpha, edges=stages.linear_edges(8))


def side(at: Bracket, sums: Sums) -> tuple[Floats, Floats]:
    """Return the bracket after the mass has told on which side of tau the iterate lies.

    Notes
    -----
    Lemmas: threshold_unique, step_keeps_bracket
    """
    return np.where(sums.mass >= 1.0, at.tau, at.lo), np.where(sums.mass <= 1.0, at.tau, at.hi)


def within(step: Floats, lo: Floats, hi: Floats) -> Bracket:
    """Return the bracket with the step if it lies inside, else with the midpoint; NaN does not lie inside."""
    return Bracket(lo, hi, np.where((lo <= step) & (step <= hi), step, 0.5 * (lo + hi)))


def bisection(at: Bracket, sums: Sums, alpha: float) -> Bracket:
    """Halve the bracket.

    Lands on either side. The bracket is the whole method: one bit a pass, whatever the row and alpha.
    """
    return within(np.full_like(at.tau, np.nan), *side(at, sums))


def newton(at: Bracket, sums: Sums, alpha: float) -> Bracket:
    """Follow the tangent of the mass, which is convex and decreasing.

    Lands at or left of tau from either side, so every iterate but the start is a lower bound, and they increase; no
    safeguard is needed. For alpha 2 it ends at the exact tau after at most n passes (Michelot's algorithm). Slow on
    long flat rows: with k scores above tau it first halves the distance, until that is about ``k ** -0.5``.

    Notes
    -----
    Lemmas: mass_convex, newton_norm_left, newton_ends, residual_bound
    """
    power = 1.0 / (alpha - 1.0)
    return _from_the_left(at, sums, (sums.mass - 1.0) / (power * sums.slope))


def newton_norm(at: Bracket, sums: Sums, alpha: float) -> Bracket:
    """Follow the tangent of the norm of the gaps, ``mass ** (alpha - 1)``.

    Lands at or left of tau from either side and never behind `newton`; no safeguard is needed. Exact in one pass where
    the scores above tau are equal. For alpha 2 the two are the same.

    Notes
    -----
    Lemmas: newton_norm_left, residual_bound
    """
    return _from_the_left(at, sums, stages.norm_step(sums.mass, sums.slope, alpha))


def halley(at: Bracket, sums: Sums, alpha: float) -> Bracket:
    """Follow the osculating hyperbola of the mass; bisect where that leaves the bracket.

    Lands on either side, also from the left, where it can pass tau: its iterates are no lower bounds. The bracket comes
    from the sign of ``mass - 1`` alone. Third order near tau for alpha up to 1.5; for alpha 2 it is `newton`.

    Notes
    -----
    Lemmas: halley_overshoots, step_keeps_bracket
    """
    power = 1.0 / (alpha - 1.0)
    defect, first = sums.mass - 1.0, power * sums.slope
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        second = power * (power - 1.0) * sums.curve
        step = 2.0 * defect * first / (2.0 * first * first - defect * second)
    return within(at.tau + step, *side(at, sums))


def active_set(at: Bracket, sums: Sums, alpha: float) -> Bracket:
    """Solve for tau as if the support were the present one (`entmax_ref.stages.active_set_step`); else bisect.

    From the left it lands at or right of tau, or nowhere, if there is no root; from the right at or left of it. On the
    true support it is exact for alpha 1.5 and 2, where mass is piecewise a polynomial. For other alpha it takes the
    quadratic through the squared norm, with no promise of side. The bracket comes from the sign of ``mass - 1`` alone.

    Notes
    -----
    Lemmas: active_set_side, step_keeps_bracket
    """
    return within(at.tau + stages.active_set_step(*sums, alpha), *side(at, sums))


def mixture(at: Bracket, sums: Sums, alpha: float) -> Bracket:
    """Take the step of the kernels: `active_set` inside a bracket that `newton_norm` and the residual narrow.

    Lands on either side; its ``lo`` is a lower bound at every pass, which is what a block mask may be built from. Where
    the proposal leaves the bracket, it is halved (for alpha above 1.5: its lower end is taken).

    Notes
    -----
    Lemmas: step_keeps_bracket, newton_norm_left, residual_bound
    """
    return stages.safeguarded_step(*_in_order(at), *sums, 0.0, alpha)


def _in_order(at: Bracket) -> tuple[Floats, Floats, Floats]:
    """Return tau, lo and hi, the order in which the stage takes them."""
    return at.tau, at.lo, at.hi


def _from_the_left(at: Bracket, sums: Sums, step: Floats) -> Bracket:
    """Return the bracket after a step that lands at or left of tau."""
    lo, hi = side(at, sums)
    # Right of tau the step may land below a bound that is known; left of it only rounding can make it fall.
    tau = np.maximum(at.tau + step, lo)
    return Bracket(tau, np.minimum(hi, np.where(sums.mass >= 1.0, at.tau + (sums.mass - 1.0), hi)), tau)


def _as_passes(passes: Any) -> int:
    """Return ``passes`` as an int; raise unless it is a count."""
    try:
        if isinstance(passes, (bool, np.bool_)):
            raise TypeError("a bool is no count")
        count = operator.index(passes)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"solve: passes must be an integer; it is {shown(passes)}. Pass for example passes=20."
        ) from error
    if count < 0:
        raise ValueError(f"solve: passes must not be negative; it is {shown(passes)}. Pass 0 for the start alone.")
    if count > MOST_PASSES:
        raise ValueError(
            f"solve: passes must be at most {MOST_PASSES}; it is {shown(passes)}. Bisection has all bits after 1100."
        )
    return count


SOLVERS: dict[str, Solver] = {
    solver.name: solver
    for solver in (
        Solver(
            "bisection",
            bounds_middle,
            bisection,
            "B. Peters, V. Niculae and A. F. T. Martins, Sparse Sequence-to-Sequence Models, ACL 2019",
        ),
        Solver(
            "newton",
            bounds,
            newton,
            "C. Michelot, A finite algorithm for finding the projection of a point onto the canonical simplex of R^n, "
            "Journal of Optimization Theory and Applications 50, 1986 (alpha 2)",
        ),
        Solver("newton_norm", bounds, newton_norm, "this project"),
        Solver(
            "halley_bisection",
            bounds_middle,
            halley,
            "N. Gonçalves, M. V. Treviso and A. F. T. Martins, AdaSplash: Adaptive Sparse Flash Attention, ICML 2025",
        ),
        Solver(
            "histogram_halley",
            histogram_linear,
            halley,
            "N. M. T. Gonçalves et al., AdaSplash-2: Faster Differentiable Sparse Attention, ICML 2026; the start here "
            "is the exact root of the histogram",
        ),
        Solver(
            "active_set",
            bounds_right,
            active_set,
            "B. Peters, V. Niculae and A. F. T. Martins, ACL 2019: the quadratic in tau of alpha 1.5, there by sorting",
        ),
        Solver("mixture", stages.histogram, mixture, "this project; the kernels run it"),
    )
}
