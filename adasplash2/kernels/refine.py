"""What is the threshold of each row, and how sure is that?

Each pass over the kept blocks evaluates mass, slope and curve at tau; the rows of a tile stop one by one, when
``abs(mass - 1)``, which bounds the distance from the exact tau, is within the tolerance.
"""

import triton
import triton.language as tl

from .lists import MANY, NUMBERS, list_pointers, listed, load_numbers, load_path
from .power import (
    active_set_step,
    bend_of,
    gap_powers,
    least_step,
    least_tolerance,
    load_order,
    norm_step,
    norm_step_slack,
    retreat,
    unit_scale,
)
from .tile import (
    above,
    add_compensated,
    add_exactly,
    any_of,
    inner_products,
    operand_tile,
    positive,
    query_place,
    row_offsets,
    whole_tile,
)
from .visible import visible_tile


@triton.jit
def safeguarded_step(
    tau, lo, hi, nearest, mass, slope, curve, tolerance, relative_error, slope_error, order, POWER: tl.constexpr
):
    """One step from tau; float32[rows] each.  Returns tau, lo, hi and nearest with lo <= exact tau and lo <= tau.

    hi bounds the exact tau only up to the rounding of the mass.  From a point far to the left the sums are large and
    round much: without its slack lo would pass the root, and the row could not reach its tolerance.  ``nearest`` is lo
    without the slack, a point to go to and no bound.  ``slope_error`` is what the slope, a plain sum over tiles, may be
    off beyond that; it scales the step and no more.
    Lemmas: step_keeps_bracket, newton_norm_left, residual_bound, mask_bound_float, slope_slack
    """
    way = norm_step(mass, slope, order, POWER)
    slack = norm_step_slack(mass, slope, relative_error, order, POWER) + slope_error * tl.abs(way)
    # One more rounding of the sum itself, relative to its size (at most 1).
    lo = tl.maximum(lo, tau + way - slack - 2.0**-23)
    nearest = tl.maximum(nearest, tau + way)
    hi = tl.where(mass < 1.0, tl.minimum(hi, tau), tl.minimum(hi, tau + (mass - 1.0)))
    step = tau + active_set_step(mass, slope, curve, order, POWER)
    # Next to the root the two steps differ by less than their rounding, so one short of lo moves up to it.
    step = tl.maximum(step, least_step(tau, lo, nearest, POWER), propagate_nan=tl.PropagateNan.ALL)
    # A missing root is NaN, fails the comparison and retreats; a row that has converged stays where it is.
    inside = step <= hi
    otherwise = tl.where(tl.abs(mass - 1.0) <= tolerance, tau, retreat(lo, hi, nearest, order, POWER))
    return tl.maximum(tl.where(inside, step, otherwise), lo), lo, hi, nearest


