"""How does alpha enter the arithmetic?  The only kernel file that branches on it.

``POWER`` is ``1 / (alpha - 1)`` as a compile-time integer: 1 for alpha 2 (sparsemax), 2 for alpha 1.5 (entmax-1.5), 3
for 4 / 3 and 4 for 1.25; or 0 for an alpha in (1, 2] that is loaded.  ``order`` is the pair of float32 numbers
``(power, step)`` with ``step = alpha - 1`` and ``power = 1 / step``, of a shape that broadcasts to the argument.
With ``gap = max(z - tau, 0)``: ``probs = gap ** power`` and ``sensitivity = probs ** (2 - alpha) = gap ** (power - 1)``
on the support, zero outside.
"""

import triton
import triton.language as tl

from .logarithm import LOG2_E, log_of
from .tile import any_of


@triton.jit
def load_order(alphas_ptr, batch_head, POWER: tl.constexpr):
    """Return the order of a head, two scalars; alphas are float32 (batch * heads,), or None where POWER is not 0.

    NaN for an alpha outside (1, 2].
    """
    if POWER > 0:
        power = tl.full([], POWER, tl.float32)
        step = 1.0 / power
    else:
        alpha = tl.load(alphas_ptr + batch_head)
        # NaN fails both comparisons.
        step = tl.where((alpha > 1.0) & (alpha <= 2.0), alpha - 1.0, float("nan"))
        power = 1.0 / step
    return power, step


@triton.jit
def unit_scale(z_scale, order, POWER: tl.constexpr):
    """Return what makes z of the products of a head: ``z_scale``, or for a loaded alpha its product with the step."""
    return z_scale * order[1] if POWER == 0 else z_scale


@triton.jit
def log_of_gap(gap):
    """Return ``log(gap)``, float32, any shape; where gap is not positive, anything finite."""
    return log_of(tl.where(gap > 0.0, gap, 1.0))


@triton.jit
def raised(gap, log_gap, exponent, other):
    """Return ``gap ** exponent`` on the support, given its logarithm, and ``other`` outside; float32, any shape."""
    return tl.where(gap > 0.0, tl.exp2(log_gap * (exponent * LOG2_E)), other)


@triton.jit
def gap_probs(gap, order, POWER: tl.constexpr):
    """Return ``gap ** power``; float32, any shape, gap >= 0.  NaN stays NaN."""
    if POWER == 1:
        probs = gap
    elif POWER == 2:
        probs = gap * gap
    elif POWER == 3:
        probs = gap * gap * gap
    elif POWER == 4:
        probs = (gap * gap) * (gap * gap)
    else:
        probs = raised(gap, log_of_gap(gap), order[0], gap)
    return probs


@triton.jit
def gap_sensitivity(gap, order, POWER: tl.constexpr):
    """Return ``gap ** (power - 1)`` on the support and 0 outside; float32, any shape.  NaN stays NaN.

    Lemma: jacobian_form
    """
    if POWER == 1:
        # Outside gap is 0 and stays 0; NaN fails the comparison and stays NaN.
        sensitivity = tl.where(gap > 0.0, 1.0, gap)
    elif POWER == 2:
        sensitivity = gap
    elif POWER == 3:
        sensitivity = gap * gap
    elif POWER == 4:
        sensitivity = gap * gap * gap
    else:
        sensitivity = raised(gap, log_of_gap(gap), order[0] - 1.0, gap)
    return sensitivity


@triton.jit
def gap_curve(gap, order, POWER: tl.constexpr):
    """Return ``gap ** (power - 2)`` on the support and 0 outside, and for power 1, where it has no share in the second
    derivative, 0; float32.
    """
    if POWER == 0:
        curve = raised(gap, log_of_gap(gap), order[0] - 2.0, 0.0)
    elif POWER == 1:
        curve = tl.zeros(gap.shape, tl.float32)
    elif POWER == 3:
        curve = gap
    elif POWER == 4:
        curve = gap * gap
    else:
        curve = (gap > 0.0).to(tl.float32)
    return curve


