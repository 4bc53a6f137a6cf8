"""What does each query attend to?  The output, corrected to first order, and the centre that the backward needs."""

import triton
import triton.language as tl

from .power import gap_probs, gap_sensitivity
from .tile import (
    WORD,
    add_compensated,
    clear_lowest_bit,
    gap_tile,
    lowest_bit,
    mask_words,
    operand_tile,
    program_place,
    row_offsets,
    row_reference,
    score_tile,
    store_operand_tile,
    visible_tile,
)


@triton.jit
def output_kernel(
    query, key, value, out, centre, row_max_ptr, tau_ptr, block_mask_ptr, mass_ptr,
    z_scale, heads, group, n_queries, n_keys, head_dim, n_words,
    IS_CAUSAL: tl.constexpr, POWER: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Grid (query blocks * batch * heads,).

    Reads query, key, value, row_max, tau and the block mask.  Writes out, centre (float32, of the shape of query)
    and the row mass, float32 (batch * heads, n_queries).  Lemmas: first_order_correction, block_mask_superset
    """
    query_block, batch, head, batch_head = program_place(n_queries, heads, BLOCK_M)
    query_start = query_block * BLOCK_M
    q = operand_tile(query, batch, head, query_start, n_queries, head_dim, BLOCK_M, BLOCK_D)
    words_ptr = mask_words(block_mask_ptr, batch_head, query_block, n_queries, n_words, BLOCK_M)
    offsets, exists = row_offsets(batch_head, query_start, n_queries, BLOCK_M)
    reference = row_reference(tl.load(row_max_ptr + offsets, mask=exists, other=float("-inf")))
    tau = tl.load(tau_ptr + offsets, mask=exists, other=float("inf"))

    weighted = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    sensed = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    mass, mass_error = tl.zeros([BLOCK_M], tl.float32), tl.zeros([BLOCK_M], tl.float32)
    total, total_error = tl.zeros([BLOCK_M], tl.float32), tl.zeros([BLOCK_M], tl.float32)
    slope, slope_error = tl.zeros([BLOCK_M], tl.float32), tl.zeros([BLOCK_M], tl.float32)
    for index in range(n_words):
        word = tl.load(words_ptr + index)
        while word != 0:
            key_start = (index * WORD + lowest_bit(word)) * BLOCK_N
            word = clear_lowest_bit(word)
            k = operand_tile(key, batch, head // group, key_start, n_keys, head_dim, BLOCK_N, BLOCK_D)
            shifted = score_tile(q, k, z_scale) - reference[:, None]
            visible = visible_tile(query_start, key_start, n_queries, n_keys, IS_CAUSAL, BLOCK_M, BLOCK_N)
            gap = gap_tile(shifted, tau, visible)
            probs = gap_probs(gap, POWER)
            v = operand_tile(value, batch, head // group, key_start, n_keys, head_dim, BLOCK_N, BLOCK_D)
            # Weights are summed as the products take them, rounded to the dtype of value: then centre and corrected
            # output are weighted means of the values, and equal values give exactly that value.
            weight = probs.to(v.dtype)
            sensitivity = gap_sensitivity(gap, POWER).to(v.dtype)
            weighted = tl.dot(weight, v, weighted, input_precision="ieee")
            sensed = tl.dot(sensitivity, v, sensed, input_precision="ieee")
            mass, mass_error = add_compensated(mass, mass_error, tl.sum(probs, axis=1))
            total, total_error = add_compensated(total, total_error, tl.sum(weight.to(tl.float32), axis=1))
            slope, slope_error = add_compensated(slope, slope_error, tl.sum(sensitivity.to(tl.float32), axis=1))
    mass += mass_error
    total += total_error
    slope += slope_error

    empty = slope == 0.0
    mean = sensed * (1.0 / tl.where(empty, 1.0, slope))[:, None]
    defect = tl.where(empty, 0.0, total - 1.0)
    corrected = weighted - defect[:, None] * mean
    store_operand_tile(out, corrected, batch, head, query_start, n_queries, head_dim, BLOCK_M, BLOCK_D)
    store_operand_tile(centre, mean, batch, head, query_start, n_queries, head_dim, BLOCK_M, BLOCK_D)
    tl.store(mass_ptr + offsets, mass, mask=exists)
