"""Between which bounds does the threshold of each row lie, by a count of its scores?

Counts the scores of the candidate blocks in bins of (about) equal ratio in ``row_max - z`` and solves the histogram
exactly: with every score lowered to the far edge of its bin, raised to the near edge, and in the middle.
"""

import triton
import triton.language as tl

from .lists import MANY, list_pointers, listed, load_numbers, load_path
from .power import counted_root, gap_probs, knot_root, load_order, unit_scale
from .tile import (
    WORD,
    above,
    inner_products,
    mask_words,
    operand_tile,
    query_place,
    row_offsets,
    whole_tile,
)
from .visible import visible_tile

BINS = tl.constexpr(16)
# Places of a list that are read at a time.
LISTED = tl.constexpr(128)
# Bits of a packed counter, and counters in an int32.  A tile adds at most BLOCK_N <= 128 < 2 ** 8 to one counter.
COUNTER_BITS = tl.constexpr(8)
COUNTERS = tl.constexpr(4)
COUNTER_MASK = tl.constexpr(2**8 - 1)
# The bits of the largest float32 below 1.
TOP_BITS = tl.constexpr(0x3F7FFFFF)
# Bounds the relative rounding of a root found by `histogram_root`.  Lemma: histogram_root_float
ROOT_ERROR = tl.constexpr(2.0**-18)


@triton.jit
def edge_bits(order, POWER: tl.constexpr):
    """Return how many low bits of a number do not tell its bin.

    Edges are told by the exponent of a number, and by the first bit of the mantissa: 2 ** -k and 1.5 * 2 ** -k.  The
    threshold of flat rows of alpha above 1.75 is nearer to the maximum, and so are its bins: 2 ** -k alone.
    """
    if POWER == 0:
        bits = tl.where(order[1] > 0.75, 23, 22)
    else:
        bits = 23 if POWER == 1 else 22
    return bits


@triton.jit
def bin_edge(index, bits):
    """Return the far edge (the larger ``row_max - z``) of a bin, float32; the near edge of bin b is that of b + 1."""
    return ((-index + ((TOP_BITS >> bits) + 1)) << bits).to(tl.float32, bitcast=True)