@triton.jit
def gap_powers(gap, order, POWER: tl.constexpr):
    """Return what `gap_probs`, `gap_sensitivity` and `gap_curve` do; a loaded power is raised once for all of them."""
    curve = gap_curve(gap, order, POWER)
    if POWER == 0:
        sensitivity = curve * gap
        probs = sensitivity * gap
    else:
        sensitivity, probs = gap_sensitivity(gap, order, POWER), gap_probs(gap, order, POWER)
    return probs, sensitivity, curve


@triton.jit
def mass_less(mass, exponent):
    """Return ``mass - mass ** (1 - exponent)`` for an exponent in (0, 1], which next to mass 1 keeps its digits."""
    # mass * (1 - exp(-a))
    a = exponent * log_of(mass)
    series = -1.0 / 720.0 * a + 1.0 / 120.0
    series = series * a - 1.0 / 24.0
    series = series * a + 1.0 / 6.0
    series = series * a - 1.0 / 2.0
    near = (series * a + 1.0) * a
    return mass * tl.where(tl.abs(a) < 0.25, near, 1.0 - tl.exp2(-a * LOG2_E))


@triton.jit
def norm_step(mass, slope, order, POWER: tl.constexpr):
    """Return the Newton step on ``mass ** (1 / power)``; float32[rows], ``slope = sum(sensitivity) > 0``.

    The step lands at or left of tau from either side.  Lemma: newton_norm_left
    """
    if POWER == 1:
        step = (mass - 1.0) / slope
    elif POWER == 2:
        step = (mass - tl.sqrt(mass)) / slope
    else:
        step = mass_less(mass, order[1]) / slope
    return step


@triton.jit
def norm_step_slack(mass, slope, relative_error, order, POWER: tl.constexpr):
    """Return how far `norm_step` may lie to the right of its exact value when both sums carry ``relative_error``.

    Beyond it, a loaded power errs by its share of the logarithm's error, and an integer one rounds once for each
    product.  Lemmas: mask_bound_float, mask_bound_any_power
    """
    if POWER == 1:
        slack = 4.0 * relative_error * (mass + 1.0) / slope
    elif POWER == 2:
        slack = 4.0 * relative_error * (mass + tl.sqrt(mass)) / slope
    else:
        of_power = order[0] * 2.0**-22 + 2.0**-20 if POWER == 0 else POWER * 2.0**-23
        lesser = mass - mass_less(mass, order[1])
        slack = 4.0 * (relative_error + of_power) * (mass + lesser) / slope
    return slack


@triton.jit
def least_tolerance(tolerance, order, POWER: tl.constexpr):
    """Return the tolerance, or where that is more what one unit in the last place of the gaps moves a mass by."""
    return tl.maximum(tolerance, order[0] * 2.0**-23) if POWER == 0 else tolerance


@triton.jit
def bend_of(mass, slope, curve, slope_before, moved, POWER: tl.constexpr):
    """Return what `active_set_step` bends by; float32[rows]: the curve, and for power 1 how many scores leave the
    support for each unit that tau rises by.

    Counted between the point of ``slope_before`` and the present one, which lies ``moved`` beyond it; where there was
    none, ``moved`` is 0, and far from the root a distribution is supposed (`entmax_ref.stages.density`).
    """
    if POWER == 1:
        counted = tl.maximum((slope_before - slope) / tl.where(moved != 0.0, moved, 1.0), 0.0)
        supposed = tl.where(tl.abs(mass - 1.0) > 0.1, 0.75 * slope * slope / mass, 0.0)
        bend = tl.where(moved != 0.0, counted, supposed)
    else:
        bend = curve
    return bend


