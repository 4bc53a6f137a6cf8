"""What is the threshold of each row, how sure is that, and which blocks hold support?

Each pass over the candidate blocks evaluates mass, slope and count at tau; the rows of a tile stop one by one, when
``abs(mass - 1)``, which bounds the distance from the exact tau, is within the tolerance, or within what one unit in the
last place of tau is worth.
"""

import triton
import triton.language as tl

from .power import active_set_step, gap_probs, gap_sensitivity, norm_step, norm_step_slack, tau_resolution
from .tile import (
    WORD,
    add_compensated,
    any_of,
    clear_lowest_bit,
    gap_tile,
    lowest_bit,
    mask_words,
    operand_tile,
    program_place,
    row_offsets,
    row_reference,
    score_tile,
    visible_tile,
)


@triton.jit
def safeguarded_step(tau, lo, hi, mass, slope, count, tolerance, relative_error, POWER: tl.constexpr):
    """One step from tau; float32[rows] each.  Returns tau, lo, hi with lo <= exact tau and lo <= tau.

    hi bounds the exact tau only up to the rounding of the mass: it guides the step, and no mask depends on it.

    Lemmas: step_keeps_bracket, newton_norm_left, residual_bound, mask_bound_float
    """
    bound = tau + norm_step(mass, slope, POWER)
    # One more rounding of the sum itself, relative to its size (at most 1).
    lo = tl.maximum(lo, bound - norm_step_slack(mass, slope, relative_error, POWER) - 2.0**-23)
    hi = tl.where(mass < 1.0, tl.minimum(hi, tau), tl.minimum(hi, tau + (mass - 1.0)))
    step = tau + active_set_step(mass, slope, count, POWER)
    # A missing root is NaN, fails both comparisons and bisects; a row that has converged stays where it is.
    inside = (lo <= step) & (step <= hi)
    otherwise = tl.where(tl.abs(mass - 1.0) <= tolerance, tau, 0.5 * (lo + hi))
    return tl.maximum(tl.where(inside, step, otherwise), lo), lo, hi


@triton.jit
def refine_kernel(
    query, key, row_max_ptr, candidates_ptr, lo_ptr, hi_ptr, tau_ptr, block_mask_ptr, residual_ptr, passes_ptr,
    z_scale, tolerance, max_passes, heads, group, n_queries, n_keys, head_dim, n_words,
    IS_CAUSAL: tl.constexpr, POWER: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Grid (query blocks * batch * heads,).

    Reads query, key, row_max, the candidate bits, lo, hi and the first tau.  Writes the final tau (in place), the
    block mask (words like the candidates'), and per row the last residual ``abs(mass - 1)`` and the number of steps
    that its tolerance asked for.  Invariant: a block whose bit is 0 has every z <= lo <= final tau, so its gaps are
    exactly zero in every later stage.  Lemmas: block_mask_superset, mask_bound_float, residual_bound
    """
    query_block, batch, head, batch_head = program_place(n_queries, heads, BLOCK_M)
    query_start = query_block * BLOCK_M
    q = operand_tile(query, batch, head, query_start, n_queries, head_dim, BLOCK_M, BLOCK_D)
    candidate_words = mask_words(candidates_ptr, batch_head, query_block, n_queries, n_words, BLOCK_M)
    block_mask_words = mask_words(block_mask_ptr, batch_head, query_block, n_queries, n_words, BLOCK_M)
    offsets, exists = row_offsets(batch_head, query_start, n_queries, BLOCK_M)
    reference = row_reference(tl.load(row_max_ptr + offsets, mask=exists, other=float("-inf")))
    lo = tl.load(lo_ptr + offsets, mask=exists, other=float("inf"))
    hi = tl.load(hi_ptr + offsets, mask=exists, other=float("inf"))
    tau = tl.load(tau_ptr + offsets, mask=exists, other=float("inf"))

    # Rows without a key (+inf) and poisoned rows (NaN) have nothing to refine.
    open_rows = tl.abs(tau) < float("inf")
    residual = tl.where(open_rows, float("inf"), 0.0)
    residual = tl.where(tau == tau, residual, tau)
    passes = tl.zeros([BLOCK_M], tl.int32)
    # Rounding of a sum: three per term, the tree inside a tile, the compensated sum over tiles.  Lemma: compensated_sum
    RELATIVE_ERROR: tl.constexpr = (BLOCK_N + 8) * 2.0**-24

    # The first pass also writes the mask, so it runs even if no row is open.
    index_of_pass = 0
    more = 1
    while (more > 0) & (index_of_pass < max_passes):
        mass, mass_error = tl.zeros([BLOCK_M], tl.float32), tl.zeros([BLOCK_M], tl.float32)
        slope, slope_error = tl.zeros([BLOCK_M], tl.float32), tl.zeros([BLOCK_M], tl.float32)
        count = tl.zeros([BLOCK_M], tl.float32)
        for index in range(n_words):
            word = tl.load(candidate_words + index)
            kept = 0
            while word != 0:
                bit = lowest_bit(word)
                word = clear_lowest_bit(word)
                key_start = (index * WORD + bit) * BLOCK_N
                k = operand_tile(key, batch, head // group, key_start, n_keys, head_dim, BLOCK_N, BLOCK_D)
                shifted = score_tile(q, k, z_scale) - reference[:, None]
                visible = visible_tile(query_start, key_start, n_queries, n_keys, IS_CAUSAL, BLOCK_M, BLOCK_N)
                gap = gap_tile(shifted, tau, visible)
                mass, mass_error = add_compensated(mass, mass_error, tl.sum(gap_probs(gap, POWER), axis=1))
                slope, slope_error = add_compensated(slope, slope_error, tl.sum(gap_sensitivity(gap, POWER), axis=1))
                count += tl.sum((gap > 0.0).to(tl.float32), axis=1)
                # Not "shifted > lo": the lo of a poisoned row is NaN, and such a row keeps what it sees.
                live = visible & ((shifted <= lo[:, None]) == 0)
                kept = kept | (any_of(tl.max(live.to(tl.int32), axis=1) > 0) << bit)
            tl.store(block_mask_words + index, kept)
        mass += mass_error
        slope += slope_error

        defect = tl.abs(mass - 1.0)
        within = tl.maximum(tolerance, tau_resolution(tau, slope, POWER))
        next_tau, next_lo, next_hi = safeguarded_step(tau, lo, hi, mass, slope, count, within, RELATIVE_ERROR, POWER)
        # A row that is within takes this last step (it costs nothing) and then stays as it is, so that its
        # result does not depend on the other rows of the tile.
        residual = tl.where(open_rows, defect, residual)
        passes += (open_rows & (defect > within)).to(tl.int32)
        tau = tl.where(open_rows, next_tau, tau)
        lo = tl.where(open_rows, next_lo, lo)
        hi = tl.where(open_rows, next_hi, hi)
        open_rows = open_rows & (defect > within)
        more = any_of(open_rows)
        index_of_pass += 1

    tl.store(tau_ptr + offsets, tau, mask=exists)
    tl.store(residual_ptr + offsets, residual, mask=exists)
    tl.store(passes_ptr + offsets, passes, mask=exists)