@triton.jit
def refine_kernel(
    query, key, row_max_ptr, lo_ptr, hi_ptr, tau_ptr, lists_ptr, numbers_ptr, paths_ptr, base_ptr, rest_ptr,
    residual_ptr, passes_ptr, ranges, alphas_ptr, z_scale, tolerance, max_passes, heads, group, n_queries, n_keys,
    capacity,
    IS_CAUSAL: tl.constexpr, POWER: tl.constexpr, TILE_M: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, HEAD_DIM: tl.constexpr,
):  # fmt: skip
    """Grid (query blocks * batch * heads,).

    Blocks of TILE_M queries of few live keys are left out: their tau is there.
    Reads query, key, row_max, the kept lists, and lo, hi and the first tau, counted from row_max.  Writes the final
    tau as base and rest, and per row the last residual ``abs(mass - 1)`` and the number of steps that its tolerance
    asked for.  Lemmas: residual_bound, step_keeps_bracket, refine_loop_certifies, merge_parts
    """
    query_block, batch, head, batch_head = query_place(n_queries, heads, BLOCK_M)
    query_start = query_block * BLOCK_M
    tile = batch_head.to(tl.int64) * tl.cdiv(n_queries, TILE_M) + query_start // TILE_M
    if load_path(paths_ptr + tile * NUMBERS) < MANY:
        return
    order = load_order(alphas_ptr, batch_head, POWER)
    z_scale = unit_scale(z_scale, order, POWER)
    tolerance = least_tolerance(tolerance, order, POWER)
    q = operand_tile(query, batch, head, query_start, n_queries, BLOCK_M, BLOCK_D, HEAD_DIM)
    row = batch_head.to(tl.int64) * tl.cdiv(n_queries, BLOCK_M) + query_block
    list_ptr, numbers_ptr = list_pointers(lists_ptr, numbers_ptr, row, capacity)
    below, length, first = load_numbers(numbers_ptr)
    offsets, exists = row_offsets(batch_head, query_start, n_queries, BLOCK_M)
    row_max = tl.load(row_max_ptr + offsets, mask=exists, other=float("-inf"))
    tau = tl.load(tau_ptr + offsets, mask=exists, other=float("inf"))
    lo = tl.load(lo_ptr + offsets, mask=exists, other=float("inf")) - tau
    hi = tl.load(hi_ptr + offsets, mask=exists, other=float("inf")) - tau
    # Rows without a key (+inf) and poisoned rows (NaN) have nothing to refine.
    open_rows = tl.abs(tau) < float("inf")
    base, rest = add_exactly(tl.where(open_rows, row_max, 0.0), tl.where(open_rows, tau, 0.0))
    lo += rest
    hi += rest
    residual = tl.where(open_rows, float("inf"), 0.0)
    residual = tl.where(tau == tau, residual, tau)
    passes = tl.zeros([BLOCK_M], tl.int32)
    nearest = lo
    slope_before, moved = tl.zeros([BLOCK_M], tl.float32), tl.zeros([BLOCK_M], tl.float32)

    # Rounding of a sum: three per term, the tree inside a tile, the compensated sum over tiles.
    # Lemmas: compensated_sum, fused_sum, computed_mass_certifies
    RELATIVE_ERROR: tl.constexpr = (BLOCK_N + 8) * 2.0**-24
    index_of_pass = 0
    more = any_of(open_rows)
    while (more > 0) & (index_of_pass < max_passes):
        mass, mass_error = tl.zeros([BLOCK_M], tl.float32), tl.zeros([BLOCK_M], tl.float32)
        slope, curve = tl.zeros([BLOCK_M], tl.float32), tl.zeros([BLOCK_M], tl.float32)
        for index in range(below):
            key_start = listed(list_ptr, index, first) * BLOCK_N
            k = whole_tile(key, batch, head // group, key_start, BLOCK_N, BLOCK_D, HEAD_DIM)
            gap = positive(above(inner_products(q, k), z_scale, base, rest))
            probs, sensitivity, bend = gap_powers(gap, order, POWER)
            curve += tl.sum(bend, axis=1)
            slope += tl.sum(sensitivity, axis=1)
            mass, mass_error = add_compensated(mass, mass_error, tl.sum(probs, axis=1))
        for index in range(below, length):
            key_start = listed(list_ptr, index, first) * BLOCK_N
            k = operand_tile(key, batch, head // group, key_start, n_keys, BLOCK_N, BLOCK_D, HEAD_DIM)
            visible = visible_tile(
                ranges, batch, query_start, key_start, n_queries, n_keys, IS_CAUSAL, BLOCK_M, BLOCK_N
            )
            gap = tl.where(visible, positive(above(inner_products(q, k), z_scale, base, rest)), 0.0)
            probs, sensitivity, bend = gap_powers(gap, order, POWER)
            curve += tl.sum(bend, axis=1)
            slope += tl.sum(sensitivity, axis=1)
            mass, mass_error = add_compensated(mass, mass_error, tl.sum(probs, axis=1))
        mass += mass_error

        defect = tl.abs(mass - 1.0)
        bend = bend_of(mass, slope, curve, slope_before, moved, POWER)
        next_rest, next_lo, next_hi, next_nearest = safeguarded_step(
            rest, lo, hi, nearest, mass, slope, bend, tolerance, RELATIVE_ERROR, length * 2.0**-23, order, POWER
        )
        slope_before, moved = slope, next_rest - rest
        # The base follows tau; the bracket, counted from it, moves the other way.
        next_base, error = add_exactly(base, next_rest)
        nearest = next_nearest - next_rest + error
        next_lo, next_hi, next_rest = next_lo - next_rest + error, next_hi - next_rest + error, error
        # A row that is within takes this last step (it costs nothing) and then stays as it is, so that its
        # result does not depend on the other rows of the tile.
        residual = tl.where(open_rows, defect, residual)
        passes += (open_rows & (defect > tolerance)).to(tl.int32)
        base, rest = tl.where(open_rows, next_base, base), tl.where(open_rows, next_rest, rest)
        lo, hi = tl.where(open_rows, next_lo, lo), tl.where(open_rows, next_hi, hi)
        open_rows = open_rows & (defect > tolerance)
        more = any_of(open_rows)
        index_of_pass += 1

    ordinary = tl.abs(tau) < float("inf")
    tl.store(base_ptr + offsets, tl.where(ordinary, base, tau), mask=exists)
    tl.store(rest_ptr + offsets, tl.where(ordinary, rest, 0.0), mask=exists)
    tl.store(residual_ptr + offsets, residual, mask=exists)
    tl.store(passes_ptr + offsets, passes, mask=exists)
