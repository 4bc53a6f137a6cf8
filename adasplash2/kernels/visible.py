"""Which keys may a query see?  All, those up to its own (causal), or a range of its own.

``ranges`` is None or the tuple ``(pointer, stride_batch)`` of int32 (batch, n_queries, 2): query i sees the keys from
the first number up to, not including, the second.  Windows, padding, packed sequences and their causal forms are all
ranges; without them the bounds come from indices and cost no load.
"""

import triton
import triton.language as tl

from .tile import largest_of, operand_rows


@triton.jit
def query_ranges(ranges, batch, query_start, n_queries, BLOCK_M: tl.constexpr):
    """Return the first key that each of BLOCK_M queries sees and the one behind its last; 0 and 0 beyond n_queries."""
    pointer, stride_batch = ranges
    rows = query_start + tl.arange(0, BLOCK_M)
    places = pointer + batch.to(tl.int64) * stride_batch + rows * 2
    exists = rows < n_queries
    return tl.load(places, mask=exists, other=0), tl.load(places + 1, mask=exists, other=0)


@triton.jit
def visible_tile(
    ranges, batch, query_start, key_start, n_queries, n_keys,
    IS_CAUSAL: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Return which (query, key) pairs of a tile exist and may see each other; causal is bottom-right aligned."""
    cols = key_start + tl.arange(0, BLOCK_N)
    if ranges is None:
        rows = query_start + tl.arange(0, BLOCK_M)
        visible = (rows[:, None] < n_queries) & (cols[None, :] < n_keys)
        if IS_CAUSAL:
            visible = visible & (cols[None, :] <= rows[:, None] + (n_keys - n_queries))
    else:
        first, end = query_ranges(ranges, batch, query_start, n_queries, BLOCK_M)
        visible = (cols[None, :] >= first[:, None]) & (cols[None, :] < end[:, None])
    return visible


@triton.jit
def visible_turned(
    ranges, batch, query_start, key_start, n_queries, n_keys,
    IS_CAUSAL: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Return `visible_tile` of a tile [keys, queries]."""
    cols = key_start + tl.arange(0, BLOCK_N)
    if ranges is None:
        rows = query_start + tl.arange(0, BLOCK_M)
        visible = (rows[None, :] < n_queries) & (cols[:, None] < n_keys)
        if IS_CAUSAL:
            visible = visible & (cols[:, None] <= rows[None, :] + (n_keys - n_queries))
    else:
        first, end = query_ranges(ranges, batch, query_start, n_queries, BLOCK_M)
        visible = (cols[:, None] >= first[None, :]) & (cols[:, None] < end[None, :])
    return visible


@triton.jit
def seen_keys(ranges, batch, query_start, n_queries, n_keys, BLOCK_M: tl.constexpr):
    """Return the first key that some query of a tile sees and the one behind the last, scalars."""
    if ranges is None:
        first, end = 0, n_keys
    else:
        firsts, ends = query_ranges(ranges, batch, query_start, n_queries, BLOCK_M)
        seen = firsts < ends
        end = largest_of(tl.where(seen, ends, 0))
        first = tl.minimum(-largest_of(tl.where(seen, -firsts, -n_keys)), end)
    return first, end


@triton.jit
def seen_tile(
    operand, ranges, batch, head, key_start, first, end,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, HEAD_DIM: tl.constexpr,
):  # fmt: skip
    """Return `operand_tile` of keys or values, zero outside of `seen_keys`: what lies in padding may be anything."""
    keys = key_start + tl.arange(0, BLOCK_N)
    wanted = keys < end
    if ranges is not None:
        wanted = wanted & (keys >= first)
    return operand_rows(operand, batch, head, key_start, wanted, BLOCK_N, BLOCK_D, HEAD_DIM)


@triton.jit
def visible_key_blocks(
    ranges, batch, query_start, n_queries, n_keys,
    IS_CAUSAL: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Return the key blocks that a tile of queries visits, as four bounds ``begin <= inner <= outer <= end``.

    No query of the tile sees a key outside of ``begin .. end``; every one sees the blocks ``inner .. outer`` whole:
    their tiles need no test of visibility.
    """
    if ranges is None:
        begin, inner = 0, 0
        end, shared = n_keys, n_keys
        if IS_CAUSAL:
            last_query = tl.minimum(query_start + BLOCK_M, n_queries) - 1
            end = tl.minimum(end, tl.maximum(last_query + 1 + n_keys - n_queries, 0))
            shared = tl.minimum(shared, tl.maximum(query_start + 1 + n_keys - n_queries, 0))
        outer, end = shared // BLOCK_N, tl.cdiv(end, BLOCK_N)
    else:
        first, last = query_ranges(ranges, batch, query_start, n_queries, BLOCK_M)
        exists = query_start + tl.arange(0, BLOCK_M) < n_queries
        lowest, highest = seen_keys(ranges, batch, query_start, n_queries, n_keys, BLOCK_M)
        begin, end = lowest // BLOCK_N, tl.cdiv(highest, BLOCK_N)
        inner = tl.cdiv(largest_of(first), BLOCK_N)
        outer = (-largest_of(tl.where(exists, -last, -n_keys))) // BLOCK_N
        is_shared = inner < outer
        inner, outer = tl.where(is_shared, inner, begin), tl.where(is_shared, outer, begin)
    return begin, inner, outer, end
