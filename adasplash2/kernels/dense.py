"""Which key blocks can hold support, and above what does the threshold of each row lie?

The only pass over all key blocks.  It visits the last visible block first (the diagonal, when causal), then backwards,
so that the running maximum is good early.  The maxima of the tiles are scores of the row, and the threshold of some of
its scores is at most that of all: a histogram of them bounds it from below, at a cost per row and tile, not per score.
"""

import triton
import triton.language as tl

from .lists import FEW, MANY, list_pointers, store_numbers, store_path
from .power import counted_root, knot_mass, knot_root, load_order, unit_scale
from .tile import (
    any_of,
    inner_products,
    larger_or_nan,
    operand_tile,
    query_place,
    row_maximum,
    row_offsets,
    sum_of,
    whole_tile,
)
from .visible import visible_key_blocks, visible_tile

# Bins of the histogram on an absolute grid of z, in a window that ends with the bin of the running maximum.
LEVELS = tl.constexpr(8)
LEVELS_PER_UNIT = tl.constexpr(12.0)
# A counter has 16 bits, four share a word; so no more tiles than this are counted.  Lemma: counter_no_carry
COUNTED_TILES = tl.constexpr(2**16 - 1)
# Rows with more maxima above their bounds than this share of their tiles, and one, or than so many, on average, have
# many live keys: single ones have no room for them.
CROWDED = tl.constexpr(0.85)
CROWDED_TILES = tl.constexpr(80.0)
# What rounding may add to the bound: absolutely, and relative to row_max.  Lemma: dense_bound_float
BOUND_ERROR = tl.constexpr(2.0**-18)
BOUND_ROUNDOFF = tl.constexpr(2.0**-21)


@triton.jit
def levels_between(upper, lower):
    """Return how many bins ``lower`` lies below ``upper``, int32, at most LEVELS; LEVELS where one is not finite."""
    apart = tl.floor(upper * LEVELS_PER_UNIT) - tl.floor(lower * LEVELS_PER_UNIT)
    return tl.where(apart < LEVELS, apart, LEVELS).to(tl.int32)


