"""What is the threshold of a row of few live keys, and what does it attend to?

All live keys of a row are in hand, so its threshold is found to the last bit without another pass over the keys.
Scores and output are float32 sums over gathered rows: nothing is rounded to the dtype but the result.
"""

import triton
import triton.language as tl

from .found import load_found, settle_found, store_found
from .lists import FEW, FULL, MANY, NUMBERS, load_path, store_path
from .power import gap_probs, gap_sensitivity, norm_step
from .support import store_support
from .tile import (
    WORD,
    above,
    add_exactly,
    any_of,
    mask_words,
    operand_gather,
    operand_tile,
    positive,
    row_offsets,
    store_operand_tile,
    tile_place,
)
from .words import first_places, next_key

# Live keys that are looked at, in multiples of those that are kept.
MOST = tl.constexpr(2)
# Keys a row up to which a program is done with so narrow a tile: half of the work that does not grow with the keys.
FEW_KEYS = tl.constexpr(32)


@triton.jit
def newton_root(shifted, tau, POWER: tl.constexpr):
    """Return the threshold of rows [rows, keys] to the last bit, from ``tau`` below it; the largest score is near 0.

    Newton on the norm of the gaps rises towards the root and never passes it, so it has arrived when it does not rise
    any more.  Lemmas: newton_norm_left, newton_stops_at_tau
    """
    rising = 1
    while rising > 0:
        gap = tl.maximum(shifted - tau[:, None], 0.0)
        mass, slope = tl.sum(gap_probs(gap, POWER), axis=1), tl.sum(gap_sensitivity(gap, POWER), axis=1)
        next_tau = tau + norm_step(mass, slope, POWER)
        rises = next_tau > tau
        tau = tl.where(rises, next_tau, tau)
        rising = any_of(rises)
    return tau


