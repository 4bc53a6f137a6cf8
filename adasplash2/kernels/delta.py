"""What does each row subtract from its score gradients?  ``delta = centre . d_out``, in float32."""

import triton
import triton.language as tl

from .tile import operand_tile, program_place, row_offsets


@triton.jit
def delta_kernel(centre, d_out, delta_ptr, heads, n_queries, head_dim, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr):
    """Grid (query blocks * batch * heads,).

    Reads centre and d_out, writes delta float32 (batch * heads, n_queries).  Lemma: delta_is_centre
    """
    query_block, batch, head, batch_head = program_place(n_queries, heads, BLOCK_M)
    query_start = query_block * BLOCK_M
    mean = operand_tile(centre, batch, head, query_start, n_queries, head_dim, BLOCK_M, BLOCK_D).to(tl.float32)
    grad = operand_tile(d_out, batch, head, query_start, n_queries, head_dim, BLOCK_M, BLOCK_D).to(tl.float32)
    offsets, exists = row_offsets(batch_head, query_start, n_queries, BLOCK_M)
    tl.store(delta_ptr + offsets, tl.sum(mean * grad, axis=1), mask=exists)
