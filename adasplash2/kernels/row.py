"""What do the kernels for rows of a tensor share?  The order of a row, and its threshold where its scores are in hand.

Scores are counted from the largest one of their row, in the unit of tau: ``z = (alpha - 1) * (score - row_max)``.
The difference is rounded relative to itself, so an offset of the row costs nothing.  The threshold is a pair,
``tau + rest`` (tile.py says why), from -1 to 0.
"""

import triton
import triton.language as tl

from .any_power import probs_of, rough_powers, sensitivity_of
from .packed import PARTS, unpacked
from .power import gap_probs, gap_sensitivity, norm_step
from .tile import INTERPRETED, add_exactly, any_of, positive

# How near to 1 a mass has to come before it is computed to the last bit, and powers that `rough_powers` serves.
ROUGH = tl.constexpr(2.0**-10)
MOST_ROUGH = tl.constexpr(64.0)


@triton.jit
def load_rows(row_ptr, rows, row_stride, inside, other, IS_FULL: tl.constexpr, BLOCK_N: tl.constexpr):
    """Return whole rows, float32 [rows, BLOCK_N]; if IS_FULL all of it is there and no test costs a register."""
    pointers = row_ptr + rows.to(tl.int64)[:, None] * row_stride + tl.arange(0, BLOCK_N)[None, :]
    if IS_FULL:
        found = tl.load(pointers)
    else:
        found = tl.load(pointers, mask=inside, other=other)
    return found.to(tl.float32)


@triton.jit
def store_rows(row_ptr, rows, n_keys, found, inside, IS_FULL: tl.constexpr, BLOCK_N: tl.constexpr):
    """Store what `load_rows` would load from contiguous rows, rounded to their dtype."""
    pointers = row_ptr + rows.to(tl.int64)[:, None] * n_keys + tl.arange(0, BLOCK_N)[None, :]
    if IS_FULL:
        tl.store(pointers, found.to(row_ptr.dtype.element_ty))
    else:
        tl.store(pointers, found.to(row_ptr.dtype.element_ty), mask=inside)


@triton.jit
def row_order(alpha_ptr, rows, exists, alpha_stride, POWER: tl.constexpr):
    """Return ``alpha - 1``, its inverse, and whether alpha is in (1, 2], of each row; float32[rows]."""
    if POWER > 0:
        power = tl.full(rows.shape, POWER, tl.float32)
        step = 1.0 / power
        known = exists
    else:
        alpha = tl.load(alpha_ptr + rows.to(tl.int64) * alpha_stride, mask=exists, other=2.0)
        # NaN fails both comparisons.
        known = (alpha > 1.0) & (alpha <= 2.0)
        step = tl.where(known, alpha, 2.0) - 1.0
        power = 1.0 / step
    return step, power, known


@triton.jit
def row_probs(z, tau, rest, power, POWER: tl.constexpr):
    """Return ``max(z - tau, 0)`` and its power, of a tile with the rows on axis 0; NaN where z is NaN."""
    gap = positive((z - tau[:, None]) - rest[:, None])
    # 1 + tau is exact where tau is below -1/2, and z relative to itself: a gap next to 1 is 1 less this.
    short = ((tau + 1.0) + rest)[:, None] - z
    return gap, probs_of(gap, short, power[:, None], POWER)


@triton.jit
def next_pair(tau, rest, mass, slope, step, power, POWER: tl.constexpr):
    """Return the threshold after a Newton step, as a pair.  Lemma: pair_exact"""
    return add_exactly(tau, rest + norm_step(mass, slope, (power, step), POWER))


@triton.jit
def add_both(a, b, more_a, more_b):
    """Return the sums of two pairs."""
    return a + more_a, b + more_b


@triton.jit
def sums_of(probs, sensitivity):
    """Return the sums of both over the keys; float32[rows].  Together, as each exchange between warps takes a while."""
    if INTERPRETED:
        mass, slope = tl.sum(probs, axis=1), tl.sum(sensitivity, axis=1)
    else:
        mass, slope = tl.reduce((probs, sensitivity), 1, add_both)
    return mass, slope


