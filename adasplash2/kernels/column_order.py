"""In which order does a key add up the rows that it supports?  Ascending, whatever order they came in."""

import triton
import triton.language as tl

from .support import PARTS, load_index, store_index
from .tile import largest_of, program_place, sum_of

# Rows of a list that are placed at a time; of one of more than MANY rows, which are placed list by list, and the others
# that these are compared with at a time.
SLOTS = tl.constexpr(8)
MANY = tl.constexpr(64)
WIDE_SLOTS = tl.constexpr(128)
OTHERS = tl.constexpr(16)


@triton.jit
def place_rows(columns_ptr, sorted_ptr, begin, length, most):
    """Sort lists of at most MANY rows side by side, the longest of which has ``most``."""
    for first in range(0, most, SLOTS):
        slots = first + tl.arange(0, SLOTS)[None, :]
        live = slots < length[:, None]
        rows = load_index(columns_ptr + begin[:, None] + slots, live)
        rank = tl.zeros([length.shape[0], SLOTS], tl.int32)
        # Every thread loads the other row of its lists itself: to exchange it takes longer (gauss1, 8192, H200: 0.21 ms
        # instead of 0.34).  Four at a time, so that the loads of all four are under way.
        of_slots, others_ptr = length[:, None] + slots * 0, columns_ptr + (begin[:, None] + slots * 0)
        for index in tl.range(most, loop_unroll_factor=4):
            inside = index < of_slots
            rank += (inside & (load_index(others_ptr + index, inside) < rows)).to(tl.int32)
        store_index(sorted_ptr, begin[:, None] + rank, rows, live)


@triton.jit
def place_many_rows(columns_ptr, sorted_ptr, begin, length):
    """Sort one list, however long."""
    for first in range(0, length, WIDE_SLOTS):
        places = first + tl.arange(0, WIDE_SLOTS)
        live = places < length
        rows = load_index(columns_ptr + begin + places, live)
        rank = tl.zeros([WIDE_SLOTS], tl.int32)
        for next_others in range(0, length, OTHERS):
            others = next_others + tl.arange(0, OTHERS)
            other = load_index(columns_ptr + begin + others, others < length)
            smaller = (others < length)[None, :] & (other[None, :] < rows[:, None])
            rank += tl.sum(smaller.to(tl.int32), axis=1)
        store_index(sorted_ptr, begin + rank, rows, live)


@triton.jit
def column_order_kernel(
    paths_ptr, column_counts_ptr, column_ends_ptr, columns_ptr, sorted_ptr, heads, group, n_keys, capacity,
    BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Grid (key blocks * batch * heads,).

    Reads the columns and writes them sorted, to the same places of another pool.  Each part of a column is a list: a
    row goes to the place that the number of smaller ones in its list says, and is there once at most.  Lists of the
    same part are about equally long, so they are sorted side by side.
    """
    key_block, _, _, batch_head = program_place(n_keys, heads, BLOCK_N)
    paths_ptr += (batch_head // group).to(tl.int64) * tl.cdiv(n_keys, BLOCK_N)
    if tl.load(paths_ptr + key_block) == 0:
        return
    columns_ptr += batch_head.to(tl.int64) * capacity
    sorted_ptr += batch_head.to(tl.int64) * capacity
    own = tl.arange(0, BLOCK_N)
    keys = key_block * BLOCK_N + own
    lists = batch_head.to(tl.int64) * n_keys * PARTS + keys * PARTS
    for part in range(PARTS):
        length = tl.load(column_counts_ptr + lists + part, mask=keys < n_keys, other=0)
        begin = tl.load(column_ends_ptr + lists + part, mask=keys < n_keys, other=0) - length
        longest = largest_of(length)
        place_rows(columns_ptr, sorted_ptr, begin, tl.where(length <= MANY, length, 0), tl.minimum(longest, MANY))
        if longest > MANY:
            for one in range(BLOCK_N):
                many = sum_of(tl.where(own == one, length, 0))
                if many > MANY:
                    place_many_rows(columns_ptr, sorted_ptr, sum_of(tl.where(own == one, begin, 0)), many)
