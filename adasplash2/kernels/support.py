"""Which keys are the support of a row, and which rows does a key support?  Pools of indices that a head's rows share.

A row, or a column, has a start and a count in the pool of its head; where it starts says nothing and may differ from
run to run, what it holds may not.  ``used`` says how many places a head asked for: if its pool has fewer, some lists
were cut short, and all of the head goes by tiles.  A row whose threshold was found by tiles has the count -1.
Indices take 16 bits where that is enough.
"""

import triton
import triton.language as tl

from .lists import NUMBERS, load_numbers
from .tile import largest_of, row_offsets, sum_of

# A column is made of so many parts, each of the rows of one stretch of the queries: so it is in order but for what is
# in a part, and that is little to sort.
PARTS = tl.constexpr(8)
# Rows, or columns, of a program that gathers (SOLVE_ROWS in problem.py).
ROWS = tl.constexpr(16)


@triton.jit
def load_index(pointers, wanted):
    """Return indices as int32, 0 where not wanted."""
    index = tl.load(pointers, mask=wanted, other=0)
    if index.dtype == tl.int16:
        index = index.to(tl.int32) & 0xFFFF
    return index


@triton.jit
def store_index(pool_ptr, places, index, wanted):
    """Store indices at places of a pool."""
    tl.store(pool_ptr + places, index.to(pool_ptr.dtype.element_ty), mask=wanted)


@triton.jit
def load_slots(support_ptr, place, count, first, SLOTS: tl.constexpr):
    """Return SLOTS keys of some rows of a pool, from ``first`` in their lists on, and which exist; [rows, SLOTS]."""
    slots = first + tl.arange(0, SLOTS)[None, :]
    live = slots < count[:, None]
    return load_index(support_ptr + place[:, None] + slots, live), live


@triton.jit
def load_turned(
    support_ptr, place, count, first, paths_ptr, batch_head, group, n_keys, SLOTS: tl.constexpr, BLOCK_N: tl.constexpr
):
    """Return `load_slots`, without the keys of blocks that go by tiles: they have no column."""
    found, live = load_slots(support_ptr, place, count, first, SLOTS)
    paths_ptr += (batch_head // group).to(tl.int64) * tl.cdiv(n_keys, BLOCK_N)
    return found, live & (tl.load(paths_ptr + found // BLOCK_N, mask=live, other=0) > 0)


@triton.jit
def part_of(keys, rows, n_queries):
    """Return which part of the columns of some keys some rows belong to, counted over the keys of a head."""
    return keys * PARTS + rows // tl.cdiv(n_queries, PARTS)


@triton.jit
def load_parts(parts_ptr, keys, n_keys):
    """Return a number of each part of the columns of some keys, int32 [keys, PARTS]; 0 beyond the last key."""
    parts = tl.arange(0, PARTS)[None, :]
    return tl.load(parts_ptr + keys[:, None] * PARTS + parts, mask=(keys < n_keys)[:, None], other=0)


@triton.jit
def gathers(count):
    """Return what gathers for a block cost, in pairs: a program takes ROWS rows, as far as the longest goes."""
    of_program = tl.reshape(count, [count.shape[0] // ROWS, ROWS])
    return sum_of(tl.max(of_program, axis=1)) * ROWS


@triton.jit
def goes_by_keys(
    counts_ptr, used_ptr, numbers_ptr, batch_head, query_block, n_queries, capacity, row_pairs, BLOCK_M: tl.constexpr
):
    """Return whether a block of queries gets its gradient by single keys.

    It does where the support of its rows is in the pool, and a tile that it keeps costs as much as at most
    ``row_pairs`` of those that it holds on average.
    """
    offsets, exists = row_offsets(batch_head, query_block * BLOCK_M, n_queries, BLOCK_M)
    count = tl.load(counts_ptr + offsets, mask=exists, other=0)
    row = batch_head.to(tl.int64) * tl.cdiv(n_queries, BLOCK_M) + query_block
    _, length, _ = load_numbers(numbers_ptr + row * NUMBERS)
    listed = (largest_of(-count) <= 0) & (tl.load(used_ptr + batch_head) <= capacity)
    return listed & (gathers(count) <= length * row_pairs)


@triton.jit
def store_support(support_ptr, starts_ptr, counts_ptr, used_ptr, batch_head, offsets, exists, keys, held, capacity):
    """Append the keys [rows, slots] that are held to the pool, row by row; store where rows start, and their counts."""
    number = held.to(tl.int32)
    count = tl.sum(number, axis=1)
    total = tl.sum(tl.sum(number, axis=1)[None, :], axis=1)
    before = tl.cumsum(count[None, :], axis=1) - count[None, :]
    start = tl.atomic_add(used_ptr + batch_head, tl.sum(total, axis=0), sem="relaxed")
    start += tl.sum(before, axis=0)
    places = start[:, None] + tl.cumsum(number, axis=1) - number
    pool_ptr = support_ptr + batch_head.to(tl.int64) * capacity
    store_index(pool_ptr, places, keys, held & (places < capacity))
    tl.store(starts_ptr + offsets, start, mask=exists)
    tl.store(counts_ptr + offsets, count, mask=exists)


@triton.jit
def load_spans(starts_ptr, counts_ptr, batch_head, offsets, exists, capacity):
    """Return first places, int64, and counts of some rows of a pool, 0 for those without; and the largest count."""
    start = tl.load(starts_ptr + offsets, mask=exists, other=0)
    count = tl.maximum(tl.load(counts_ptr + offsets, mask=exists, other=0), 0)
    return batch_head.to(tl.int64) * capacity + start, count, largest_of(count)
