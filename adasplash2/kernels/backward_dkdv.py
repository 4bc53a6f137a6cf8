"""How does the loss change with each key and value?  By key blocks, over the query blocks that keep them."""

import triton
import triton.language as tl

from .column_segments import SEGMENT
from .lists import list_pointers, listed, load_numbers
from .power import gap_probs, gap_sensitivity, load_order, unit_scale
from .tile import (
    above_turned,
    has_threshold,
    inner_products,
    operand_rows,
    operand_tile,
    positive,
    row_offsets,
    store_operand_tile,
    turned_products,
    whole_tile,
)
from .visible import visible_turned


@triton.jit
def partial_pointers(partial_ptr, segment, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr):
    """Return the pointers to what a segment, int64, adds to the gradient of its keys; that of the values is behind."""
    places = tl.arange(0, BLOCK_N)[:, None] * BLOCK_D + tl.arange(0, BLOCK_D)[None, :]
    return partial_ptr + segment * (2 * BLOCK_N * BLOCK_D) + places


@triton.jit
def add_products(
    total_key, total_value, v, q, grad, gap, delta, order, HAS_PADDING: tl.constexpr, POWER: tl.constexpr
):  # fmt: skip
    """Add to the gradients of some keys what the queries of a tile [keys, queries] with these gaps have for them.

    With HAS_PADDING a value may hold anything where the gaps of its key are 0.
    """
    total_value = tl.dot(gap_probs(gap, order, POWER).to(grad.dtype), grad, total_value, input_precision="ieee")
    d_scores = gap_sensitivity(gap, order, POWER) * (inner_products(v, grad) - delta[None, :])
    if HAS_PADDING:
        d_scores = tl.where(gap == 0.0, 0.0, d_scores)
    total_key = tl.dot(d_scores.to(q.dtype), q, total_key, input_precision="ieee")
    return total_key, total_value


@triton.jit
def add_tile(
    total_key, total_value, k, v, query, d_out, base_ptr, rest_ptr, delta_ptr, ranges, order, z_scale,
    batch, head, batch_head, query_start, key_start, n_queries, n_keys,
    IS_CAUSAL: tl.constexpr, POWER: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr, HEAD_DIM: tl.constexpr,
):  # fmt: skip
    """Add to the gradients of some keys what a block of queries has for them, any of which may be hidden or poisoned.

    A poisoned query must not reach the keys that it does not see.
    """
    offsets, exists = row_offsets(batch_head, query_start, n_queries, BLOCK_M)
    base = tl.load(base_ptr + offsets, mask=exists, other=float("inf"))
    rest = tl.load(rest_ptr + offsets, mask=exists, other=0.0)
    healthy = has_threshold(base)
    delta = tl.load(delta_ptr + offsets, mask=healthy, other=0.0)
    q = operand_rows(query, batch, head, query_start, healthy, BLOCK_M, BLOCK_D, HEAD_DIM)
    grad = operand_rows(d_out, batch, head, query_start, healthy, BLOCK_M, BLOCK_D, HEAD_DIM)
    visible = visible_turned(ranges, batch, query_start, key_start, n_queries, n_keys, IS_CAUSAL, BLOCK_M, k.shape[0])
    gap = tl.where(visible, positive(above_turned(turned_products(k, q), z_scale, base, rest)), 0.0)
    return add_products(total_key, total_value, v, q, grad, gap, delta, order, ranges is not None, POWER)