@triton.jit
def root_in_hand(z, ordinary, step, power, tolerance, max_passes, POWER: tl.constexpr, GROUPS: tl.constexpr):
    """Return the threshold of the rows of a tile, [rows, keys], as a pair, and the steps that its tolerance asked for.

    Rows that are not ``ordinary`` get -1.  The keys are taken in GROUPS, of every ``keys / GROUPS``-th one, whose
    maxima a thread has at hand: these are scores of the row, and fewer, so their threshold is at or left of that of
    the row.  Where the power is loaded, most of the way is gone by `rough_powers`.
    Lemmas: threshold_subset, newton_norm_left, residual_bound
    """
    origin = step * 0.0
    tau, rest = step * 0.0 - 1.0, origin
    passes = tl.zeros(tau.shape, tl.int32)
    if GROUPS > 1:
        peaks = tl.max(tl.reshape(z, [z.shape[0], GROUPS, z.shape[1] // GROUPS]), axis=1)
        tau, rest, passes = ascend(peaks, origin, tau, rest, ordinary, step, power, ROUGH, max_passes, POWER, True, 0)
    if POWER == 0:
        tau, rest, passes = ascend(z, origin, tau, rest, ordinary, step, power, ROUGH, max_passes, POWER, True, 0)
    tau, rest, more = ascend(z, origin, tau, rest, ordinary, step, power, tolerance, max_passes, POWER, False, 0)
    return tau, rest, more if POWER > 0 else passes + more


@triton.jit
def score_threshold(origin, tau, rest, power):
    """Return a threshold in the unit of the scores, not counted from the origin, as a pair; for a power of 1 or 2."""
    tau, lost = add_exactly(origin, tau * power)
    return tau, lost + rest * power


@triton.jit
def score_gap(scores, tau, rest):
    """Return ``max(score - threshold, 0)``, [rows, keys], for a pair from `score_threshold`; 0 for -inf."""
    # A difference of floats is rounded relative to itself, so that an offset costs nothing here either.
    return tl.maximum((scores - tau[:, None]) - rest[:, None], 0.0)


@triton.jit
def _packed_sums(parts, origin, tau, rest, step, power, POWER: tl.constexpr, DTYPE: tl.constexpr):
    """Return mass and slope of a row held in PARTS of words; arguments as of `ascend`."""
    upper, lower = score_threshold(origin, tau, rest, power)
    probs = tl.zeros(parts[0].shape, tl.float32)
    sensitivity = probs
    for i in tl.static_range(PARTS):
        first, second = unpacked(parts[i], tau, DTYPE)
        gap, other = score_gap(first, upper, lower), score_gap(second, upper, lower)
        probs += gap_probs(gap, (power, power), POWER)
        probs += gap_probs(other, (power, power), POWER)
        sensitivity += gap_sensitivity(gap, (power, power), POWER)
        sensitivity += gap_sensitivity(other, (power, power), POWER)
    mass, slope = sums_of(probs, sensitivity)
    # A gap in the unit of tau is step times one of scores.
    return mass * gap_probs(step, (power, power), POWER), slope * gap_sensitivity(step, (power, power), POWER)


@triton.jit
def _sums_at(z, tau, rest, power, POWER: tl.constexpr, IS_ROUGH: tl.constexpr):
    """Return mass and slope of the rows of a tile at a threshold; arguments as of `ascend`."""
    if IS_ROUGH and POWER == 0:
        gap = tl.maximum(z - tau[:, None], 0.0)
        probs, sensitivity = rough_powers(gap, power[:, None])
    else:
        gap, probs = row_probs(z, tau, rest, power, POWER)
        sensitivity = sensitivity_of(gap, probs, POWER)
    return sums_of(probs, sensitivity)


@triton.jit
def ascend(
    z, origin, tau, rest, open_rows, step, power, tolerance, max_passes,
    POWER: tl.constexpr, IS_ROUGH: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """Return the threshold after Newton steps on the norm, as a pair, and how many the tolerance asked for.

    They rise from a point at or left of the root, such as -1.  A row whose mass is within the tolerance of 1 takes one
    more step, which leaves an error of the order of its square, and stays as it is.  If IS_ROUGH, powers that are too
    large for that wait.  If PACKED, the dtype of packed.py, z are PARTS of words of scores, and ``origin`` is where z
    counts them from.  Lemma: newton_is_quadratic
    """
    passes = tl.zeros(tau.shape, tl.int32)
    if IS_ROUGH:
        open_rows = open_rows & (power <= MOST_ROUGH)
    index_of_pass = 0
    more = any_of(open_rows)
    while (more > 0) & (index_of_pass < max_passes):
        if PACKED > 0:
            mass, slope = _packed_sums(z, origin, tau, rest, step, power, POWER, PACKED)
        else:
            mass, slope = _sums_at(z, tau, rest, power, POWER, IS_ROUGH)
        next_tau, next_rest = next_pair(tau, rest, mass, slope, step, power, POWER)
        tau, rest = tl.where(open_rows, next_tau, tau), tl.where(open_rows, next_rest, rest)
        open_rows = open_rows & (tl.abs(mass - 1.0) > tolerance)
        passes += open_rows.to(tl.int32)
        more = any_of(open_rows)
        index_of_pass += 1
    return tau, rest, passes
