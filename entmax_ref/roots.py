"""What is the root of each row of sorted keys, in the unknown that keeps digits?

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

MAX_STEPS = 200  # Newton took at most 14 on millions of drawn rows; meeting this cap is a bug of ours
FIRST_WIDTH = 32  # most supports are no larger, so most rows are solved on a prefix of this width
EDGE = 2.0**-45  # times max(1, step) it is above the bound of a gap's error, up to 2**40 keys
LEAST = 5e-324


class Root(NamedTuple):
    """The root of each row, (m, 1) each, in both forms; ``near`` says that theta is the one to use.

    A key with a gap within ``EDGE * max(1, step)`` of 0 may be on the wrong side of it; `entmax_ref.edge` decides.
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


def solve(drop: Floats, count: NDArray[np.intp], step: float | Floats) -> Root:
    """Return the root of rows of ascending drops, (m, w), of which the first ``count`` may be supported."""
    if not isinstance(step, np.ndarray):
        if step in (0.5, 1.0):
            return _root_in_closed_form(drop, count, step)
        return _root_by_newton(drop, count, step) if step < 1.0 else _root_by_support(drop, count, step)
    blank = np.zeros(step.shape)
    root = Root(
        blank, blank.copy(), blank.copy(), np.zeros(step.shape, dtype=np.bool_), np.zeros(step.shape, dtype=np.bool_)
    )
    flat = step[:, 0]
    for group in (flat == 0.5, flat == 1.0, (flat < 1.0) & (flat != 0.5), flat > 1.0):
        if group.any():
            own = step[group]
            solved = (
                solve(drop[group], count[group], float(own[0, 0]))
                if (own == own[0]).all()
                else (_root_by_newton if own[0, 0] < 1.0 else _root_by_support)(drop[group], count[group], own)
            )
            for whole, part in zip(root, solved, strict=True):
                whole[group] = part
    return root


def _root_in_closed_form(drop: Floats, count: NDArray[np.intp], step: float) -> Root:
    """Solve for alpha 1.5 and 2, where the root has a closed form once the support is known.

    The k-th key is supported iff the mass at it is below 1. From a key where it is not, a Newton step gives a lower
    bound of tau, and the keys above that bound are fewer.  Lemmas: threshold_unique, newton_norm_left
    """
    width = FIRST_WIDTH
    while True:
        part = drop[:, :width]
        size = np.minimum(count, width)[:, None]
        floor, first, second = _sums_above(part, size, step)
        if width >= drop.shape[1] or not np.any((second < 1.0) & (count[:, None] > width)):
            break
        width *= 4
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
    return _far(step, floor, lift, _is_close(drop, size, floor, lift, step))


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


def _root_by_support(drop: Floats, count: NDArray[np.intp], step: float | Floats) -> Root:
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
    lift = _lift_by_newton(above, np.arange(width) < size, start, step)
    return _far(step, floor, lift, _is_close(drop, size, floor, lift, step))


def _far(step: float | Floats, floor: Floats, lift: Floats, close: Booleans) -> Root:
    return Root((1.0 - lift) / step - floor, floor, lift, np.zeros(floor.shape, dtype=np.bool_), close)


def edge_width(step: float | Floats) -> float | Floats:
    """Return how far from 0 a gap tells whether it is positive."""
    return EDGE * np.maximum(1.0, step)


def _is_close(drop: Floats, size: NDArray[np.intp], floor: Floats, lift: Floats, step: float | Floats) -> Booleans:
    """Return whether the last of the first ``size`` drops, ``floor``, or the one after it is close to the edge."""
    after = np.take_along_axis(drop, np.minimum(size, drop.shape[1] - 1), axis=-1)
    with np.errstate(invalid="ignore", over="ignore"):  # inf - inf, and 0 * inf at step 0: no key is near the edge
        margin = step * (np.where(size < drop.shape[1], after, np.inf) - floor) - lift
    return np.asarray((lift < edge_width(step)) | (margin < edge_width(step)))