@triton.jit
def backward_dkdv_kernel(
    query, key, value, d_out, d_key, d_value, base_ptr, rest_ptr, delta_ptr, lists_ptr, numbers_ptr, paths_ptr,
    split_ptr, segments_ptr, partial_ptr, ranges, alphas_ptr, z_scale, scale, kv_heads, group, n_queries, n_keys,
    capacity, segment_capacity, split_tiles,
    IS_CAUSAL: tl.constexpr, POWER: tl.constexpr, BY_KEYS: tl.constexpr, IS_WHOLE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, HEAD_DIM: tl.constexpr,
):  # fmt: skip
    """Grid ((segment_capacity + key blocks) * batch * kv_heads,).

    Blocks that go by single queries are left out.  Blocks that are split (`column_segments`) are done segment by
    segment: what a segment of ``split_tiles`` tiles adds is stored as it is, float32 (batch * kv_heads,
    segment_capacity, 2, BLOCK_N, BLOCK_D), for `backward_dkdv_sum`.
    Reads the operands, tau as base and rest, delta and the lists of the transposed mask; writes d_key and d_value.
    The query heads of a group and their blocks are added in a fixed order, so the same inputs give the same bits.
    Tiles are [keys, queries]: then the weights are left factors as they are.
    IS_WHOLE says that blocks of queries divide their number.
    Where every query sees every key, what a poisoned query has is NaN for all of them; elsewhere it must not reach the
    keys that it does not see.  Lemmas: jacobian_form, delta_is_centre, block_mask_superset,
    skipped_keys_have_no_gradient
    """
    n_blocks = tl.cdiv(n_keys, BLOCK_N)
    n_programs = segment_capacity + n_blocks
    batch_kv_head, own = tl.program_id(0) // n_programs, tl.program_id(0) % n_programs
    batch, kv_head = batch_kv_head // kv_heads, batch_kv_head % kv_heads
    # Segments first: they take longest.
    key_block, begin, end = own - segment_capacity, 0, 2147483647
    is_segment = False
    if partial_ptr is not None:
        is_segment = own < segment_capacity
        segment = batch_kv_head.to(tl.int64) * segment_capacity + own
        place = batch_kv_head.to(tl.int64) * n_blocks + key_block
        is_split = tl.load(split_ptr + place, mask=is_segment == 0, other=0)
        key_block = tl.load(segments_ptr + segment * SEGMENT, mask=is_segment, other=key_block)
        begin = tl.load(segments_ptr + segment * SEGMENT + 1, mask=is_segment, other=0) * split_tiles
        end = tl.where(is_segment, begin + split_tiles, end)
        if (is_split > 0) | (key_block < 0):
            return
    key_start = key_block * BLOCK_N
    if BY_KEYS:
        if tl.load(paths_ptr + batch_kv_head.to(tl.int64) * n_blocks + key_block) > 0:
            return
    k = operand_tile(key, batch, kv_head, key_start, n_keys, BLOCK_N, BLOCK_D, HEAD_DIM)
    v = operand_tile(value, batch, kv_head, key_start, n_keys, BLOCK_N, BLOCK_D, HEAD_DIM)

    total_key = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    total_value = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    for member in tl.range(group, num_stages=1):
        head = kv_head * group + member
        batch_head = batch_kv_head * group + member
        order = load_order(alphas_ptr, batch_head, POWER)
        own_scale = unit_scale(z_scale, order, POWER)
        row = batch_head.to(tl.int64) * n_blocks + key_block
        list_ptr, numbers_of_list_ptr = list_pointers(lists_ptr, numbers_ptr, row, capacity)
        below, length, first = load_numbers(numbers_of_list_ptr)
        # Tiles are counted over the heads of the group.
        own_begin, own_end = tl.maximum(begin, 0), tl.minimum(end, length)
        begin, end = begin - length, end - length
        for index in range(own_begin, tl.minimum(below, own_end)):
            query_start = listed(list_ptr, index, first) * BLOCK_M
            total_key, total_value = add_tile(
                total_key, total_value, k, v, query, d_out, base_ptr, rest_ptr, delta_ptr, ranges, order,
                own_scale, batch, head, batch_head, query_start, key_start, n_queries, n_keys,
                IS_CAUSAL, POWER, BLOCK_M, BLOCK_D, HEAD_DIM,
            )  # fmt: skip
        for index in range(tl.maximum(below, own_begin), own_end):
            query_start = listed(list_ptr, index, first) * BLOCK_M
            offsets, exists = row_offsets(batch_head, query_start, n_queries, BLOCK_M)
            if IS_WHOLE:
                base, rest, delta = (
                    tl.load(base_ptr + offsets),
                    tl.load(rest_ptr + offsets),
                    tl.load(delta_ptr + offsets),
                )
                q = whole_tile(query, batch, head, query_start, BLOCK_M, BLOCK_D, HEAD_DIM)
                grad = whole_tile(d_out, batch, head, query_start, BLOCK_M, BLOCK_D, HEAD_DIM)
            else:
                base = tl.load(base_ptr + offsets, mask=exists, other=float("inf"))
                rest = tl.load(rest_ptr + offsets, mask=exists, other=0.0)
                delta = tl.load(delta_ptr + offsets, mask=exists, other=0.0)
                q = operand_rows(query, batch, head, query_start, exists, BLOCK_M, BLOCK_D, HEAD_DIM)
                grad = operand_rows(d_out, batch, head, query_start, exists, BLOCK_M, BLOCK_D, HEAD_DIM)
            gap = positive(above_turned(turned_products(k, q), own_scale, base, rest))
            total_key, total_value = add_products(total_key, total_value, v, q, grad, gap, delta, order, False, POWER)
    if partial_ptr is not None:
        if is_segment:
            pointers = partial_pointers(partial_ptr, segment, BLOCK_N, BLOCK_D)
            tl.store(pointers, total_key)
            tl.store(pointers + BLOCK_N * BLOCK_D, total_value)
            return
    store_operand_tile(d_key, total_key * scale, batch, kv_head, key_start, n_keys, BLOCK_N, BLOCK_D, HEAD_DIM)
    store_operand_tile(d_value, total_value, batch, kv_head, key_start, n_keys, BLOCK_N, BLOCK_D, HEAD_DIM)
