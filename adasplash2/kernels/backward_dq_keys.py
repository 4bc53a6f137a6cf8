"""How does the loss change with each query of few keys?  By gathered keys, and delta on the way.

Products are float32 sums over gathered rows: nothing is rounded to the dtype but the result.
"""

import triton
import triton.language as tl

from .alpha_weight import gap_weight
from .power import gap_sensitivity, load_order, unit_scale
from .support import goes_by_keys, load_index, load_spans
from .tile import above_single, operand_gather, operand_tile, positive, query_place, row_offsets, store_operand_tile


@triton.jit
def backward_dq_keys_kernel(
    query, key, value, out, d_out, d_query, d_alpha_ptr, base_ptr, rest_ptr, delta_ptr,
    support_ptr, starts_ptr, counts_ptr, used_ptr, numbers_ptr,
    alphas_ptr, z_scale, scale, heads, group, n_queries, n_keys, capacity, row_pairs,
    POWER: tl.constexpr, ROWS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr, HEAD_DIM: tl.constexpr,
):  # fmt: skip
    """Grid (parts of ROWS queries * batch * heads,).

    Reads the operands, out, tau as base and rest, the numbers of the kept lists, and the support of the rows.  Writes
    d_query, delta and, unless it is None, d_alpha of the blocks of BLOCK_M queries that go by single keys, as
    `backward_dq` and `backward_alpha` do for all others.
    Lemmas: jacobian_form, delta_is_centre
    """
    query_block, batch, head, batch_head = query_place(n_queries, heads, ROWS)
    query_start = query_block * ROWS
    own = query_start // BLOCK_M
    by_keys = goes_by_keys(counts_ptr, used_ptr, numbers_ptr, batch_head, own, n_queries, capacity, row_pairs, BLOCK_M)
    if by_keys == 0:
        return
    order = load_order(alphas_ptr, batch_head, POWER)
    z_scale = unit_scale(z_scale, order, POWER)
    offsets, exists = row_offsets(batch_head, query_start, n_queries, ROWS)
    place, count, most = load_spans(starts_ptr, counts_ptr, batch_head, offsets, exists, capacity)
    base = tl.load(base_ptr + offsets, mask=exists, other=float("inf"))
    rest = tl.load(rest_ptr + offsets, mask=exists, other=0.0)
    q = operand_tile(query, batch, head, query_start, n_queries, ROWS, BLOCK_D, HEAD_DIM).to(tl.float32)
    grad = operand_tile(d_out, batch, head, query_start, n_queries, ROWS, BLOCK_D, HEAD_DIM).to(tl.float32)
    mean = operand_tile(out, batch, head, query_start, n_queries, ROWS, BLOCK_D, HEAD_DIM).to(tl.float32)
    # A part that all values share is in d_probs and in d_out . out alike, and must go before it is multiplied.
    shared = tl.sum(grad * mean, axis=1)

    lifted = tl.zeros([ROWS, BLOCK_D], tl.float32)
    plain = tl.zeros([ROWS, BLOCK_D], tl.float32)
    moment, slope = tl.zeros([ROWS], tl.float32), tl.zeros([ROWS], tl.float32)
    tilted, tilt = tl.zeros([ROWS], tl.float32), tl.zeros([ROWS], tl.float32)
    # Four at a time, so that the rows of all four are under way: 0.93 ms instead of 1.05 (gauss1, 32768, H100).
    for index in tl.range(most, loop_unroll_factor=4):
        live = index < count
        found = load_index(support_ptr + place + index, live)
        k = operand_gather(key, batch, head // group, found, live, BLOCK_D, HEAD_DIM).to(tl.float32)
        v = operand_gather(value, batch, head // group, found, live, BLOCK_D, HEAD_DIM).to(tl.float32)
        gap = tl.where(live, positive(above_single(tl.sum(q * k, axis=1), z_scale, base, rest)), 0.0)
        sensitivity = gap_sensitivity(gap, order, POWER)
        d_score = tl.where(live, sensitivity * (tl.sum(grad * v, axis=1) - shared), 0.0)
        slope += sensitivity
        moment += d_score
        if d_alpha_ptr is not None:
            weight = gap_weight(gap, order[1])
            tilted += d_score * weight
            tilt += sensitivity * weight
        lifted += d_score[:, None] * k
        plain += sensitivity[:, None] * k

    apart = moment / tl.where(slope == 0.0, 1.0, slope)
    total = (lifted - apart[:, None] * plain) * scale
    store_operand_tile(d_query, total, batch, head, query_start, n_queries, ROWS, BLOCK_D, HEAD_DIM)
    tl.store(delta_ptr + offsets, shared + apart, mask=exists)
    if d_alpha_ptr is not None:
        tl.store(d_alpha_ptr + offsets, tilted - apart * tilt, mask=exists)
