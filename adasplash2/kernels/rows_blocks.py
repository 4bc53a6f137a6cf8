"""What are the probabilities of a row that does not fit on chip?  It is read block by block, a few times."""

import triton
import triton.language as tl

from .any_power import sensitivity_of
from .row import next_pair, root_in_hand, row_order, row_probs
from .tile import add_compensated, any_of, larger_or_nan, row_maximum


@triton.jit
def key_block(row_ptr, start, n_keys, other, BLOCK_N: tl.constexpr):
    """Return a row's numbers from ``start`` on, float32 [1, BLOCK_N]; ``other`` beyond its end."""
    keys = start + tl.arange(0, BLOCK_N)[None, :]
    return tl.load(row_ptr + keys, mask=keys < n_keys, other=other).to(tl.float32)


@triton.jit
def rows_blocks_kernel(
    scores_ptr, alpha_ptr, probs_ptr, passes_ptr, n_rows, n_keys, row_stride, alpha_stride, tolerance, max_passes,
    POWER: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Grid (rows,).

    Arguments as of `rows_whole_kernel`.  The first pass keeps the largest score of each place in a block: scores of the
    row, all of which are in hand, so their threshold is at or below that of the row, and next to it where the support
    is sparse.  Each further pass takes a Newton step, the last one stores.
    Lemmas: threshold_subset, merge_parts, newton_norm_left, residual_bound, compensated_sum
    """
    rows = tl.program_id(0) + tl.arange(0, 1)
    row = tl.program_id(0).to(tl.int64)
    scores_ptr += row * row_stride
    probs_ptr += row * n_keys
    step, power, known = row_order(alpha_ptr, rows, rows < n_rows, alpha_stride, POWER)

    peaks = tl.full([1, BLOCK_N], float("-inf"), tl.float32)
    for start in range(0, n_keys, BLOCK_N):
        peaks = larger_or_nan(peaks, key_block(scores_ptr, start, n_keys, float("-inf"), BLOCK_N))
    row_max = row_maximum(peaks)
    ordinary = (tl.abs(row_max) < float("inf")) & known
    top = tl.where(ordinary, row_max, 0.0)
    z = (peaks - top[:, None]) * step[:, None]
    tau, rest, passes = root_in_hand(z, ordinary, step, power, tolerance, max_passes, POWER, 1)

    passes = tl.zeros([1], tl.int32)
    open_rows = ordinary
    index_of_pass = 0
    more = any_of(open_rows)
    while (more > 0) & (index_of_pass < max_passes):
        masses, errors = tl.zeros([1, BLOCK_N], tl.float32), tl.zeros([1, BLOCK_N], tl.float32)
        slopes = tl.zeros([1, BLOCK_N], tl.float32)
        for start in range(0, n_keys, BLOCK_N):
            z = (key_block(scores_ptr, start, n_keys, float("-inf"), BLOCK_N) - top[:, None]) * step[:, None]
            gap, probs = row_probs(z, tau, rest, power, POWER)
            masses, errors = add_compensated(masses, errors, probs)
            slopes += sensitivity_of(gap, probs, POWER)
        mass, slope = tl.sum(masses + errors, axis=1), tl.sum(slopes, axis=1)
        tau, rest = next_pair(tau, rest, mass, slope, step, power, POWER)
        open_rows = tl.abs(mass - 1.0) > tolerance
        passes += open_rows.to(tl.int32)
        more = any_of(open_rows)
        index_of_pass += 1

    for start in range(0, n_keys, BLOCK_N):
        scores = key_block(scores_ptr, start, n_keys, float("-inf"), BLOCK_N)
        z = (scores - top[:, None]) * step[:, None]
        _, probs = row_probs(z, tau, rest, power, POWER)
        special = tl.where(scores == float("-inf"), 0.0, float("nan"))
        probs = tl.where(ordinary[:, None], probs, special)
        keys = start + tl.arange(0, BLOCK_N)[None, :]
        tl.store(probs_ptr + keys, probs.to(probs_ptr.dtype.element_ty), mask=keys < n_keys)
    tl.store(passes_ptr + rows, passes)
