"""What does each query attend to?  ``sum(probs * value) / sum(probs)`` over the blocks that its tile keeps."""

import triton
import triton.language as tl

from .lists import FEW, MANY, NUMBERS, list_pointers, listed, load_numbers, load_path
from .power import gap_probs, load_order, unit_scale
from .tile import (
    above,
    add_compensated,
    inner_products,
    operand_tile,
    positive,
    query_place,
    row_offsets,
    store_operand_tile,
    whole_tile,
)
from .visible import seen_keys, seen_tile, visible_tile

# Columns of the product that sums the weights: the fewest that a matrix unit makes.
SUMS = tl.constexpr(16)


@triton.jit
def add_weights(total, weight):
    """Add the weights of a tile to each column of ``total``, as the product with the values takes and adds them.

    So the output is a weighted mean of the values, and equal values give that value, however coarse the dtype holds
    small weights.  float32 holds them as they are: their sum is the mass.
    """
    if weight.dtype != tl.float32:
        if weight.shape[0] >= 64:
            total = tl.dot(weight, tl.full([weight.shape[1], SUMS], 1.0, weight.dtype), total)
        else:
            # Matrix units have no narrow product for few rows.
            total += tl.sum(weight.to(tl.float32), axis=1)[:, None]
    return total


@triton.jit
def output_kernel(
    query, key, value, out, base_ptr, rest_ptr, lists_ptr, numbers_ptr, paths_ptr, mass_ptr, row_counts_ptr,
    ranges, alphas_ptr, z_scale, heads, group, n_queries, n_keys, capacity,
    IS_CAUSAL: tl.constexpr, POWER: tl.constexpr, BY_KEYS: tl.constexpr, TILE_M: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, HEAD_DIM: tl.constexpr,
):  # fmt: skip
    """Grid (query blocks * batch * heads,).

    Blocks of TILE_M queries of few live keys are left out: their output is there.
    Reads query, key, value, tau as base and rest, and the kept lists.  Writes out and the row mass, float32 (batch *
    heads, n_queries), and that rows of many keys have no support in the pool.
    Lemmas: block_mask_superset, normalised_output
    """
    query_block, batch, head, batch_head = query_place(n_queries, heads, BLOCK_M)
    query_start = query_block * BLOCK_M
    tile = batch_head.to(tl.int64) * tl.cdiv(n_queries, TILE_M) + query_start // TILE_M
    path = load_path(paths_ptr + tile * NUMBERS)
    if path == FEW:
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

    weighted = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    total = tl.zeros([BLOCK_M, SUMS], tl.float32)
    mass, mass_error = tl.zeros([BLOCK_M], tl.float32), tl.zeros([BLOCK_M], tl.float32)
    for index in range(below):
        key_start = listed(list_ptr, index, first) * BLOCK_N
        k = whole_tile(key, batch, head // group, key_start, BLOCK_N, BLOCK_D, HEAD_DIM)
        v = whole_tile(value, batch, head // group, key_start, BLOCK_N, BLOCK_D, HEAD_DIM)
        probs = gap_probs(positive(above(inner_products(q, k), z_scale, base, rest)), order, POWER)
        weight = probs.to(v.dtype)
        weighted = tl.dot(weight, v, weighted, input_precision="ieee")
        total = add_weights(total, weight)
        mass, mass_error = add_compensated(mass, mass_error, tl.sum(probs, axis=1))
    first_key, end_key = seen_keys(ranges, batch, query_start, n_queries, n_keys, BLOCK_M)
    for index in range(below, length):
        key_start = listed(list_ptr, index, first) * BLOCK_N
        k = operand_tile(key, batch, head // group, key_start, n_keys, BLOCK_N, BLOCK_D, HEAD_DIM)
        v = seen_tile(value, ranges, batch, head // group, key_start, first_key, end_key, BLOCK_N, BLOCK_D, HEAD_DIM)
        visible = visible_tile(ranges, batch, query_start, key_start, n_queries, n_keys, IS_CAUSAL, BLOCK_M, BLOCK_N)
        gap = tl.where(visible, positive(above(inner_products(q, k), z_scale, base, rest)), 0.0)
        probs = gap_probs(gap, order, POWER)
        weight = probs.to(v.dtype)
        weighted = tl.dot(weight, v, weighted, input_precision="ieee")
        total = add_weights(total, weight)
        mass, mass_error = add_compensated(mass, mass_error, tl.sum(probs, axis=1))
    mass += mass_error
    # Its columns are equal, and so is their mean, exactly.
    whole = mass
    if value[0].dtype.element_ty != tl.float32:
        whole = tl.sum(total, axis=1) * (1.0 / SUMS)

    mean = weighted * (1.0 / tl.where(whole == 0.0, 1.0, whole))[:, None]
    store_operand_tile(out, mean, batch, head, query_start, n_queries, BLOCK_M, BLOCK_D, HEAD_DIM)
    # Where single keys gave the threshold they gave the mass as well, from the same scores.
    tl.store(mass_ptr + offsets, mass, mask=exists & (path >= MANY))
    if BY_KEYS:
        tl.store(row_counts_ptr + offsets, tl.full([BLOCK_M], -1, tl.int32), mask=exists & (path >= MANY))
