"""Which rows does each key support?  The support of the rows, turned over."""

import triton
import triton.language as tl

from .support import PARTS, load_spans, load_turned, part_of, store_index
from .tile import query_place, row_offsets

# Keys of a row that are turned at a time.
SLOTS = tl.constexpr(32)


@triton.jit
def columns_kernel(
    support_ptr, starts_ptr, counts_ptr, turned_ptr, paths_ptr, column_ends_ptr, columns_ptr,
    heads, group, n_queries, n_keys, capacity, ROWS: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Grid (parts of ROWS queries * batch * heads,).

    Reads the support of the rows of heads that are turned over.  Writes each row to the columns of its keys, within a
    part in the order in which programs arrive, and moves the start of a part, as `column_starts` left it, to its end.
    Keys of blocks that go by tiles are left out.
    """
    query_block, _, _, batch_head = query_place(n_queries, heads, ROWS)
    query_start = query_block * ROWS
    if tl.load(turned_ptr + batch_head // group) == 0:
        return
    offsets, exists = row_offsets(batch_head, query_start, n_queries, ROWS)
    place, count, most = load_spans(starts_ptr, counts_ptr, batch_head, offsets, exists, capacity)
    column_ends_ptr += batch_head.to(tl.int64) * n_keys * PARTS
    columns_ptr += batch_head.to(tl.int64) * capacity
    rows = tl.zeros([ROWS, SLOTS], tl.int32) + (query_start + tl.arange(0, ROWS))[:, None]
    for first in range(0, most, SLOTS):
        found, live = load_turned(
            support_ptr, place, count, first, paths_ptr, batch_head, group, n_keys, SLOTS, BLOCK_N
        )
        end = tl.atomic_add(column_ends_ptr + part_of(found, rows, n_queries), 1, mask=live, sem="relaxed")
        store_index(columns_ptr, end, rows, live)