@triton.jit
def pair_of_rows(dots, lo, z_scale, POWER: tl.constexpr):
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
    tau = newton_root(shifted, tl.minimum(tl.maximum(lo - row_max, highest - 1.0), highest), POWER)
    gap = tl.maximum(shifted - tau[:, None], 0.0)
    mass, slope = tl.sum(gap_probs(gap, POWER), axis=1), tl.sum(gap_sensitivity(gap, POWER), axis=1)
    # One step more than float32 can hold: the rest of the pair can.
    base, rest = add_exactly(row_max, tau)
    rest += tl.where(seen, norm_step(mass, slope, POWER), 0.0)
    base, rest = add_exactly(base, rest)
    gap = tl.where(held, positive(above(tl.where(held, dots, 0.0), z_scale, base, rest)), 0.0)
    probs = gap_probs(gap, POWER)
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
def solve_kernel(
    query, key, value, out, entries_ptr, counts_ptr, numbers_ptr, lo_ptr, base_ptr, rest_ptr, mass_ptr,
    residual_ptr, passes_ptr, block_mask_ptr, support_ptr, starts_ptr, row_counts_ptr, used_ptr,
    z_scale, first_tile, heads, group, n_queries, n_keys, n_words, row_places, support_capacity,
    POWER: tl.constexpr, KEYS: tl.constexpr, ROWS: tl.constexpr, ROW_KEYS: tl.constexpr, IS_WIDE: tl.constexpr,
    TILE_M: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, HEAD_DIM: tl.constexpr,
):  # fmt: skip
    """Grid (parts of ROWS queries of some of the blocks of TILE_M queries * batch * heads, from ``first_tile`` on).

    Reads the operands and the entries of `collect`, for blocks of TILE_M queries of few live keys.  Writes tau as base
    and rest, row mass, residual, passes (1: that of `collect`), the bits of the blocks that hold support, the
    support itself and, but for SHARED blocks, out.  A row keeps its ROW_KEYS largest live keys; if their smallest is
    support, it may lack others: then a second start, with more room and IS_WIDE, takes the rows of the program, and
    where that has none either, the block is left to the tiles.  A row keeps its keys in the last of its
    ``row_places``: as it finds them, where it has so few entries that these are free; else, once the entries are done
    with, for its output.
    Lemmas: threshold_subset, newton_norm_left, normalised_output
    """
    n_blocks = tl.cdiv(n_queries, TILE_M)
    PARTS: tl.constexpr = TILE_M // ROWS
    own_tile, part = tl.program_id(0) // PARTS, tl.program_id(0) % PARTS
    batch_head, query_block = tile_place(first_tile + own_tile, n_blocks)
    batch, head = batch_head // heads, batch_head % heads
    query_start = query_block * TILE_M + part * ROWS
    tile = batch_head.to(tl.int64) * n_blocks + query_block
    numbers_ptr += tile * NUMBERS
    # FULL is another program's word on the same block: what this one does must not depend on it.
    path = load_path(numbers_ptr)
    if path == MANY:
        return
    offsets, exists = row_offsets(batch_head, query_start, n_queries, ROWS)
    own_offsets = own_tile.to(tl.int64) * TILE_M + part * ROWS + tl.arange(0, ROWS)
    places = first_places(own_offsets, row_places)
    found_places = places + (row_places - ROW_KEYS) * ROWS
    count = tl.load(counts_ptr + own_offsets, mask=exists, other=0)
    # The rows of a program are done together.
    if IS_WIDE:
        if any_of(count < 0) > 0:
            return
    else:
        if any_of(count > row_places - ROW_KEYS) > 0:
            return
    q = operand_tile(query, batch, head, query_start, n_queries, ROWS, BLOCK_D, HEAD_DIM).to(tl.float32)

    slots = tl.arange(0, ROW_KEYS)[None, :]
    if IS_WIDE:
        dots = tl.full([ROWS, ROW_KEYS], float("-inf"), tl.float32)
        keys = tl.zeros([ROWS, ROW_KEYS], tl.int32)
    word, group_of_keys, taken = count * 0, count * 0, count * 0
    found, live, word, group_of_keys, taken = next_key(word, group_of_keys, taken, count, entries_ptr, places, KEYS)
    more, length = any_of(live), 0
    while (more > 0) & (length < ROW_KEYS):
        # The next keys are looked up while those of these come.
        k = operand_gather(key, batch, head // group, found, live, BLOCK_D, HEAD_DIM)
        own, own_live = found, live
        found, live, word, group_of_keys, taken = next_key(word, group_of_keys, taken, count, entries_ptr, places, KEYS)
        more = any_of(live)
        dot = tl.where(own_live, tl.sum(q * k.to(tl.float32), axis=1), float("-inf"))
        if IS_WIDE:
            dots = tl.where(slots == length, dot[:, None], dots)
            keys = tl.where(slots == length, own[:, None], keys)
        else:
            store_found(entries_ptr, found_places + length * ROWS, dot, own)
        length += 1
    lo = tl.load(lo_ptr + offsets, mask=exists, other=float("-inf"))
    rows = base_ptr, rest_ptr, mass_ptr, residual_ptr, passes_ptr
    pool = support_ptr, starts_ptr, row_counts_ptr, used_ptr, support_capacity
    words_ptr = mask_words(block_mask_ptr, batch_head, query_start // BLOCK_M, n_queries, n_words, BLOCK_M)
    if IS_WIDE:
        is_narrow: tl.constexpr = False
    else:
        is_narrow = length <= FEW_KEYS
        settle_found()
    if is_narrow:
        few = tl.arange(0, FEW_KEYS)[None, :]
        few_dots, few_keys = load_found(entries_ptr, found_places[:, None] + few * ROWS, few < length, float("-inf"))
        few_pair = pair_of_rows(few_dots, lo, z_scale, POWER)
        settle_found()
        store_found(entries_ptr, found_places[:, None] + few * ROWS, few_pair[2], few_keys)
        store_rows(rows, pool, words_ptr, batch_head, offsets, exists, few_keys, few_pair, BLOCK_N)
        mass, lacking = few_pair[3], False
    else:
        if not IS_WIDE:
            dots, keys = load_found(entries_ptr, found_places[:, None] + slots * ROWS, slots < length, float("-inf"))
        overflows = more
        while (more > 0) & (length < MOST * ROW_KEYS):
            # No room: the key takes the place of the smallest, or goes.  The largest ROW_KEYS stay.
            k = operand_gather(key, batch, head // group, found, live, BLOCK_D, HEAD_DIM).to(tl.float32)
            dots, keys = keep_largest(dots, keys, tl.where(live, tl.sum(q * k, axis=1), float("-inf")), found)
            length += 1
            found, live, word, group_of_keys, taken = next_key(
                word, group_of_keys, taken, count, entries_ptr, places, KEYS
            )
            more = any_of(live)
        pair = pair_of_rows(dots, lo, z_scale, POWER)
        # The smallest of a full row is a bound of all keys that it dropped: without a gap itself, none of them has one.
        lacking = (more > 0) | (overflows > 0) & (any_of((tl.min(pair[2], axis=1) > 0.0) & exists) > 0)
        # All threads have read what lies in the scratch: its entries are done with.
        settle_found()
        if not lacking:
            store_rows(rows, pool, words_ptr, batch_head, offsets, exists, keys, pair, BLOCK_N)
            store_found(entries_ptr, found_places[:, None] + slots * ROWS, pair[2], keys)
        mass = pair[3]
    if lacking:
        # Left to programs with more room, or to the tiles.
        if IS_WIDE:
            store_path(numbers_ptr, FULL)
        return
    if not IS_WIDE:
        tl.store(counts_ptr + own_offsets, -1, mask=exists)
    settle_found()

    weighted = tl.zeros([ROWS, BLOCK_D], tl.float32)
    # FULL can only be the word of a program with more room, after all of those with less.
    by_keys = (path == FEW) | (path == FULL)
    n_found = tl.where(by_keys, tl.minimum(length, ROW_KEYS), 0)
    prob, chosen = load_found(entries_ptr, found_places, n_found > 0, 0.0)
    for index in range(n_found):
        v = operand_gather(value, batch, head // group, chosen, prob > 0.0, BLOCK_D, HEAD_DIM)
        own_prob = prob
        prob, chosen = load_found(entries_ptr, found_places + (index + 1) * ROWS, index + 1 < n_found, 0.0)
        weighted += own_prob[:, None] * v.to(tl.float32)
    mean = weighted * (1.0 / tl.where(mass == 0.0, 1.0, mass))[:, None]
    end = tl.where(by_keys, n_queries, 0)
    store_operand_tile(out, mean, batch, head, query_start, end, ROWS, BLOCK_D, HEAD_DIM)
