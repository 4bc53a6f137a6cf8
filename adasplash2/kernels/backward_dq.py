"""How does the loss change with each query?  By query blocks, over the blocks that they keep; delta on the way."""

import triton
import triton.language as tl

from .lists import list_pointers, listed, load_numbers
from .power import gap_sensitivity, load_order, unit_scale
from .support import goes_by_keys
from .tile import (
    above,
    has_threshold,
    inner_products,
    known_or_zero,
    operand_rows,
    operand_tile,
    positive,
    query_place,
    row_offsets,
    store_operand_tile,
    whole_tile,
)
from .visible import seen_keys, seen_tile, visible_tile

# Kept tiles up to which a block of queries takes two passes.
TILES_OF_FEW_KEYS = tl.constexpr(8)


@triton.jit
def backward_dq_kernel(
    query, key, value, out, d_out, d_query, base_ptr, rest_ptr, lists_ptr, numbers_ptr, delta_ptr,
    counts_ptr, used_ptr, ranges, alphas_ptr, z_scale, scale, heads, group, n_queries, n_keys, capacity,
    support_capacity, row_pairs,
    IS_CAUSAL: tl.constexpr, POWER: tl.constexpr, BY_KEYS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, HEAD_DIM: tl.constexpr,
):  # fmt: skip
    """Grid (query blocks * batch * heads,).

    Blocks that go by single keys are left out.
    Reads the operands, out, tau as base and rest, and the kept lists.  Writes d_query and delta, the mean of d_probs
    under the sensitivities, float32 (batch * heads, n_queries).

    ``d_query = scale * (sum(s d_probs k) - delta sum(s k))``.  d_probs and delta are counted from ``d_out . out``: a
    part that all values share is in all three, and would cancel after it was rounded.
    Lemmas: jacobian_form, delta_is_centre, block_mask_superset,
    skipped_keys_have_no_gradient
    """
    query_block, batch, head, batch_head = query_place(n_queries, heads, BLOCK_M)
    query_start = query_block * BLOCK_M
    if BY_KEYS:
        by_keys = goes_by_keys(
            counts_ptr, used_ptr, numbers_ptr, batch_head, query_block, n_queries, support_capacity, row_pairs, BLOCK_M
        )
        if by_keys:
            return
    order = load_order(alphas_ptr, batch_head, POWER)
    z_scale = unit_scale(z_scale, order, POWER)
    q = operand_tile(query, batch, head, query_start, n_queries, BLOCK_M, BLOCK_D, HEAD_DIM)
    row = batch_head.to(tl.int64) * tl.cdiv(n_queries, BLOCK_M) + query_block
    list_ptr, numbers_ptr = list_pointers(lists_ptr, numbers_ptr, row, capacity)
    below, length, first = load_numbers(numbers_ptr)
    offsets, exists = row_offsets(batch_head, query_start, n_queries, BLOCK_M)
    base = tl.load(base_ptr + offsets, mask=exists, other=float("inf"))
    rest = tl.load(rest_ptr + offsets, mask=exists, other=0.0)
    healthy = has_threshold(base)
    grad = operand_rows(d_out, batch, head, query_start, healthy, BLOCK_M, BLOCK_D, HEAD_DIM)
    mean = operand_rows(out, batch, head, query_start, healthy, BLOCK_M, BLOCK_D, HEAD_DIM)
    shared = tl.sum(grad.to(tl.float32) * mean.to(tl.float32), axis=1)
    # Rows of few keys show every rounding of a weight.  Where few tiles hold them, delta is found first: counted from
    # it the weights are those of the gradient itself, and next to nothing is left to subtract.
    moment, slope = tl.zeros([BLOCK_M], tl.float32), tl.zeros([BLOCK_M], tl.float32)
    first_key, end_key = seen_keys(ranges, batch, query_start, n_queries, n_keys, BLOCK_M)
    for index in range(tl.where(length <= TILES_OF_FEW_KEYS, length, 0)):
        key_start = listed(list_ptr, index, first) * BLOCK_N
        k = operand_tile(key, batch, head // group, key_start, n_keys, BLOCK_N, BLOCK_D, HEAD_DIM)
        v = seen_tile(value, ranges, batch, head // group, key_start, first_key, end_key, BLOCK_N, BLOCK_D, HEAD_DIM)
        visible = visible_tile(ranges, batch, query_start, key_start, n_queries, n_keys, IS_CAUSAL, BLOCK_M, BLOCK_N)
        gap = tl.where(visible, positive(above(inner_products(q, k), z_scale, base, rest)), 0.0)
        sensitivity = gap_sensitivity(gap, order, POWER)
        slope += tl.sum(sensitivity, axis=1)
        moment += tl.sum(sensitivity * (inner_products(grad, v) - shared[:, None]), axis=1)
    shared += moment / tl.where(slope == 0.0, 1.0, slope)

    lifted = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    plain = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    moment, slope = tl.zeros([BLOCK_M], tl.float32), tl.zeros([BLOCK_M], tl.float32)
    for index in range(below):
        key_start = listed(list_ptr, index, first) * BLOCK_N
        k = whole_tile(key, batch, head // group, key_start, BLOCK_N, BLOCK_D, HEAD_DIM)
        v = whole_tile(value, batch, head // group, key_start, BLOCK_N, BLOCK_D, HEAD_DIM)
        sensitivity = gap_sensitivity(positive(above(inner_products(q, k), z_scale, base, rest)), order, POWER)
        d_scores = sensitivity * (inner_products(grad, v) - shared[:, None])
        slope += tl.sum(sensitivity, axis=1)
        moment += tl.sum(d_scores, axis=1)
        lifted = tl.dot(d_scores.to(k.dtype), k, lifted, input_precision="ieee")
        plain = tl.dot(sensitivity.to(k.dtype), k, plain, input_precision="ieee")
    for index in range(below, length):
        key_start = listed(list_ptr, index, first) * BLOCK_N
        k = seen_tile(key, ranges, batch, head // group, key_start, first_key, end_key, BLOCK_N, BLOCK_D, HEAD_DIM)
        k = known_or_zero(k)
        v = seen_tile(value, ranges, batch, head // group, key_start, first_key, end_key, BLOCK_N, BLOCK_D, HEAD_DIM)
        visible = visible_tile(ranges, batch, query_start, key_start, n_queries, n_keys, IS_CAUSAL, BLOCK_M, BLOCK_N)
        gap = tl.where(visible, positive(above(inner_products(q, k), z_scale, base, rest)), 0.0)
        sensitivity = gap_sensitivity(gap, order, POWER)
        d_scores = sensitivity * (inner_products(grad, v) - shared[:, None])
        slope += tl.sum(sensitivity, axis=1)
        moment += tl.sum(d_scores, axis=1)
        lifted = tl.dot(d_scores.to(k.dtype), k, lifted, input_precision="ieee")
        plain = tl.dot(sensitivity.to(k.dtype), k, plain, input_precision="ieee")

    apart = moment / tl.where(slope == 0.0, 1.0, slope)
    total = (lifted - apart[:, None] * plain) * scale
    store_operand_tile(d_query, total, batch, head, query_start, n_queries, BLOCK_M, BLOCK_D, HEAD_DIM)
    tl.store(delta_ptr + offsets, shared + apart, mask=exists)
