"""How does the loss change with each query?  One program per query block, over the blocks that it keeps."""

import triton
import triton.language as tl

from .power import gap_sensitivity
from .tile import (
    WORD,
    clear_lowest_bit,
    gap_tile,
    has_threshold,
    inner_products,
    known_or_zero,
    lowest_bit,
    mask_words,
    operand_rows,
    operand_tile,
    program_place,
    row_offsets,
    row_reference,
    score_tile,
    store_operand_tile,
    visible_tile,
)


@triton.jit
def backward_dq_kernel(
    query, key, value, d_out, d_query, row_max_ptr, tau_ptr, delta_ptr, block_mask_ptr,
    z_scale, scale, heads, group, n_queries, n_keys, head_dim, n_words,
    IS_CAUSAL: tl.constexpr, POWER: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Grid (query blocks * batch * heads,).

    Reads the operands, row_max, tau, delta and the block mask; writes d_query.
    Lemmas: jacobian_form, delta_is_centre, block_mask_superset
    """
    query_block, batch, head, batch_head = program_place(n_queries, heads, BLOCK_M)
    query_start = query_block * BLOCK_M
    q = operand_tile(query, batch, head, query_start, n_queries, head_dim, BLOCK_M, BLOCK_D)
    words_ptr = mask_words(block_mask_ptr, batch_head, query_block, n_queries, n_words, BLOCK_M)
    offsets, exists = row_offsets(batch_head, query_start, n_queries, BLOCK_M)
    reference = row_reference(tl.load(row_max_ptr + offsets, mask=exists, other=float("-inf")))
    tau = tl.load(tau_ptr + offsets, mask=exists, other=float("inf"))
    healthy = has_threshold(tau)
    delta = tl.load(delta_ptr + offsets, mask=healthy, other=0.0)
    grad = operand_rows(d_out, batch, head, query_start, healthy, head_dim, BLOCK_M, BLOCK_D)

    total = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for index in range(n_words):
        word = tl.load(words_ptr + index)
        while word != 0:
            key_start = (index * WORD + lowest_bit(word)) * BLOCK_N
            word = clear_lowest_bit(word)
            v = operand_tile(value, batch, head // group, key_start, n_keys, head_dim, BLOCK_N, BLOCK_D)
            d_probs = inner_products(grad, v)
            k = known_or_zero(operand_tile(key, batch, head // group, key_start, n_keys, head_dim, BLOCK_N, BLOCK_D))
            shifted = score_tile(q, k, z_scale) - reference[:, None]
            visible = visible_tile(query_start, key_start, n_queries, n_keys, IS_CAUSAL, BLOCK_M, BLOCK_N)
            sensitivity = gap_sensitivity(gap_tile(shifted, tau, visible), POWER)
            d_scores = sensitivity * (d_probs - delta[:, None])
            total = tl.dot(d_scores.to(k.dtype), k, total, input_precision="ieee")
    store_operand_tile(d_query, total * scale, batch, head, query_start, n_queries, head_dim, BLOCK_M, BLOCK_D)