def root_of_many(drop: Floats, reach: Floats, step: float) -> Root:
    """Solve for alpha 1.5 and 2 without a sort: rows of many keys, in any order, with a root within ``reach``, (m, 1).

    Where the keys above a point have their root with no other key above it, it is that of the row. So the search goes
    from a point to the root of the keys above it, until those stay the same. That may lead too far up; Newton on the
    norm of the gaps leads back, as it never does itself.  Lemma: newton_norm_left
    """
    at, least, found, left = reach.copy(), np.full(reach.shape, np.inf), reach.copy(), np.zeros(reach.shape)
    size = np.zeros(at.shape, dtype=np.intp)
    closed, done = np.zeros(at.shape, dtype=np.bool_), np.zeros(at.shape, dtype=np.bool_)
    gap = np.empty(drop.shape)
    for _ in range(MAX_STEPS):
        np.subtract(at, drop, out=gap)
        now = how_many(gap > 0.0)
        np.maximum(gap, 0.0, out=gap)
        rest, to_closed, to_newton = _moves(gap, now, step)
        # A point that Newton led to has a mass of 1 or more, so below 1 it is 1 to rounding. A key within rounding of
        # the root may come and go; it is one of those that count as close.
        new = ~done & (np.where(closed, now == size, rest >= 0.0) | (np.abs(to_closed) <= EDGE / 4.0 * at))
        found[new], left[new] = at[new], to_closed[new]
        done |= new
        if done.all():
            return _root_around(drop, found, left, step)
        least = np.minimum(least, at + to_newton)
        size, closed = now, (rest < 0.0) & ~np.isnan(to_closed)
        at = np.where(done, found, np.where(closed, at + to_closed, least))
    raise AssertionError(f"entmax_ref: the search for a support met its cap of {MAX_STEPS} steps; please report it")


def how_many(which: Booleans) -> NDArray[np.intp]:
    """Return the count by row, (m, 1); of bits, as it is several times faster than of bytes."""
    return np.asarray(np.bitwise_count(np.packbits(which, axis=-1)).sum(axis=-1, dtype=np.intp, keepdims=True))


def _moves(gap: Floats, size: NDArray[np.intp], step: float) -> tuple[Floats, Floats, Floats]:
    """Return 1 - mass, and how far it is to the root of the keys above, NaN if there is none, and by Newton.

    ``gap`` is in the unit of the scores, and is overwritten.
    """
    first = gap.sum(axis=-1, keepdims=True)
    if step == 1.0:
        rest = 1.0 - first
        return rest, rest / size, rest / size
    gap *= gap
    second = gap.sum(axis=-1, keepdims=True)
    rest, norm = 4.0 - second, np.sqrt(second)
    with np.errstate(invalid="ignore"):
        return rest, rest / (first + np.sqrt(first * first + size * rest)), (2.0 - norm) * norm / first


def _root_around(drop: Floats, at: Floats, left: Floats, step: float) -> Root:
    """Return the root at the drop ``at + left``, with ``left`` a few roundings of it."""
    width = edge_width(step) / step
    close = how_many(drop < at - width) != how_many(drop < at + width)
    floor, lift = at, step * left
    if close.any():  # there the floor has to be a key, for its gap to be positive
        rows = np.flatnonzero(close)
        part, top = drop[rows], at[rows]
        floor[rows] = np.where(part < top, part, -np.inf).max(axis=-1, keepdims=True)
        lift[rows] = np.maximum(step * ((top - floor[rows]) + left[rows]), LEAST)
    return _far(step, floor, lift, close)


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


def _root_by_newton(drop: Floats, count: NDArray[np.intp], step: float | Floats) -> Root:
    """Solve for alpha in [1, 2): on a prefix of the row first, whose tau is a lower bound of that of the row."""
    m, width = drop.shape
    theta = np.zeros((m, 1))
    first = min(FIRST_WIDTH, width)
    theta = _theta_by_newton(drop[:, :first], theta, step)
    if first < width:
        # What lies above a lower bound of tau holds the support.  Lemma: threshold_subset
        held = np.count_nonzero(shortfall(step, theta + drop) < 1.0 + EDGE, axis=-1)
        more = np.flatnonzero(held > first)
        if more.size:
            width = int(held[more].max())
            theta[more] = _theta_by_newton(drop[more, :width], theta[more], at_rows(step, more))
        else:
            width = first
    every, drop = drop, drop[:, :width]
    visible = np.arange(width) < count[:, None]
    size = np.count_nonzero((shortfall(step, theta + drop) < 1.0) & visible, axis=-1)
    size = np.maximum(size, 1)[:, None]
    floor = np.take_along_axis(drop, size - 1, axis=-1)
    near = np.asarray(step * np.log(size) < np.log(2.0))
    lift = np.maximum(1.0 - shortfall(step, theta + floor), LEAST)
    root = Root(theta, floor, lift, near, _is_close(every, size, floor, lift, step))
    far = np.flatnonzero(~near)
    if far.size:
        of_far = at_rows(step, far)
        above = of_far * np.maximum(floor[far] - drop[far], 0.0)
        start = np.minimum(root.lift[far] + EDGE, np.power(size[far], -of_far))
        lift = _lift_by_newton(above, np.arange(width) < size[far], start, of_far)
        for whole, part in zip(root, _far(of_far, floor[far], lift, root.close[far]), strict=True):
            whole[far] = part
    return root


