"""What `solve` finds, for the few programs with a row of more live keys than that has room for.

They score the keys themselves, one of a row at a time.
"""

import triton
import triton.language as tl

from .found import settle_found, store_found
from .lists import FEW, FULL, NUMBERS, load_path, store_path
from .power import load_order, unit_scale
from .solve import gather_output, keep_largest, lacks_keys, pair_of_rows, store_rows
from .tile import any_of, mask_words, operand_gather, operand_tile, part_place, row_offsets
from .words import first_places, next_key

# Live keys that are looked at, in multiples of those that are kept.
MOST = tl.constexpr(2)


@triton.jit
def solve_wide_kernel(
    query, key, value, out, entries_ptr, counts_ptr, unsolved_ptr, n_unsolved_ptr, numbers_ptr, lo_ptr,
    base_ptr, rest_ptr, mass_ptr, residual_ptr, passes_ptr, block_mask_ptr,
    support_ptr, starts_ptr, row_counts_ptr, used_ptr,
    alphas_ptr, z_scale, first_tile, n_part_heads, heads, group, n_queries, n_keys, n_words, row_places,
    support_capacity,
    POWER: tl.constexpr, KEYS: tl.constexpr, ROWS: tl.constexpr, ROW_KEYS: tl.constexpr, AT_ONCE: tl.constexpr,
    TILE_M: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, HEAD_DIM: tl.constexpr,
):  # fmt: skip
    """Grid (as many as fit on a GPU at a time: each takes its share of the programs that `solve` listed as unsolved).

    Reads the operands and the entries of `collect`, and does for those what `solve` does for the others.  A row keeps
    its ROW_KEYS largest live keys in registers, and in scratch, once the entries are done with, for its output; if it
    may lack others, the block is left to the tiles.
    Lemmas: threshold_subset, newton_norm_left, normalised_output
    """
    n_blocks = tl.cdiv(n_queries, TILE_M)
    PARTS: tl.constexpr = TILE_M // ROWS
    slots = tl.arange(0, ROW_KEYS)[None, :]
    rows = base_ptr, rest_ptr, mass_ptr, residual_ptr, passes_ptr
    pool = support_ptr, starts_ptr, row_counts_ptr, used_ptr, support_capacity
    for index in range(tl.program_id(0), tl.load(n_unsolved_ptr), tl.num_programs(0)):
        own_part = tl.load(unsolved_ptr + index)
        own_tile, part = own_part // PARTS, own_part % PARTS
        batch_head, query_block = part_place(first_tile, own_tile, n_part_heads, n_blocks)
        batch, head = batch_head // heads, batch_head % heads
        query_start = query_block * TILE_M + part * ROWS
        own_numbers_ptr = numbers_ptr + (batch_head.to(tl.int64) * n_blocks + query_block) * NUMBERS
        path = load_path(own_numbers_ptr)
        order = load_order(alphas_ptr, batch_head, POWER)
        own_scale = unit_scale(z_scale, order, POWER)
        offsets, exists = row_offsets(batch_head, query_start, n_queries, ROWS)
        own_offsets = own_tile.to(tl.int64) * TILE_M + part * ROWS + tl.arange(0, ROWS)
        places = first_places(own_offsets, row_places)
        count = tl.load(counts_ptr + own_offsets, mask=exists, other=0)
        q = operand_tile(query, batch, head, query_start, n_queries, ROWS, BLOCK_D, HEAD_DIM).to(tl.float32)
        dots = tl.full([ROWS, ROW_KEYS], float("-inf"), tl.float32)
        keys = tl.zeros([ROWS, ROW_KEYS], tl.int32)
        word, group_of_keys, taken, length = count * 0, count * 0, count * 0, 0
        found, live, word, group_of_keys, taken = next_key(word, group_of_keys, taken, count, entries_ptr, places, KEYS)
        more = any_of(live)
        while (more > 0) & (length < MOST * ROW_KEYS):
            # The next keys are looked up while those of these come.
            k = operand_gather(key, batch, head // group, found, live, BLOCK_D, HEAD_DIM)
            own, own_live = found, live
            found, live, word, group_of_keys, taken = next_key(
                word, group_of_keys, taken, count, entries_ptr, places, KEYS
            )
            more = any_of(live)
            dot = tl.where(own_live, tl.sum(q * k.to(tl.float32), axis=1), float("-inf"))
            if length < ROW_KEYS:
                dots = tl.where(slots == length, dot[:, None], dots)
                keys = tl.where(slots == length, own[:, None], keys)
            else:
                # No room: the key takes the place of the smallest, or goes.  The largest ROW_KEYS stay.
                dots, keys = keep_largest(dots, keys, dot, own)
            length += 1
        pair = pair_of_rows(dots, tl.load(lo_ptr + offsets, mask=exists, other=float("-inf")), own_scale, order, POWER)
        if (more > 0) | (length > ROW_KEYS) & (lacks_keys(pair[2], exists) > 0):
            store_path(own_numbers_ptr, FULL)
        else:
            words_ptr = mask_words(block_mask_ptr, batch_head, query_start // BLOCK_M, n_queries, n_words, BLOCK_M)
            store_rows(rows, pool, words_ptr, batch_head, offsets, exists, keys, pair, BLOCK_N)
            # All threads have read the entries: they are done with.
            settle_found()
            store_found(entries_ptr, places[:, None] + slots * ROWS, True, pair[2], keys)
            settle_found()
            # FULL is another program's word on the same block: what this one does must not depend on it.
            by_keys = (path == FEW) | (path == FULL)
            n_found = tl.where(by_keys, tl.minimum(length, ROW_KEYS), 0)
            end = tl.where(by_keys, n_queries, 0)
            gather_output(
                value, out, entries_ptr, places, n_found, pair[3], batch, head, group, query_start, end,
                ROWS, AT_ONCE, BLOCK_D, HEAD_DIM,
            )  # fmt: skip