@triton.jit
def active_set_step(mass, slope, curve, order, POWER: tl.constexpr):
    """Return the step to the root of the quadratic through the squared norm of the gaps, or for power 1 through the
    mass; float32[rows], NaN where it has none.

    Exact for power 1 and 2 when no score lies between the two points, and of third order above.  ``curve`` is what
    `bend_of` returns.
    """
    if POWER == 1:
        straight = (mass - 1.0) / slope
        # Where few scores are in between, their number is a matter of chance; the other bound keeps a step below 1.7
        # times the straight one.  Both are measured (`entmax_ref.stages.active_set_step`).
        density = tl.where(curve * tl.abs(straight) > 8.0, curve, 0.0)
        inner = tl.maximum(slope * slope - 2.0 * density * (mass - 1.0), slope * slope / 32.0)
        step = 2.0 * (mass - 1.0) / (slope + tl.sqrt(inner))
    elif POWER == 2:
        # curve * d^2 - 2 * slope * d + mass - 1 = 0; this form of the smaller root does not cancel.
        step = (mass - 1.0) / (slope + tl.sqrt(slope * slope - curve * (mass - 1.0)))
    else:
        power, inverse = order
        # mass ** (1 - 2 / power), of which the exponent may pass 1
        half = mass_less(mass, inverse)
        root = mass - half
        excess = half + root / mass * half
        bend = (power - 1.0) * curve - (power - 2.0) * slope * slope / mass
        step = excess / (slope + tl.sqrt(slope * slope - bend * excess))
        # An infinite curve would pin a row to its place.
        step = tl.where(curve < float("inf"), step, float("nan"))
    return step


@triton.jit
def least_step(tau, lo, nearest, POWER: tl.constexpr):
    """Return the least point that a step from tau may lead to: lo, and for power 1 ``nearest``, if tau lies beyond it.

    For power 1 a step from the right is mostly too long. For power 2 it seldom leads behind ``nearest``, and where that
    lies beyond the root by its rounding, to stop there costs a pass: one of 32 rows of 131072 equal scores.
    """
    return tl.where(nearest < tau, nearest, lo) if POWER == 1 else lo


@triton.jit
def retreat(lo, hi, nearest, order, POWER: tl.constexpr):
    """Return where a row goes whose step leaves its bracket: the middle; for alpha between 1.5 and 2 the lower end, and
    for power 1 ``nearest``, which is that without the slack.

    There the second derivative is unbounded where a key enters the support, and from the left Newton cannot fail.
    """
    middle = 0.5 * (lo + hi)
    if POWER == 0:
        middle = tl.where(order[1] > 0.5, lo, middle)
    elif POWER == 1:
        middle = tl.minimum(nearest, hi)
    return middle


@triton.jit
def knot_mass(first, second, POWER: tl.constexpr):
    """Return ``sum(c * w ** POWER)``, given the sums of ``c * w`` and of ``c * w ** 2``; POWER 1 or 2."""
    return first if POWER == 1 else second


@triton.jit
def knot_root(count, first, second, POWER: tl.constexpr):
    """Return ``s >= 0`` with ``sum(c * (s + w) ** POWER) == 1``, given sums of ``c``, ``c * w`` and ``c * w ** 2``.

    float32[rows], POWER 1 or 2; the caller guarantees ``sum(c * w ** POWER) < 1`` and ``count >= 1``.  No term cancels.
    Lemma: knot_root_exact
    """
    if POWER == 1:
        root = (1.0 - first) / count
    else:
        rest = tl.maximum(1.0 - second, 0.0)
        root = rest / (first + tl.sqrt(first * first + count * rest))
    return root


@triton.jit
def counted_root(counts, knots, order, POWER: tl.constexpr):
    """Return ``s`` with ``s ** power + sum(counts * max(s - knots, 0) ** power) == 1``; float32[rows].

    For any power.  counts and knots are float32 and broadcast to [rows, knots]; knots >= 0.  Newton on the norm comes
    down from 1 and never passes the root, so it has arrived when it does not fall any more.
    Lemmas: newton_norm_left, newton_stops_at_tau
    """
    root = tl.full([counts.shape[0]], 1.0, tl.float32)
    falling = 1
    while falling > 0:
        width = tl.maximum(root[:, None] - knots, 0.0)
        mass = gap_probs(root, order, POWER) + tl.sum(counts * gap_probs(width, order, POWER), axis=1)
        slope = gap_sensitivity(root, order, POWER) + tl.sum(counts * gap_sensitivity(width, order, POWER), axis=1)
        next_root = root - norm_step(mass, slope, order, POWER)
        falls = next_root < root
        root = tl.where(falls, next_root, root)
        falling = any_of(falls)
    return root
