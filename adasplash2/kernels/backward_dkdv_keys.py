"""How does the loss change with each key and value that supports few rows?  By gathered queries."""

import triton
import triton.language as tl

from .backward_dkdv import add_tile
from .column_paths import UNLISTED
from .power import gap_probs, gap_sensitivity, load_order, unit_scale
from .support import PARTS, load_index, load_parts
from .tile import above_single, any_of, largest_of, operand_gather, operand_tile, positive, store_operand_tile

# Parts of ROWS keys that a program with IS_MIXED looks after: few are mixed, and to see that of one at a time would
# take longer than all else.
MIXED_PARTS = tl.constexpr(16)


@triton.jit
def are_own(
    parts, paths_ptr, n_unlisted_ptr, kv_head_blocks, group, n_keys,
    IS_MIXED: tl.constexpr, ROWS: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Return which parts of ROWS keys are those of a start with IS_MIXED, of ``kv_head_blocks`` blocks of keys."""
    n_parts, n_blocks = tl.cdiv(n_keys, ROWS), tl.cdiv(n_keys, BLOCK_N)
    batch_kv_head, block = parts // n_parts, parts % n_parts * ROWS // BLOCK_N
    place = batch_kv_head.to(tl.int64) * n_blocks + block
    path = tl.load(paths_ptr + place, mask=place < kv_head_blocks, other=0)
    n_tiles = path * 0
    for member in tl.range(group, num_stages=1):
        own_list = (batch_kv_head * group + member).to(tl.int64) * n_blocks + block
        n_tiles += tl.load(n_unlisted_ptr + own_list, mask=path > 0, other=0)
    return (path > 0) & ((n_tiles > 0) == IS_MIXED)


@triton.jit
def gather_columns(
    part, query, key, value, d_out, d_key, d_value, rows, columns, unlisted, ranges, alphas_ptr,
    z_scale, scale, kv_heads, group, n_queries, n_keys, capacity,
    IS_CAUSAL: tl.constexpr, POWER: tl.constexpr, IS_MIXED: tl.constexpr, ROWS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, HEAD_DIM: tl.constexpr,
):  # fmt: skip
    """Store d_key and d_value of one part of ROWS keys."""
    base_ptr, rest_ptr, delta_ptr = rows
    columns_ptr, column_ends_ptr, column_counts_ptr = columns
    unlisted_ptr, n_unlisted_ptr = unlisted
    n_parts = tl.cdiv(n_keys, ROWS)
    batch_kv_head, key_start = part // n_parts, part % n_parts * ROWS
    batch, kv_head = batch_kv_head // kv_heads, batch_kv_head % kv_heads
    stored_k = operand_tile(key, batch, kv_head, key_start, n_keys, ROWS, BLOCK_D, HEAD_DIM)
    stored_v = operand_tile(value, batch, kv_head, key_start, n_keys, ROWS, BLOCK_D, HEAD_DIM)
    k, v = stored_k.to(tl.float32), stored_v.to(tl.float32)
    keys = key_start + tl.arange(0, ROWS)
    total_key = tl.zeros([ROWS, BLOCK_D], tl.float32)
    total_value = tl.zeros([ROWS, BLOCK_D], tl.float32)
    for member in tl.range(group, num_stages=1):
        head = kv_head * group + member
        batch_head = batch_kv_head * group + member
        order = load_order(alphas_ptr, batch_head, POWER)
        own_scale = unit_scale(z_scale, order, POWER)
        if IS_MIXED:
            own_list = batch_head.to(tl.int64) * tl.cdiv(n_keys, BLOCK_N) + key_start // BLOCK_N
            for index in tl.range(tl.load(n_unlisted_ptr + own_list), num_stages=1):
                query_start = tl.load(unlisted_ptr + own_list * UNLISTED + index) * BLOCK_M
                total_key, total_value = add_tile(
                    total_key, total_value, stored_k, stored_v, query, d_out, base_ptr, rest_ptr, delta_ptr,
                    ranges, order, own_scale, batch, head, batch_head, query_start, key_start, n_queries, n_keys,
                    IS_CAUSAL, POWER, BLOCK_M, BLOCK_D, HEAD_DIM,
                )  # fmt: skip
        first_part = batch_head.to(tl.int64) * n_keys * PARTS
        of_parts = load_parts(column_counts_ptr + first_part, keys, n_keys)
        count, first_end = tl.sum(of_parts, axis=1), load_parts(column_ends_ptr + first_part, keys, n_keys) - of_parts
        place = batch_head.to(tl.int64) * capacity + tl.min(first_end, axis=1)
        first_row = batch_head.to(tl.int64) * n_queries
        # Four at a time: 1.76 ms instead of 1.95 (gauss1, 32768, H200).
        for index in tl.range(largest_of(count), loop_unroll_factor=4):
            live = index < count
            row = load_index(columns_ptr + place + index, live)
            q = operand_gather(query, batch, head, row, live, BLOCK_D, HEAD_DIM).to(tl.float32)
            grad = operand_gather(d_out, batch, head, row, live, BLOCK_D, HEAD_DIM).to(tl.float32)
            base = tl.load(base_ptr + first_row + row, mask=live, other=0.0)
            rest = tl.load(rest_ptr + first_row + row, mask=live, other=0.0)
            delta = tl.load(delta_ptr + first_row + row, mask=live, other=0.0)
            gap = tl.where(live, positive(above_single(tl.sum(q * k, axis=1), own_scale, base, rest)), 0.0)
            d_score = tl.where(live, gap_sensitivity(gap, order, POWER) * (tl.sum(grad * v, axis=1) - delta), 0.0)
            total_value += gap_probs(gap, order, POWER)[:, None] * grad
            total_key += d_score[:, None] * q
    store_operand_tile(d_key, total_key * scale, batch, kv_head, key_start, n_keys, ROWS, BLOCK_D, HEAD_DIM)
    store_operand_tile(d_value, total_value, batch, kv_head, key_start, n_keys, ROWS, BLOCK_D, HEAD_DIM)


@triton.jit
def backward_dkdv_keys_kernel(
    query, key, value, d_out, d_key, d_value, base_ptr, rest_ptr, delta_ptr,
    columns_ptr, column_ends_ptr, column_counts_ptr, paths_ptr, unlisted_ptr, n_unlisted_ptr,
    ranges, alphas_ptr, z_scale, scale, kv_heads, group, n_queries, n_keys, capacity, kv_head_blocks,
    IS_CAUSAL: tl.constexpr, POWER: tl.constexpr, IS_MIXED: tl.constexpr, ROWS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, HEAD_DIM: tl.constexpr,
):  # fmt: skip
    """Grid (parts of ROWS keys * batch * kv_heads,), with IS_MIXED one for MIXED_PARTS of them.

    Reads the operands, tau as base and rest, delta and the columns, sorted, of the blocks of BLOCK_N keys that go by
    single queries.  Writes d_key and d_value of these, as `backward_dkdv` does for all others.  Blocks of BLOCK_M
    queries that are in no column are taken as tiles: blocks of keys that have such queries wait for a start with
    IS_MIXED, since the registers of a tile would slow down all others.  The heads of a group, the tiles, and the rows
    of a column are added in a fixed order.  Lemmas: jacobian_form, delta_is_centre
    """
    rows = base_ptr, rest_ptr, delta_ptr
    columns, unlisted = (columns_ptr, column_ends_ptr, column_counts_ptr), (unlisted_ptr, n_unlisted_ptr)
    first, number = tl.program_id(0), 1
    if IS_MIXED:
        first *= MIXED_PARTS
        parts = first + tl.arange(0, MIXED_PARTS)
        own = are_own(parts, paths_ptr, n_unlisted_ptr, kv_head_blocks, group, n_keys, IS_MIXED, ROWS, BLOCK_N)
        number = tl.where(any_of(own) > 0, MIXED_PARTS, 0)
    for index in tl.range(number, num_stages=1):
        part = first + index
        if are_own(part, paths_ptr, n_unlisted_ptr, kv_head_blocks, group, n_keys, IS_MIXED, ROWS, BLOCK_N):
            gather_columns(
                part, query, key, value, d_out, d_key, d_value, rows, columns, unlisted, ranges, alphas_ptr,
                z_scale, scale, kv_heads, group, n_queries, n_keys, capacity,
                IS_CAUSAL, POWER, IS_MIXED, ROWS, BLOCK_M, BLOCK_N, BLOCK_D, HEAD_DIM,
            )  # fmt: skip
