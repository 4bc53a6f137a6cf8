"""Which score is the largest of each row, and which key blocks can hold support at all?

The only pass over all key blocks.  It visits the last visible block first (the diagonal, when causal), then backwards,
so that the running maximum is good early.
"""

import triton
import triton.language as tl

from .tile import (
    WORD,
    any_of,
    mask_words,
    operand_tile,
    program_place,
    row_offsets,
    score_tile,
    visible_key_blocks,
    visible_tile,
)


@triton.jit
def row_max_kernel(
    query, key, row_max_ptr, candidates_ptr,
    z_scale, heads, group, n_queries, n_keys, head_dim, n_words,
    IS_CAUSAL: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Grid (query blocks * batch * heads,).

    Reads query and key.  Writes row_max float32 (batch * heads, n_queries) and one candidate bit per key block, int32
    words (batch * heads, query blocks, n_words), zeroed by the caller.
    Invariant: a block whose bit stays 0 has every ``z - row_max <= -1 <= tau - row_max``, as float32 computes it.
    Lemmas: candidate_superset, threshold_bracket
    """
    query_block, batch, head, batch_head = program_place(n_queries, heads, BLOCK_M)
    query_start = query_block * BLOCK_M
    q = operand_tile(query, batch, head, query_start, n_queries, head_dim, BLOCK_M, BLOCK_D)
    words_ptr = mask_words(candidates_ptr, batch_head, query_block, n_queries, n_words, BLOCK_M)

    running = tl.full([BLOCK_M], float("-inf"), tl.float32)
    n_blocks = visible_key_blocks(query_start, n_queries, n_keys, IS_CAUSAL, BLOCK_M, BLOCK_N)
    word = 0
    for step in range(n_blocks):
        key_block = n_blocks - 1 - step
        key_start = key_block * BLOCK_N
        k = operand_tile(key, batch, head // group, key_start, n_keys, head_dim, BLOCK_N, BLOCK_D)
        z = score_tile(q, k, z_scale)
        # NaN and +inf both poison their row; +inf survives the maximum, NaN would not.
        z = tl.where(z == z, z, float("inf"))
        visible = visible_tile(query_start, key_start, n_queries, n_keys, IS_CAUSAL, BLOCK_M, BLOCK_N)
        tile_max = tl.max(tl.where(visible, z, float("-inf")), axis=1)
        running = tl.maximum(running, tile_max)
        # The difference, not "tile_max > running - 1": it is what later stages see, rounding included.
        candidate = any_of(tile_max - running > -1.0)
        word = word | (candidate << (key_block % WORD))
        if key_block % WORD == 0:
            tl.store(words_ptr + key_block // WORD, word)
            word = 0

    if any_of(running == float("inf")) != 0:
        # The NaN of such a row reaches the gradient of every key it sees, so it keeps every block it sees.
        for index in range(tl.cdiv(n_blocks, WORD)):
            blocks = tl.minimum(n_blocks - index * WORD, WORD)
            tl.store(words_ptr + index, ((1 << (blocks - 1)) - 1) * 2 + 1)

    offsets, exists = row_offsets(batch_head, query_start, n_queries, BLOCK_M)
    tl.store(row_max_ptr + offsets, running, mask=exists)