@triton.jit
def count_tile(shifted, visible, bits, IS_EDGE: tl.constexpr):
    """Return int32 [rows, BINS]: how many visible scores of the tile fall in each bin.  Lemma: counter_no_carry

    ``shifted`` is ``z - row_max``.  Scores 1 or more below the maximum fall in none: they cannot be support.
    """
    drop = -shifted
    code = -(drop.to(tl.int32, bitcast=True) >> bits) + (TOP_BITS >> bits)
    # The maximum (drop 0 or -0) falls beyond the last bin and is clamped into it; drop >= 1 cannot be support, but its
    # index must stay a valid shift.  NaN fails the comparison.
    index = tl.minimum(tl.maximum(code, 0), BINS - 1)
    inside = drop < 1.0
    if IS_EDGE:
        inside = inside & visible
    one = tl.where(inside, 1, 0) << ((index % COUNTERS) * COUNTER_BITS)
    bins = tl.arange(0, BINS)[None, :]
    packed = tl.zeros([shifted.shape[0], BINS], tl.int32)
    for word in tl.static_range(BINS // COUNTERS):
        total = tl.sum(tl.where(index // COUNTERS == word, one, 0), axis=1)
        packed = tl.where(bins // COUNTERS == word, total[:, None], packed)
    return (packed >> ((bins % COUNTERS) * COUNTER_BITS)) & COUNTER_MASK


@triton.jit
def histogram_root(counts, knots, order, BINS: tl.constexpr, POWER: tl.constexpr):
    """Return ``row_max - tau`` of the row that has its maximum once and ``counts[:, b]`` scores ``knots[b]`` below it.

    counts float32 [rows, BINS]; knots float32 [BINS].  The mass at a knot decides whether it is part of the support.
    """
    if POWER == 1 or POWER == 2:
        base = tl.zeros([counts.shape[0]], tl.float32)
        for b in tl.static_range(BINS):
            knot = tl.sum(tl.where(tl.arange(0, BINS) == b, knots, 0.0), axis=0)
            below = tl.maximum(knot - knots, 0.0)
            mass = gap_probs(knot, order, POWER) + tl.sum(counts * gap_probs(below, order, POWER)[None, :], axis=1)
            base = tl.where(mass < 1.0, tl.maximum(base, knot), base)
        active = knots[None, :] <= base[:, None]
        width = tl.where(active, base[:, None] - knots[None, :], 0.0)
        weight = tl.where(active, counts, 0.0)
        count = 1.0 + tl.sum(weight, axis=1)
        first = base + tl.sum(weight * width, axis=1)
        second = base * base + tl.sum(weight * width * width, axis=1)
        root = base + knot_root(count, first, second, POWER)
    else:
        root = counted_root(counts, knots[None, :], order, POWER)
    return root


@triton.jit
def keep_listed(words_ptr, list_ptr, length, first, n_keys, PARTS: tl.constexpr, BLOCK_N: tl.constexpr):
    """Set the bits of the blocks of BLOCK_N keys in a list of blocks of PARTS times as many."""
    for start in tl.range(0, length * PARTS, LISTED, num_stages=1):
        index = start + tl.arange(0, LISTED)
        inside = index < length * PARTS
        listed_block = tl.load(list_ptr + index // PARTS, mask=inside & (first < 0), other=0)
        listed_block = tl.where(first < 0, listed_block, first + index // PARTS)
        block = listed_block * PARTS + index % PARTS
        inside = inside & (block * BLOCK_N < n_keys)
        tl.atomic_or(words_ptr + block // WORD, 1 << (block % WORD), mask=inside, sem="relaxed")


@triton.jit
def histogram_kernel(
    query, key, row_max_ptr, lists_ptr, numbers_ptr, block_mask_ptr, lo_ptr, hi_ptr, tau_ptr,
    ranges, alphas_ptr, z_scale, heads, group, n_queries, n_keys, n_words, capacity,
    IS_CAUSAL: tl.constexpr, POWER: tl.constexpr, TILE_M: tl.constexpr, TILE_N: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, HEAD_DIM: tl.constexpr,
):  # fmt: skip
    """Grid (query blocks * batch * heads,).

    Blocks of TILE_M queries of few live keys are left out.  Reads query, key, row_max and the candidates, which are
    blocks of TILE_M queries and TILE_N keys.  Sets their bits in the block mask, int32 words (batch * heads, query
    blocks, n_words).  Writes lo, hi and a first tau, float32 (batch * heads, n_queries), counted from row_max.
    Invariant: lo <= exact tau <= hi.  Lemmas: histogram_bracket, candidate_superset
    """
    query_block, batch, head, batch_head = query_place(n_queries, heads, BLOCK_M)
    query_start = query_block * BLOCK_M
    row = batch_head.to(tl.int64) * tl.cdiv(n_queries, TILE_M) + query_start // TILE_M
    list_ptr, numbers_ptr = list_pointers(lists_ptr, numbers_ptr, row, capacity)
    if load_path(numbers_ptr) < MANY:
        return
    order = load_order(alphas_ptr, batch_head, POWER)
    z_scale = unit_scale(z_scale, order, POWER)
    bits = edge_bits(order, POWER)
    q = operand_tile(query, batch, head, query_start, n_queries, BLOCK_M, BLOCK_D, HEAD_DIM)
    below, length, first = load_numbers(numbers_ptr)
    list_ptr += capacity - length
    words_ptr = mask_words(block_mask_ptr, batch_head, query_block, n_queries, n_words, BLOCK_M)
    offsets, exists = row_offsets(batch_head, query_start, n_queries, BLOCK_M)
    row_max = tl.load(row_max_ptr + offsets, mask=exists, other=float("-inf"))
    ordinary = tl.abs(row_max) < float("inf")
    reference = tl.where(ordinary, row_max, 0.0)

    PARTS: tl.constexpr = TILE_N // BLOCK_N
    keep_listed(words_ptr, list_ptr, length, first, n_keys, PARTS, BLOCK_N)
    counts = tl.zeros([BLOCK_M, BINS], tl.int32)
    for index in range(below * PARTS):
        key_block = listed(list_ptr, index // PARTS, first) * PARTS + index % PARTS
        k = whole_tile(key, batch, head // group, key_block * BLOCK_N, BLOCK_N, BLOCK_D, HEAD_DIM)
        shifted = above(inner_products(q, k), z_scale, reference, 0.0 * reference)
        counts += count_tile(shifted, shifted == shifted, bits, False)
    for index in range(below * PARTS, length * PARTS):
        key_block = listed(list_ptr, index // PARTS, first) * PARTS + index % PARTS
        k = operand_tile(key, batch, head // group, key_block * BLOCK_N, n_keys, BLOCK_N, BLOCK_D, HEAD_DIM)
        shifted = above(inner_products(q, k), z_scale, reference, 0.0 * reference)
        visible = visible_tile(
            ranges, batch, query_start, key_block * BLOCK_N, n_queries, n_keys, IS_CAUSAL, BLOCK_M, BLOCK_N
        )
        counts += count_tile(shifted, visible, bits, True)

    bins = tl.arange(0, BINS)
    far = bin_edge(bins, bits)
    near = tl.where(bins == BINS - 1, 0.0, bin_edge(bins + 1, bits))
    # The maximum is not rounded: it leaves its bin and enters histogram_root as it is.
    others = tl.maximum(counts - (bins == BINS - 1)[None, :].to(tl.int32), 0).to(tl.float32)
    # row_max is rounded, the scores are not: the largest of them may lie this much above or below it.
    rounding = tl.abs(row_max) * 2.0**-24
    lo = tl.maximum(-histogram_root(others, far, order, BINS, POWER) * (ROOT_ERROR + 1.0), -1.0) - rounding
    hi = -histogram_root(others, near, order, BINS, POWER) * (-ROOT_ERROR + 1.0) + rounding
    tau = -histogram_root(others, 0.5 * (far + near), order, BINS, POWER)
    tau = tl.minimum(tl.maximum(tau, lo), hi)

    special = tl.where(row_max == float("-inf"), float("inf"), float("nan"))
    tl.store(lo_ptr + offsets, tl.where(ordinary, lo, special), mask=exists)
    tl.store(hi_ptr + offsets, tl.where(ordinary, hi, special), mask=exists)
    tl.store(tau_ptr + offsets, tl.where(ordinary, tau, special), mask=exists)
