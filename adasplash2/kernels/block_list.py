"""Which blocks are set in each row of a mask?  Bits to lists, by queries or, of the transposed mask, by keys."""

import triton
import triton.language as tl

from .lists import list_pointers, store_numbers
from .tile import WORD
from .visible import visible_key_blocks

# Words of the mask that are read at a time.
STEP_WORDS = tl.constexpr(16)


@triton.jit
def block_list_kernel(
    mask_ptr, lists_ptr, numbers_ptr, ranges, heads, n_queries, n_keys, n_words, n_blocks, n_rows, capacity,
    IS_CAUSAL: tl.constexpr, BY_KEYS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Grid (rows of the mask * batch * heads,).

    Reads a mask, int32 words (batch * heads, n_rows, n_words) of n_blocks bits.  Writes for each row the ascending list
    of its set bits and its numbers (`lists`).  The limit, by queries, is the first block that some query does not see
    whole; by keys, the first block whose queries all see every key.
    Where queries have ranges, all blocks are on the side that is tested.
    """
    row = tl.program_id(0).to(tl.int64)
    own = tl.program_id(0) % n_rows
    if BY_KEYS:
        begin, limit = 0, 0
        if IS_CAUSAL:
            hidden = n_keys - n_queries
            begin = tl.minimum(tl.maximum(own * BLOCK_N - hidden, 0) // BLOCK_M, n_blocks)
            last_key = tl.minimum(own * BLOCK_N + BLOCK_N, n_keys) - 1
            limit = tl.minimum(tl.cdiv(tl.maximum(last_key - hidden, 0), BLOCK_M), n_blocks)
        if ranges is not None:
            limit = n_blocks
        end = n_blocks
    else:
        batch = tl.program_id(0) // (n_rows * heads)
        begin, _, limit, end = visible_key_blocks(
            ranges, batch, own * BLOCK_M, n_queries, n_keys, IS_CAUSAL, BLOCK_M, BLOCK_N
        )
        if ranges is not None:
            limit = 0
    list_ptr, numbers_ptr = list_pointers(lists_ptr, numbers_ptr, row, capacity)
    words_ptr = mask_ptr + row * n_words

    SLOTS: tl.constexpr = STEP_WORDS * WORD
    slots = tl.arange(0, SLOTS)
    length, below = 0, 0
    for start in range(begin // WORD, tl.cdiv(end, WORD), STEP_WORDS):
        blocks = start * WORD + slots
        words = tl.load(words_ptr + blocks // WORD, mask=blocks < n_blocks, other=0)
        chosen = (words >> (blocks % WORD)) & 1
        place = length + tl.cumsum(chosen, axis=0) - chosen
        tl.store(list_ptr + place, blocks, mask=(chosen != 0) & (place < capacity))
        length += tl.sum(chosen, axis=0)
        below += tl.sum(tl.where(blocks < limit, chosen, 0), axis=0)
    full = length > capacity
    store_numbers(
        numbers_ptr,
        tl.where(full, tl.maximum(limit - begin, 0), below),
        tl.where(full, end - begin, length),
        tl.where(full, begin, -1),
    )
