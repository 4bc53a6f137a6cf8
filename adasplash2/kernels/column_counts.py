"""How many rows does each key support?"""

import triton
import triton.language as tl

from .support import PARTS, load_slots, load_spans, part_of
from .tile import query_place, row_offsets

# Keys of a row that are read at a time.
SLOTS = tl.constexpr(32)


@triton.jit
def column_counts_kernel(
    support_ptr, starts_ptr, counts_ptr, used_ptr, column_counts_ptr,
    heads, n_queries, n_keys, capacity, ROWS: tl.constexpr,
):  # fmt: skip
    """Grid (parts of ROWS queries * batch * heads,).

    Reads the support of the rows.  Adds 1 to the count of the part of each key's column, int32 (batch * heads, n_keys,
    PARTS).
    """
    query_block, _, _, batch_head = query_place(n_queries, heads, ROWS)
    if tl.load(used_ptr + batch_head) > capacity:
        return
    offsets, exists = row_offsets(batch_head, query_block * ROWS, n_queries, ROWS)
    place, count, most = load_spans(starts_ptr, counts_ptr, batch_head, offsets, exists, capacity)
    column_counts_ptr += batch_head.to(tl.int64) * n_keys * PARTS
    rows = (query_block * ROWS + tl.arange(0, ROWS))[:, None]
    for first in range(0, most, SLOTS):
        found, live = load_slots(support_ptr, place, count, first, SLOTS)
        tl.atomic_add(column_counts_ptr + part_of(found, rows, n_queries), 1, mask=live, sem="relaxed")
