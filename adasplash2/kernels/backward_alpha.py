"""How does the loss change with alpha?  By query blocks, over the blocks that they keep, once delta is known."""

import triton
import triton.language as tl

from .alpha_weight import gap_weight
from .lists import list_pointers, listed, load_numbers
from .power import gap_sensitivity, load_order, unit_scale
from .support import goes_by_keys
from .tile import above, has_threshold, inner_products, operand_rows, operand_tile, positive, query_place, row_offsets
from .visible import seen_keys, seen_tile, visible_tile


@triton.jit
def backward_alpha_kernel(
    query, key, value, d_out, d_alpha_ptr, base_ptr, rest_ptr, lists_ptr, numbers_ptr, delta_ptr,
    counts_ptr, used_ptr, ranges, alphas_ptr, z_scale, heads, group, n_queries, n_keys, capacity, support_capacity,
    row_pairs,
    IS_CAUSAL: tl.constexpr, POWER: tl.constexpr, BY_KEYS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, HEAD_DIM: tl.constexpr,
):  # fmt: skip
    """Grid (query blocks * batch * heads,).

    Blocks that go by single keys are left out: `backward_dq_keys` has what alpha gets from them.
    Reads the operands, tau as base and rest, delta, and the kept lists.  Writes what each query adds to the gradient of
    alpha, ``sum(d_scores * weight)``, float32 (batch * heads, n_queries).  Lemmas: jacobian_form, delta_is_centre
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
    _, length, first = load_numbers(numbers_ptr)
    offsets, exists = row_offsets(batch_head, query_start, n_queries, BLOCK_M)
    base = tl.load(base_ptr + offsets, mask=exists, other=float("inf"))
    rest = tl.load(rest_ptr + offsets, mask=exists, other=0.0)
    healthy = has_threshold(base)
    delta = tl.load(delta_ptr + offsets, mask=healthy, other=0.0)
    grad = operand_rows(d_out, batch, head, query_start, healthy, BLOCK_M, BLOCK_D, HEAD_DIM)
    d_alpha = tl.zeros([BLOCK_M], tl.float32)
    first_key, end_key = seen_keys(ranges, batch, query_start, n_queries, n_keys, BLOCK_M)
    for index in range(length):
        key_start = listed(list_ptr, index, first) * BLOCK_N
        k = operand_tile(key, batch, head // group, key_start, n_keys, BLOCK_N, BLOCK_D, HEAD_DIM)
        v = seen_tile(value, ranges, batch, head // group, key_start, first_key, end_key, BLOCK_N, BLOCK_D, HEAD_DIM)
        visible = visible_tile(ranges, batch, query_start, key_start, n_queries, n_keys, IS_CAUSAL, BLOCK_M, BLOCK_N)
        gap = tl.where(visible, positive(above(inner_products(q, k), z_scale, base, rest)), 0.0)
        weight = gap_sensitivity(gap, order, POWER) * gap_weight(gap, order[1])
        d_alpha += tl.sum(tl.where(gap == 0.0, 0.0, weight * (inner_products(grad, v) - delta[:, None])), axis=1)
    tl.store(d_alpha_ptr + offsets, d_alpha, mask=exists)
