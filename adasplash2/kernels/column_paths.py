"""Which blocks of keys get their gradients by gathered queries, and which by tiles?"""

import triton
import triton.language as tl

from .lists import list_pointers, load_numbers
from .support import PARTS, gathers, load_parts
from .tile import largest_of, program_place, sum_of

# Places of a list that are read at a time.
STEP = tl.constexpr(128)
# Query blocks without their support that a block of keys may have, and what one costs there, in tiles: a program that
# gathers has fewer rows than a tile.
UNLISTED = tl.constexpr(32)
UNLISTED_TILES = tl.constexpr(3)


@triton.jit
def column_paths_kernel(
    lists_ptr, numbers_ptr, counts_ptr, used_ptr, column_counts_ptr, paths_ptr, block_pairs_ptr, unlisted_ptr,
    n_unlisted_ptr, kv_heads, group, n_queries, n_keys, list_capacity, capacity, column_rows, column_pairs,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Grid (key blocks * batch * kv_heads,).

    Reads the lists of the query blocks that keep a block of keys, and how many rows each of its keys supports.  Writes

    - how many tiles the block saves by single queries, at least 1, or 0 if it goes by tiles: its path, int32 (batch *
      kv_heads, key blocks);
    - how many rows its keys support: int32 (batch * heads, key blocks);
    - its query blocks without support in the pool, which go by tiles anyway: int32 (batch * heads, key blocks,
      UNLISTED), and how many they are.

    It goes by single queries where these have room, no key supports more than ``column_rows`` rows, and the work is
    less: a tile costs as much as ``column_pairs`` gathers.
    """
    key_block, _, _, batch_kv_head = program_place(n_keys, kv_heads, BLOCK_N)
    keys = key_block * BLOCK_N + tl.arange(0, BLOCK_N)
    places = tl.arange(0, STEP)
    pairs, tiles, most, missing, fits = 0, 0, 0, 0, 1
    for member in tl.range(group, num_stages=1):
        batch_head = batch_kv_head * group + member
        row = batch_head.to(tl.int64) * tl.cdiv(n_keys, BLOCK_N) + key_block
        list_ptr, numbers_of_list_ptr = list_pointers(lists_ptr, numbers_ptr, row, list_capacity)
        _, length, first = load_numbers(numbers_of_list_ptr)
        n_unlisted = 0
        for start in tl.range(0, length, STEP, num_stages=1):
            inside = start + places < length
            block = tl.load(list_ptr + start + places, mask=inside & (first < 0), other=0)
            block = tl.where(first < 0, block, first + start + places)
            inside = inside & (block * BLOCK_M < n_queries)
            first_row = batch_head.to(tl.int64) * n_queries + block * BLOCK_M
            chosen = (tl.load(counts_ptr + first_row, mask=inside, other=0) < 0).to(tl.int32)
            place = n_unlisted + tl.cumsum(chosen, axis=0) - chosen
            tl.store(unlisted_ptr + row * UNLISTED + place, block, mask=(chosen > 0) & (place < UNLISTED))
            n_unlisted += sum_of(chosen)
        tl.store(n_unlisted_ptr + row, n_unlisted)
        fits = tl.where((n_unlisted > UNLISTED) | (tl.load(used_ptr + batch_head) > capacity), 0, fits)
        parts_ptr = column_counts_ptr + batch_head.to(tl.int64) * n_keys * PARTS
        column = tl.sum(load_parts(parts_ptr, keys, n_keys), axis=1)
        tl.store(block_pairs_ptr + row, sum_of(column))
        most = tl.maximum(most, largest_of(column))
        pairs += gathers(column)
        tiles += length
        missing += n_unlisted
    tiles -= missing * UNLISTED_TILES
    by_keys = (fits > 0) & (most <= column_rows) & (pairs <= tiles * column_pairs)
    saved = tl.where(by_keys, tl.maximum(tiles - pairs // tl.maximum(column_pairs, 1), 1), 0)
    tl.store(paths_ptr + batch_kv_head.to(tl.int64) * tl.cdiv(n_keys, BLOCK_N) + key_block, saved)
