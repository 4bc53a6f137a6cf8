"""What do the segments of a block of keys add up to?  In their order, so the same inputs give the same bits."""

import triton
import triton.language as tl

from .backward_dkdv import partial_pointers
from .column_segments import SEGMENT
from .tile import store_operand_tile


@triton.jit
def backward_dkdv_sum_kernel(
    d_key, d_value, segments_ptr, partial_ptr, scale, kv_heads, n_keys, segment_capacity,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, HEAD_DIM: tl.constexpr,
):  # fmt: skip
    """Grid (segment_capacity * batch * kv_heads,).

    Reads the segments and what `backward_dkdv` found for each.  Writes d_key and d_value of the blocks that they make
    up; the program of the first segment of a block does it.
    """
    segment = tl.program_id(0).to(tl.int64)
    own_ptr = segments_ptr + segment * SEGMENT
    key_block = tl.load(own_ptr)
    if key_block < 0:
        return
    if tl.load(own_ptr + 1) > 0:
        return
    batch_kv_head = tl.program_id(0) // segment_capacity
    total_key = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    total_value = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    for index in range(tl.load(own_ptr + 2)):
        pointers = partial_pointers(partial_ptr, segment + index, BLOCK_N, BLOCK_D)
        total_key += tl.load(pointers)
        total_value += tl.load(pointers + BLOCK_N * BLOCK_D)
    batch, kv_head, key_start = batch_kv_head // kv_heads, batch_kv_head % kv_heads, key_block * BLOCK_N
    store_operand_tile(d_key, total_key * scale, batch, kv_head, key_start, n_keys, BLOCK_N, BLOCK_D, HEAD_DIM)
    store_operand_tile(d_value, total_value, batch, kv_head, key_start, n_keys, BLOCK_N, BLOCK_D, HEAD_DIM)