@triton.jit
def count_maximum(even, odd, top, tile_max):
    """Count the maximum of a tile: returns the counters and the running maximum; every argument is a row each.

    Level 7 is that of the running maximum; ``even`` holds the counters of levels 0, 2, 4, 6 from the lowest bits on,
    ``odd`` those of 1, 3, 5, 7.
    """
    new = larger_or_nan(top, tile_max)
    # The window rises: every counter moves down, and what leaves it is not counted any more.
    rise = levels_between(new, top)
    is_odd = (rise & 1) == 1
    low, high = tl.where(is_odd, odd, even), tl.where(is_odd, even >> 16, odd)
    gone = rise >= LEVELS
    bits = (tl.where(gone, 0, rise // 2) * 16).to(tl.uint64)
    low, high = tl.where(gone, 0, low >> bits), tl.where(gone, 0, high >> bits)
    level = LEVELS - 1 - levels_between(new, tile_max)
    one = tl.where(level >= 0, 1, 0).to(tl.uint64) << ((tl.maximum(level, 0) // 2) * 16).to(tl.uint64)
    low += tl.where((level & 1) == 0, one, 0)
    high += tl.where((level & 1) == 1, one, 0)
    return low, high, new


@triton.jit
def counted(even, odd, LEVEL: tl.constexpr):
    """Return the counter of a level, float32."""
    if LEVEL % 2 == 1:
        counters = odd
    else:
        counters = even
    return ((counters >> ((LEVEL // 2) * 16)) & 0xFFFF).to(tl.float32)


@triton.jit
def polynomial_root(even, odd, excess, POWER: tl.constexpr):
    """Return the root of the counts of `counted_bound` for POWER 1 or 2, and how many lie above it, but for its bin.

    From bin to bin down, as long as the mass at its edge is below 1.
    """
    count = tl.full([excess.shape[0]], 1.0, tl.float32)
    first, second, base = count * 0.0, count * 0.0, count * 0.0
    for index in tl.static_range(LEVELS):
        held = counted(even, odd, LEVELS - 1 - index)
        if index == 0:
            held = tl.maximum(held - 1.0, 0.0)
        edge = (excess + index) / LEVELS_PER_UNIT
        width = edge - base
        wider_first, wider_second = first + count * width, second + 2.0 * first * width + count * width * width
        within = knot_mass(wider_first, wider_second, POWER) < 1.0
        first, second = tl.where(within, wider_first, first), tl.where(within, wider_second, second)
        base = tl.where(within, edge, base)
        count += tl.where(within, held, 0.0)
    return base + knot_root(count, first, second, POWER), count


@triton.jit
def any_root(even, odd, excess, order, POWER: tl.constexpr):
    """Return what `polynomial_root` does, for any power."""
    levels = tl.arange(0, LEVELS)[None, :]
    counts = tl.zeros([excess.shape[0], LEVELS], tl.float32)
    for index in tl.static_range(LEVELS):
        held = counted(even, odd, LEVELS - 1 - index)
        if index == 0:
            held = tl.maximum(held - 1.0, 0.0)
        counts = tl.where(levels == index, held[:, None], counts)
    knots = (excess[:, None] + levels) / LEVELS_PER_UNIT
    root = counted_root(counts, knots, order, POWER)
    return root, 1.0 + tl.sum(tl.where(knots < root[:, None], counts, 0.0), axis=1)


@triton.jit
def counted_bound(even, odd, top, order, POWER: tl.constexpr):
    """Return a lower bound of tau, and how many maxima lie above it, but for its bin.

    ``top - tau`` is at most the root of the counts, each at the far edge of its bin; the maximum is not rounded.
    Lemmas: threshold_subset, histogram_bracket, dense_bound_float
    """
    scaled = top * LEVELS_PER_UNIT
    excess = scaled - tl.floor(scaled)
    if POWER == 1 or POWER == 2:
        root, count = polynomial_root(even, odd, excess, POWER)
    else:
        root, count = any_root(even, odd, excess, order, POWER)
    below = tl.minimum(root, 1.0)
    return top - (below + (BOUND_ERROR + tl.abs(top) * BOUND_ROUNDOFF)), count


@triton.jit
def dense_kernel(
    query, key, row_max_ptr, lo_ptr, lists_ptr, numbers_ptr,
    ranges, alphas_ptr, z_scale, heads, group, n_queries, n_keys, capacity,
    IS_CAUSAL: tl.constexpr, POWER: tl.constexpr, BY_KEYS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, HEAD_DIM: tl.constexpr,
):  # fmt: skip
    """Grid (query blocks * batch * heads,).

    Reads query and key; ``z_scale`` is not negative.  Writes row_max and lo, a lower bound of tau, float32 (batch *
    heads, n_queries), and the candidates of each block of BLOCK_M queries: a list of blocks of BLOCK_N keys, at the
    end of ``capacity`` places, and its numbers, its path among them: by tiles unless BY_KEYS.
    Invariants: lo <= tau; a block that is not listed has every ``z - row_max <= -1``, as float32 computes it.
    Lemmas: candidate_superset, pruning_keeps_threshold, threshold_bracket, threshold_subset
    """
    query_block, batch, head, batch_head = query_place(n_queries, heads, BLOCK_M)
    query_start = query_block * BLOCK_M
    order = load_order(alphas_ptr, batch_head, POWER)
    z_scale = unit_scale(z_scale, order, POWER)
    q = operand_tile(query, batch, head, query_start, n_queries, BLOCK_M, BLOCK_D, HEAD_DIM)
    row = batch_head.to(tl.int64) * tl.cdiv(n_queries, BLOCK_M) + query_block
    list_ptr, numbers_ptr = list_pointers(lists_ptr, numbers_ptr, row, capacity)

    offsets, exists = row_offsets(batch_head, query_start, n_queries, BLOCK_M)
    top = tl.full([BLOCK_M], float("-inf"), tl.float32)
    even, odd = tl.zeros([BLOCK_M], tl.uint64), tl.zeros([BLOCK_M], tl.uint64)
    begin, inner, outer, end = visible_key_blocks(
        ranges, batch, query_start, n_queries, n_keys, IS_CAUSAL, BLOCK_M, BLOCK_N
    )
    length = 0
    for step in range((end - outer) + (inner - begin)):
        key_block = end - 1 - step
        if ranges is not None:
            key_block = tl.where(key_block >= outer, key_block, key_block - (outer - inner))
        key_start = key_block * BLOCK_N
        k = operand_tile(key, batch, head // group, key_start, n_keys, BLOCK_N, BLOCK_D, HEAD_DIM)
        visible = visible_tile(ranges, batch, query_start, key_start, n_queries, n_keys, IS_CAUSAL, BLOCK_M, BLOCK_N)
        # An infinite product of a hidden pair must not turn into NaN: the scale comes after the maximum.
        tile_max = row_maximum(tl.where(visible, inner_products(q, k), float("-inf")))
        tile_max = tl.where(tile_max == float("-inf"), tile_max, tile_max * z_scale)
        if ranges is None:
            # A few tiles next to the diagonal or at the end: no counter overflows.
            even, odd, top = count_maximum(even, odd, top, tile_max)
            live = 1
        else:
            # A range may have many such tiles, and no key of a row may lie in one.
            live = any_of(exists & (tile_max != float("-inf")) & ((tile_max - top <= -1.0) == 0))
            if (live > 0) & (length < COUNTED_TILES):
                even, odd, top = count_maximum(even, odd, top, tile_max)
            else:
                top = larger_or_nan(top, tile_max)
        tl.store(list_ptr + (capacity - 1 - length), key_block, mask=(live > 0) & (length < capacity))
        length += live
    n_edge = length
    for step in range(outer - inner):
        key_block = outer - 1 - step
        key_start = key_block * BLOCK_N
        k = whole_tile(key, batch, head // group, key_start, BLOCK_N, BLOCK_D, HEAD_DIM)
        tile_max = row_maximum(inner_products(q, k)) * z_scale
        # The difference, not "tile_max > top - 1": near 2 ** 24 that rounds to the maximum itself.  NaN fails the
        # comparison, and so is live: it must reach the maximum of its row.
        live = any_of(exists & ((tile_max - top <= -1.0) == 0))
        if live > 0:
            if length < COUNTED_TILES:
                even, odd, top = count_maximum(even, odd, top, tile_max)
            else:
                top = larger_or_nan(top, tile_max)
            tl.store(list_ptr + (capacity - 1 - length), key_block, mask=length < capacity)
        length += live

    ordinary = tl.abs(top) < float("inf")
    lo, count = counted_bound(even, odd, top, order, POWER)
    # The NaN of a poisoned row reaches the gradient of every key that it sees, so its block visits all that it sees.
    poisoned = any_of(exists & ((top < float("inf")) == 0))
    everything = (length > capacity) | (poisoned > 0)
    below = length - n_edge
    length = tl.where(everything, end - begin, length)
    if ranges is None:
        below = length - n_edge
    else:
        below = tl.where(everything, 0, below)
    store_numbers(numbers_ptr, below, length, tl.where(everything, begin, -1))
    path = MANY
    if BY_KEYS:
        # Where nearly every tile reaches above the bound, most reach it with several keys.
        counting = exists & ordinary
        most = tl.minimum((end - begin) * CROWDED + 1.0, CROWDED_TILES)
        crowded = sum_of(tl.where(counting, count, 0.0)) > most * sum_of(counting.to(tl.float32))
        path = tl.where(crowded | everything, MANY, FEW)
    store_path(numbers_ptr, path)
    row_max = tl.where(top == top, top, float("inf"))
    special = tl.where(row_max == float("-inf"), float("inf"), float("nan"))
    tl.store(row_max_ptr + offsets, row_max, mask=exists)
    tl.store(lo_ptr + offsets, tl.where(ordinary, lo, special), mask=exists)
