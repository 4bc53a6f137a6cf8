"""What is the threshold of a row of few live keys, and what does it attend to?

All live keys of a row are in hand, with their products, so its threshold is found to the last bit without another pass
over the keys.  The output is a float32 sum over gathered rows: nothing is rounded to the dtype but the result.
"""

import triton
import triton.language as tl

from .found import load_found, settle_found, store_found
from .lists import FEW, FULL, MANY, NUMBERS, load_path, store_path
from .power import gap_probs, gap_sensitivity, load_order, norm_step, unit_scale
from .score_keys import room_for_keys
from .support import store_support
from .tile import (
    WORD,
    above,
    add_exactly,
    any_of,
    largest_of,
    mask_words,
    operand_gather,
    part_place,
    positive,
    row_offsets,
    store_operand_tile,
)
from .words import first_places

# Keys a row up to which a program is done with so narrow a tile: half of the work that does not grow with the keys.
FEW_KEYS = tl.constexpr(32)


@triton.jit
def newton_root(shifted, tau, order, POWER: tl.constexpr):
    """Return the threshold of rows [rows, keys] to the last bit, from ``tau`` below it; the largest score is near 0.

    Newton on the norm of the gaps rises towards the root and never passes it, so it has arrived when it does not rise
    any more.  Lemmas: newton_norm_left, newton_stops_at_tau
    """
    rising = 1
    while rising > 0:
        gap = tl.maximum(shifted - tau[:, None], 0.0)
        mass, slope = tl.sum(gap_probs(gap, order, POWER), axis=1), tl.sum(gap_sensitivity(gap, order, POWER), axis=1)
        next_tau = tau + norm_step(mass, slope, order, POWER)
        rises = next_tau > tau
        tau = tl.where(rises, next_tau, tau)
        rising = any_of(rises)
    return tau


@triton.jit
def pair_of_rows(dots, lo, z_scale, order, POWER: tl.constexpr):
    """Return the threshold of rows [rows, keys] of products q.k as base and rest, the weights, their mass, and seen.

    Places without a key hold -inf; a row of nothing else is not seen, and has no mass.  ``lo`` is at or below the
    threshold.  Lemma: newton_norm_left
    """
    largest = tl.max(dots, axis=1)
    seen = largest > float("-inf")
    row_max = tl.where(seen, largest * z_scale, 0.0)
    # -inf times a scale of 0 would be NaN.
    held = dots > float("-inf")
    zero = row_max * 0.0
    shifted = tl.where(held, above(tl.where(held, dots, 0.0), z_scale, row_max, zero), float("-inf"))
    # row_max is rounded, the gaps are not: the largest score lies next to 0, not at it, and tau at most 1 below that.
    highest = tl.where(seen, tl.max(shifted, axis=1), 0.0)
    tau = newton_root(shifted, tl.minimum(tl.maximum(lo - row_max, highest - 1.0), highest), order, POWER)
    gap = tl.maximum(shifted - tau[:, None], 0.0)
    mass, slope = tl.sum(gap_probs(gap, order, POWER), axis=1), tl.sum(gap_sensitivity(gap, order, POWER), axis=1)
    # One step more than float32 can hold: the rest of the pair can.
    base, rest = add_exactly(row_max, tau)
    rest += tl.where(seen, norm_step(mass, slope, order, POWER), 0.0)
    base, rest = add_exactly(base, rest)
    gap = tl.where(held, positive(above(tl.where(held, dots, 0.0), z_scale, base, rest)), 0.0)
    probs = gap_probs(gap, order, POWER)
    return base, rest, probs, tl.sum(probs, axis=1), seen


