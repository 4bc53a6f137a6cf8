"""Which keys reach above the lower bound of the threshold?  The candidates once more, for rows of few live keys."""

import triton
import triton.language as tl

from .lists import FEW, MANY, SHARED, list_pointers, listed, load_numbers, load_path, store_path
from .power import load_order, unit_scale
from .tile import (
    any_of,
    inner_products,
    operand_tile,
    part_place,
    row_offsets,
    sum_of,
    whole_tile,
)
from .visible import visible_tile
from .words import append_words, first_places


@triton.jit
def dead_products(lo, z_scale):
    """Return the products q.k of each row up to which a score is sure to lie at or below ``lo``, rounding included.

    +inf where lo is: a row without a key.  Lemma: dead_product_float
    """
    # The quotient may err by two units in the last place, and a product by z_scale by another.
    lowered = tl.where(lo < float("inf"), lo - tl.abs(lo) * 2.0**-20, lo)
    return lowered / z_scale


@triton.jit
def collect_kernel(
    query, key, lo_ptr, lists_ptr, numbers_ptr, entries_ptr, counts_ptr, n_wide_ptr, n_unsolved_ptr,
    ranges, alphas_ptr, z_scale, first_tile, n_part_heads, heads, group, n_queries, n_keys, capacity, entry_capacity,
    row_places,
    IS_CAUSAL: tl.constexpr, POWER: tl.constexpr, KEYS: tl.constexpr,
    SHARED_WORDS: tl.constexpr, MANY_WORDS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, HEAD_DIM: tl.constexpr,
):  # fmt: skip
    """Grid (some of the query blocks * batch * heads, from ``first_tile`` on).

    Reads query, key, lo and the candidates of each block of BLOCK_M queries.  Writes the entries of its rows (`words`),
    at most entry_capacity, int64 (blocks of this start, BLOCK_M * row_places), and how many, int32 (.., BLOCK_M); and 0
    for what `score_keys` counts by block, and `solve` over all.
    Blocks that the dense pass found to have many live keys are left out, and so, from here on, is a block of which a
    row has no room, or that has MANY_WORDS or more entries a candidate.  From SHARED_WORDS on the output of a block
    comes by tiles.
    Invariant: a key of no entry has ``z <= lo <= tau``.  Lemmas: threshold_subset, dead_product_float
    """
    n_blocks = tl.cdiv(n_queries, BLOCK_M)
    batch_head, query_block = part_place(first_tile, tl.program_id(0), n_part_heads, n_blocks)
    batch, head = batch_head // heads, batch_head % heads
    query_start = query_block * BLOCK_M
    row = batch_head.to(tl.int64) * n_blocks + query_block
    list_ptr, numbers_ptr = list_pointers(lists_ptr, numbers_ptr, row, capacity)
    below, length, first = load_numbers(numbers_ptr)
    list_ptr += capacity - length
    path = load_path(numbers_ptr)
    below, length = tl.where(path == FEW, below, 0), tl.where(path == FEW, length, 0)
    z_scale = unit_scale(z_scale, load_order(alphas_ptr, batch_head, POWER), POWER)
    q = operand_tile(query, batch, head, query_start, n_queries, BLOCK_M, BLOCK_D, HEAD_DIM)
    offsets, exists = row_offsets(batch_head, query_start, n_queries, BLOCK_M)
    dead = dead_products(tl.load(lo_ptr + offsets, mask=exists, other=float("inf")), z_scale)
    # 32 bit: the scratch is bounded.
    own_offsets = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    places = first_places(own_offsets, row_places)

    count = tl.zeros([BLOCK_M], tl.int32)
    GROUPS: tl.constexpr = BLOCK_N // KEYS
    for index in range(below):
        key_block = listed(list_ptr, index, first)
        k = whole_tile(key, batch, head // group, key_block * BLOCK_N, BLOCK_N, BLOCK_D, HEAD_DIM)
        live = inner_products(q, k) > dead[:, None]
        count = append_words(entries_ptr, places, count, live, key_block * GROUPS, entry_capacity, BLOCK_N, KEYS)
    for index in range(below, length):
        key_block = listed(list_ptr, index, first)
        k = operand_tile(key, batch, head // group, key_block * BLOCK_N, n_keys, BLOCK_N, BLOCK_D, HEAD_DIM)
        visible = visible_tile(
            ranges, batch, query_start, key_block * BLOCK_N, n_queries, n_keys, IS_CAUSAL, BLOCK_M, BLOCK_N
        )
        live = visible & (inner_products(q, k) > dead[:, None])
        count = append_words(entries_ptr, places, count, live, key_block * GROUPS, entry_capacity, BLOCK_N, KEYS)

    tl.store(counts_ptr + own_offsets, count, mask=exists)
    # `score_keys` and `solve` count from here on.
    tl.store(n_wide_ptr + tl.program_id(0), 0)
    tl.store(n_unsolved_ptr, 0)
    full = any_of(exists & (count > entry_capacity))
    words = sum_of(tl.where(exists, count, 0))
    path = tl.where((path == FEW) & (length > 0) & (words >= length * SHARED_WORDS), SHARED, path)
    store_path(numbers_ptr, tl.where((full > 0) | ((length > 0) & (words >= length * MANY_WORDS)), MANY, path))