def at_rows(step: float | Floats, rows: NDArray[np.intp]) -> float | Floats:
    """Return the step of some rows."""
    return step[rows] if isinstance(step, np.ndarray) else step


def _theta_by_newton(drop: Floats, theta: Floats, step: float | Floats) -> Floats:
    """Return theta from a start at or below it, (m, 1).

    Newton on mass ** (1 / power), a norm of the gaps and so convex, which cannot overshoot. It is written so that at
    step 0 it adds log(mass), which is exact at once.  Lemma: newton_norm_left
    """
    theta = theta.copy()
    rows, last_mass = np.arange(drop.shape[0]), np.full(theta.shape, np.inf)
    for _ in range(MAX_STEPS):
        depth = theta[rows] + drop
        gap = 1.0 - shortfall(step, depth)
        inside = gap > 0.0
        terms = np.where(inside, np.exp(log_probs(step, depth)), 0.0)
        mass = terms.sum(axis=-1, keepdims=True)
        slope = (terms / np.where(inside, gap, 1.0)).sum(axis=-1, keepdims=True)
        log_mass = np.log(mass)
        safe = np.where(step == 0.0, 1.0, step)
        theta[rows] += mass * np.where(step == 0.0, log_mass, -np.expm1(-safe * log_mass) / safe) / slope
        # The mass falls from step to step until rounding stops it, at the latest below 1; that step is the last.
        on = np.flatnonzero((mass > 1.0) & (mass < last_mass))
        if on.size == 0:
            return theta
        if on.size < rows.size:
            rows, drop, step, mass = rows[on], drop[on], at_rows(step, on), mass[on]
        last_mass = mass
    raise AssertionError(f"entmax_ref: Newton met its cap of {MAX_STEPS} steps for step={step!r}; please report it")


def _lift_by_newton(above: Floats, inside: Booleans, x: Floats, step: float | Floats) -> Floats:
    """Return lift with sum((lift + above) ** power) == 1, (m, 1).

    The unknown is x with lift = x ** max(1, step), given at or right of the root. Then mass ** min(1, 1 / power) is
    convex in x: for alpha <= 2 it is a p-norm of affine functions, above 2 each term is a norm of an affine function.
    So Newton, started at or right of the root, cannot overshoot it.
    """
    # Rows of one call lie all on one side of alpha = 2.
    steep = bool(np.all(np.asarray(step) > 1.0))
    found = np.empty_like(x)
    rows, last_mass = np.arange(above.shape[0]), np.full(x.shape, np.inf)
    for _ in range(MAX_STEPS):
        if steep:
            # where above is 0 the term is x itself, also where x ** step underflows
            terms = np.where(inside, np.where(above > 0.0, np.power(np.power(x, step) + above, 1.0 / step), x), 0.0)
            ratio = np.where(inside, x / np.where(inside, terms, 1.0), 0.0)
            slope = np.sum(np.power(ratio, step - 1.0), axis=-1, keepdims=True)
        else:
            gap = x + above
            terms = np.where(inside, np.power(gap, 1.0 / step), 0.0)
            slope = np.sum(terms / gap, axis=-1, keepdims=True)  # of the norm: its factors power cancel
        mass = terms.sum(axis=-1, keepdims=True)
        move = x + mass * np.expm1(-np.log(mass) * (1.0 if steep else step)) / slope
        # Only rounding can throw a step out of (0, x]; then the root is 0 to rounding, and 0 cannot be divided by.
        x = np.where(move > 0.0, move, x * 2.0**-53)
        found[rows] = np.power(x, step) if steep else x
        on = np.flatnonzero((mass > 1.0) & (mass < last_mass))
        if on.size == 0:
            return found
        if on.size < rows.size:
            rows, above, inside, x, mass, step = rows[on], above[on], inside[on], x[on], mass[on], at_rows(step, on)
        last_mass = mass
    raise AssertionError(f"entmax_ref: Newton met its cap of {MAX_STEPS} steps for step={step!r}; please report it")