@triton.jit
def store_rows(rows, pool, words_ptr, batch_head, offsets, wanted, keys, pair, BLOCK_N: tl.constexpr):
    """Store what `pair_of_rows` found of the wanted rows, that it took one pass, their support and its blocks."""
    base_ptr, rest_ptr, mass_ptr, residual_ptr, passes_ptr = rows
    support_ptr, starts_ptr, counts_ptr, used_ptr, capacity = pool
    base, rest, probs, mass, seen = pair
    tl.store(base_ptr + offsets, tl.where(seen, base, float("inf")), mask=wanted)
    tl.store(rest_ptr + offsets, tl.where(seen, rest, 0.0), mask=wanted)
    tl.store(mass_ptr + offsets, mass, mask=wanted)
    tl.store(residual_ptr + offsets, tl.where(seen, tl.abs(mass - 1.0), 0.0), mask=wanted)
    tl.store(passes_ptr + offsets, seen.to(tl.int32), mask=wanted)
    held = (probs > 0.0) & wanted[:, None]
    store_support(support_ptr, starts_ptr, counts_ptr, used_ptr, batch_head, offsets, wanted, keys, held, capacity)
    blocks = keys // BLOCK_N
    tl.atomic_or(words_ptr + blocks // WORD, 1 << (blocks % WORD), mask=held, sem="relaxed")


@triton.jit
def keep_largest(dots, keys, dot, found):
    """Put each row's new key in the place of its smallest, or drop it."""
    slots = tl.arange(0, dots.shape[1])[None, :]
    smallest = tl.min(dots, axis=1)
    first_smallest = tl.min(tl.where(dots == smallest[:, None], slots, dots.shape[1]), axis=1)
    place = (slots == first_smallest[:, None]) & (dot > smallest)[:, None]
    return tl.where(place, dot[:, None], dots), tl.where(place, found[:, None], keys)


@triton.jit
def lacks_keys(probs, exists):
    """Return 1 if a row may have support among the keys that `keep_largest` dropped, else 0.

    The smallest key of a full row is a bound of all that it dropped: without a gap itself, none of them has one.
    """
    return any_of((tl.min(probs, axis=1) > 0.0) & exists)


@triton.jit
def leave_to_wide(unsolved_ptr, n_unsolved_ptr):
    """List this program as one of those that `solve_wide` does; their order says nothing, and may differ."""
    tl.store(unsolved_ptr + tl.atomic_add(n_unsolved_ptr, 1, sem="relaxed"), tl.program_id(0))


@triton.jit
def gather_output(
    value, out, entries_ptr, found_places, n_found, mass, batch, head, group, query_start, end,
    ROWS: tl.constexpr, AT_ONCE: tl.constexpr, BLOCK_D: tl.constexpr, HEAD_DIM: tl.constexpr,
):  # fmt: skip
    """Store the mean of the values of the keys that rows keep in scratch, with their weights; ``mass`` is their sum.

    The values of a step are gathered together, and the keys of the next looked up while they come.
    Lemma: normalised_output
    """
    weighted = tl.zeros([ROWS, BLOCK_D], tl.float32)
    slots = tl.arange(0, AT_ONCE)[:, None]
    places = found_places[None, :] + slots * ROWS
    prob, found = load_found(entries_ptr, places, slots < n_found, 0.0)
    for begin in range(0, n_found, AT_ONCE):
        chosen, wanted = tl.reshape(found, [AT_ONCE * ROWS]), tl.reshape(prob > 0.0, [AT_ONCE * ROWS])
        v = operand_gather(value, batch, head // group, chosen, wanted, BLOCK_D, HEAD_DIM)
        own_prob, next_slots = prob, begin + AT_ONCE + slots
        prob, found = load_found(entries_ptr, places + (begin + AT_ONCE) * ROWS, next_slots < n_found, 0.0)
        v = tl.reshape(v.to(tl.float32), [AT_ONCE, ROWS, BLOCK_D])
        weighted += tl.sum(own_prob[:, :, None] * v, axis=0)
    mean = weighted * (1.0 / tl.where(mass == 0.0, 1.0, mass))[:, None]
    store_operand_tile(out, mean, batch, head, query_start, end, ROWS, BLOCK_D, HEAD_DIM)


@triton.jit
def solve_kernel(
    value, out, entries_ptr, counts_ptr, n_live_ptr, n_wide_ptr, unsolved_ptr, n_unsolved_ptr, numbers_ptr, lo_ptr,
    base_ptr, rest_ptr, mass_ptr, residual_ptr, passes_ptr, block_mask_ptr,
    support_ptr, starts_ptr, row_counts_ptr, used_ptr,
    alphas_ptr, z_scale, first_tile, n_part_heads, heads, group, n_queries, n_words, row_places, most_wide,
    support_capacity,
    POWER: tl.constexpr, ROWS: tl.constexpr, ROW_KEYS: tl.constexpr, AT_ONCE: tl.constexpr, TILE_M: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, HEAD_DIM: tl.constexpr,
):  # fmt: skip
    """Grid (parts of ROWS queries of some of the blocks of TILE_M queries * batch * heads, from ``first_tile`` on).

    Reads value, lo and the live keys of `score_keys`, for blocks of TILE_M queries of few live keys.  Writes tau as
    base and rest, row mass, residual, passes (1: that of `collect`), the bits of the blocks that hold support, the
    support itself and, but for SHARED blocks, out.  A row keeps its ROW_KEYS largest live keys; if their smallest is
    support, it may lack others: then the program is listed as unsolved, as it is where `score_keys` had no room.  A
    block with more than ``most_wide`` such programs is left to the tiles, which are sooner done with all of it.
    Lemmas: threshold_subset, newton_norm_left, normalised_output
    """
    n_blocks = tl.cdiv(n_queries, TILE_M)
    PARTS: tl.constexpr = TILE_M // ROWS
    own_tile, part = tl.program_id(0) // PARTS, tl.program_id(0) % PARTS
    batch_head, query_block = part_place(first_tile, own_tile, n_part_heads, n_blocks)
    batch, head = batch_head // heads, batch_head % heads
    query_start = query_block * TILE_M + part * ROWS
    numbers_ptr += (batch_head.to(tl.int64) * n_blocks + query_block) * NUMBERS
    path = load_path(numbers_ptr)
    if path == MANY:
        return
    if tl.load(n_wide_ptr + own_tile) > most_wide:
        store_path(numbers_ptr, FULL)
        return
    order = load_order(alphas_ptr, batch_head, POWER)
    z_scale = unit_scale(z_scale, order, POWER)
    offsets, exists = row_offsets(batch_head, query_start, n_queries, ROWS)
    own_offsets = own_tile.to(tl.int64) * TILE_M + part * ROWS + tl.arange(0, ROWS)
    count = tl.load(counts_ptr + own_offsets, mask=exists, other=0)
    first, room = room_for_keys(count, row_places, ROW_KEYS)
    if room == 0:
        leave_to_wide(unsolved_ptr, n_unsolved_ptr)
        return
    n_live = tl.load(n_live_ptr + own_offsets, mask=exists, other=0)
    length = largest_of(n_live)
    if length > room:
        leave_to_wide(unsolved_ptr, n_unsolved_ptr)
        return
    found_places = first_places(own_offsets, row_places) + first * ROWS
    lo = tl.load(lo_ptr + offsets, mask=exists, other=float("-inf"))
    rows = base_ptr, rest_ptr, mass_ptr, residual_ptr, passes_ptr
    pool = support_ptr, starts_ptr, row_counts_ptr, used_ptr, support_capacity
    words_ptr = mask_words(block_mask_ptr, batch_head, query_start // BLOCK_M, n_queries, n_words, BLOCK_M)
    if length <= FEW_KEYS:
        few = tl.arange(0, FEW_KEYS)[None, :]
        few_places = found_places[:, None] + few * ROWS
        few_dots, few_keys = load_found(entries_ptr, few_places, few < n_live[:, None], float("-inf"))
        few_pair = pair_of_rows(few_dots, lo, z_scale, order, POWER)
        settle_found()
        store_found(entries_ptr, few_places, True, few_pair[2], few_keys)
        store_rows(rows, pool, words_ptr, batch_head, offsets, exists, few_keys, few_pair, BLOCK_N)
        mass, lacking = few_pair[3], False
    else:
        slots = tl.arange(0, ROW_KEYS)[None, :]
        kept_places = found_places[:, None] + slots * ROWS
        dots, keys = load_found(entries_ptr, kept_places, slots < n_live[:, None], float("-inf"))
        more_places = found_places + ROW_KEYS * ROWS
        dot, found = load_found(entries_ptr, more_places, ROW_KEYS < n_live, float("-inf"))
        for index in range(ROW_KEYS, length):
            # No room: the key takes the place of the smallest, or goes.  The largest ROW_KEYS stay.
            dots, keys = keep_largest(dots, keys, dot, found)
            more_places += ROWS
            dot, found = load_found(entries_ptr, more_places, index + 1 < n_live, float("-inf"))
        pair = pair_of_rows(dots, lo, z_scale, order, POWER)
        lacking = (length > ROW_KEYS) & (lacks_keys(pair[2], exists) > 0)
        # All threads have read what lies in the scratch: it is done with.
        settle_found()
        if not lacking:
            store_rows(rows, pool, words_ptr, batch_head, offsets, exists, keys, pair, BLOCK_N)
            store_found(entries_ptr, kept_places, True, pair[2], keys)
        mass = pair[3]
    if lacking:
        leave_to_wide(unsolved_ptr, n_unsolved_ptr)
        return
    settle_found()
    # FULL is another program's word on the same block: what this one does must not depend on it.
    by_keys = (path == FEW) | (path == FULL)
    n_found = tl.where(by_keys, tl.minimum(length, ROW_KEYS), 0)
    end = tl.where(by_keys, n_queries, 0)
    gather_output(
        value, out, entries_ptr, found_places, n_found, mass, batch, head, group, query_start, end,
        ROWS, AT_ONCE, BLOCK_D, HEAD_DIM,
    )  # fmt: skip
