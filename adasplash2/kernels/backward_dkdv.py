"""How does the loss change with each key and value?  One program per key block, over the query blocks that keep it."""

import triton
import triton.language as tl

from .power import gap_probs, gap_sensitivity
from .tile import (
    WORD,
    clear_lowest_bit,
    gap_tile,
    has_threshold,
    inner_products,
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
def backward_dkdv_kernel(
    query, key, value, d_out, d_key, d_value, row_max_ptr, tau_ptr, delta_ptr, transposed_ptr,
    z_scale, scale, kv_heads, group, n_queries, n_keys, head_dim, n_transposed_words,
    IS_CAUSAL: tl.constexpr, POWER: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Grid (key blocks * batch * kv_heads,).

    Reads the operands, row_max, tau, delta and the transposed block mask; writes d_key and d_value.  The query heads
    of a group and their blocks are added in a fixed order, so the same inputs give the same bits.
    Lemmas: jacobian_form, delta_is_centre, block_mask_superset
    """
    key_block, batch, kv_head, batch_kv_head = program_place(n_keys, kv_heads, BLOCK_N)
    key_start = key_block * BLOCK_N
    k = operand_tile(key, batch, kv_head, key_start, n_keys, head_dim, BLOCK_N, BLOCK_D)
    v = operand_tile(value, batch, kv_head, key_start, n_keys, head_dim, BLOCK_N, BLOCK_D)

    total_key = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    total_value = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    for member in range(group):
        head = kv_head * group + member
        batch_head = batch_kv_head * group + member
        words_ptr = mask_words(transposed_ptr, batch_head, key_block, n_keys, n_transposed_words, BLOCK_N)
        for index in range(n_transposed_words):
            word = tl.load(words_ptr + index)
            while word != 0:
                query_start = (index * WORD + lowest_bit(word)) * BLOCK_M
                word = clear_lowest_bit(word)
                offsets, exists = row_offsets(batch_head, query_start, n_queries, BLOCK_M)
                reference = row_reference(tl.load(row_max_ptr + offsets, mask=exists, other=float("-inf")))
                tau = tl.load(tau_ptr + offsets, mask=exists, other=float("inf"))
                healthy = has_threshold(tau)
                delta = tl.load(delta_ptr + offsets, mask=healthy, other=0.0)
                q = operand_rows(query, batch, head, query_start, healthy, head_dim, BLOCK_M, BLOCK_D)
                grad = operand_rows(d_out, batch, head, query_start, healthy, head_dim, BLOCK_M, BLOCK_D)
                shifted = score_tile(q, k, z_scale) - reference[:, None]
                visible = visible_tile(query_start, key_start, n_queries, n_keys, IS_CAUSAL, BLOCK_M, BLOCK_N)
                gap = gap_tile(shifted, tau, visible)
                probs = gap_probs(gap, POWER)
                total_value = tl.dot(tl.trans(probs.to(grad.dtype)), grad, total_value, input_precision="ieee")
                d_probs = inner_products(grad, v)
                d_scores = gap_sensitivity(gap, POWER) * (d_probs - delta[:, None])
                total_key = tl.dot(tl.trans(d_scores.to(q.dtype)), q, total_key, input_precision="ieee")
    store_operand_tile(d_key, total_key * scale, batch, kv_head, key_start, n_keys, head_dim, BLOCK_N, BLOCK_D)
    store_operand_tile(d_value, total_value, batch, kv_head, key_start, n_keys, head_dim, BLOCK_N, BLOCK_D)
