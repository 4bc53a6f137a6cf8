"""What is the score of each live key of a row?  For rows of few live keys, which have their entries from `collect`.

Products are float32 sums over gathered rows, as the gradients by single keys have them.  Apart from `solve`: without
its registers more programs are under way at a time, and all they do is to wait for keys.
"""

import triton
import triton.language as tl

from .found import load_found, settle_found, store_found
from .lists import MANY, NUMBERS, load_path
from .tile import largest_of, operand_tile, part_place, whole_gather
from .words import first_places, spread_keys

# Live keys that a row scores, in multiples of those that it keeps.
MOST = tl.constexpr(2)


@triton.jit
def room_for_keys(count, row_places, ROW_KEYS: tl.constexpr):
    """Return the first place behind the entries of all rows of a program, and how many keys each row may have there.

    0 where a row could not keep ROW_KEYS of them.
    """
    first = largest_of(count)
    room = tl.minimum(row_places - first, MOST * ROW_KEYS)
    return first, tl.where(room < ROW_KEYS, 0, room)


@triton.jit
def score_keys_kernel(
    query, key, entries_ptr, counts_ptr, n_live_ptr, n_wide_ptr, numbers_ptr,
    first_tile, n_part_heads, heads, group, n_queries, n_keys, row_places,
    KEYS: tl.constexpr, ROWS: tl.constexpr, ROW_KEYS: tl.constexpr, AT_ONCE: tl.constexpr, TILE_M: tl.constexpr,
    BLOCK_D: tl.constexpr, HEAD_DIM: tl.constexpr,
):  # fmt: skip
    """Grid (parts of ROWS queries of some of the blocks of TILE_M queries * batch * heads, from ``first_tile`` on).

    Reads query, key and the entries of `collect`, for blocks of TILE_M queries of few live keys.  Writes how many live
    keys each row has, int32 (blocks of this start, TILE_M), and, behind the entries of the ROWS rows, those keys,
    ascending, each with its product q.k.  Nothing of either where the entries leave too little room, and no product
    where a row has more keys than the room: these rows are wide, and their programs counted, int32 (blocks,).
    """
    n_blocks = tl.cdiv(n_queries, TILE_M)
    PARTS: tl.constexpr = TILE_M // ROWS
    own_tile, part = tl.program_id(0) // PARTS, tl.program_id(0) % PARTS
    batch_head, query_block = part_place(first_tile, own_tile, n_part_heads, n_blocks)
    batch, head = batch_head // heads, batch_head % heads
    query_start = query_block * TILE_M + part * ROWS
    if load_path(numbers_ptr + (batch_head.to(tl.int64) * n_blocks + query_block) * NUMBERS) == MANY:
        return
    exists = query_start + tl.arange(0, ROWS) < n_queries
    own_offsets = own_tile.to(tl.int64) * TILE_M + part * ROWS + tl.arange(0, ROWS)
    count = tl.load(counts_ptr + own_offsets, mask=exists, other=0)
    first, room = room_for_keys(count, row_places, ROW_KEYS)
    if room == 0:
        tl.atomic_add(n_wide_ptr + own_tile, 1, sem="relaxed")
        return
    places = first_places(own_offsets, row_places)
    n_live = spread_keys(entries_ptr, places, first, room, count, KEYS)
    tl.store(n_live_ptr + own_offsets, n_live, mask=exists)
    length = largest_of(n_live)
    if length > room:
        tl.atomic_add(n_wide_ptr + own_tile, 1, sem="relaxed")
        return
    q = operand_tile(query, batch, head, query_start, n_queries, ROWS, BLOCK_D, HEAD_DIM).to(tl.float32)
    settle_found()

    # The keys of a step are gathered together, and those of the next looked up while they come.
    found_places = places[None, :] + (first + tl.arange(0, AT_ONCE))[:, None] * ROWS
    slots, n_live = tl.arange(0, AT_ONCE)[:, None], n_live[None, :]
    _, found = load_found(entries_ptr, found_places, slots < n_live, 0.0)
    for begin in range(0, length, AT_ONCE):
        live = begin + slots < n_live
        # A row without another key reads key 0, and stores nothing.
        k = whole_gather(key, batch, head // group, tl.reshape(found, [AT_ONCE * ROWS]), BLOCK_D, HEAD_DIM)
        own, own_places = found, found_places + begin * ROWS
        _, found = load_found(entries_ptr, own_places + AT_ONCE * ROWS, begin + AT_ONCE + slots < n_live, 0.0)
        k = tl.reshape(k.to(tl.float32), [AT_ONCE, ROWS, BLOCK_D])
        store_found(entries_ptr, own_places, live, tl.sum(q[None, :, :] * k, axis=2), own)
