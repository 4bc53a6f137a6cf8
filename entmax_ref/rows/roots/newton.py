"""What is the root of sorted keys for alpha from 1 to 2?  Newton on a norm of the gaps, which cannot overshoot."""

import numpy as np
from numpy.typing import NDArray

from entmax_ref.arguments import Booleans, Floats
from entmax_ref.rows.roots.form import EDGE, LEAST, Root, at_rows, is_close, log_probs, root_by_lift, shortfall

MAX_STEPS = 200  # no drawn row took more than 14; meeting this cap is a bug of ours


def root_by_newton(drop: Floats, count: NDArray[np.intp], step: float | Floats) -> Root:
    """Solve for alpha in [1, 2)."""
    theta = _theta_by_newton(drop, np.zeros((drop.shape[0], 1)), step)
    visible = np.arange(drop.shape[1]) < count[:, None]
    size = np.count_nonzero((shortfall(step, theta + drop) < 1.0) & visible, axis=-1)
    size = np.maximum(size, 1)[:, None]
    floor = np.take_along_axis(drop, size - 1, axis=-1)
    near = np.asarray(step * np.log(size) < np.log(2.0))
    lift = np.maximum(1.0 - shortfall(step, theta + floor), LEAST)
    root = Root(theta, floor, lift, near, is_close(drop, size, floor, lift, step))
    far = np.flatnonzero(~near)
    if far.size:
        of_far = at_rows(step, far)
        width = int(size[far].max())
        above = of_far * np.maximum(floor[far] - drop[far, :width], 0.0)
        start = np.minimum(root.lift[far] + EDGE, np.power(size[far], -of_far))
        lift = lift_by_newton(above, np.arange(width) < size[far], start, of_far)
        for whole, part in zip(root, root_by_lift(of_far, floor[far], lift, root.close[far]), strict=True):
            whole[far] = part
    return root


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


def lift_by_newton(above: Floats, inside: Booleans, x: Floats, step: float | Floats) -> Floats:
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
