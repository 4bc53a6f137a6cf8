"""How does a program address, mask and score one tile?  Leaves that every stage shares.

Names used by all stages: a *tile* is what a program loads, a *block* is a cell of the block mask.  A threshold is the
pair ``tau = base + rest``: ``base`` is the float32 next to it, ``rest`` what that leaves over.  ``z - base`` is exact
near the threshold, so a row's mass has the same digits whatever the offset of its scores.  An operand is the tuple
``(pointer, stride_batch, stride_head, stride_row, stride_dim)``.
"""

import triton
import triton.language as tl

# Blocks of the mask that one int32 word holds.
WORD = tl.constexpr(32)
# The interpreter knows the reductions of Triton's own library, and runs any other one element by element.
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def program_place(n_rows, heads, ROWS: tl.constexpr):
    """Return (block of rows, batch, head, batch * heads + head) of this program in a one-dimensional grid.

    The blocks of a head are neighbours, so that they share its keys in the cache.
    """
    n_blocks = tl.cdiv(n_rows, ROWS)
    batch_head = tl.program_id(0) // n_blocks
    return tl.program_id(0) % n_blocks, batch_head // heads, batch_head % heads, batch_head


@triton.jit
def tile_place(tile, n_blocks):
    """Return (batch * heads + head, block of queries) of a tile.

    The last block of a head comes first: where attention is causal, that one takes longest.
    """
    return tile // n_blocks, n_blocks - 1 - tile % n_blocks


@triton.jit
def part_place(first_tile, own_tile, n_heads, n_blocks):
    """Return (batch * heads + head, block of queries) of a tile of a part of all tiles, which begins at ``first_tile``.

    A part of ``n_heads`` whole heads, of more than one, takes their blocks in turns, the last of each first.  One that
    begins or ends within a head has ``n_heads`` 1 and the order of `tile_place`.
    """
    step = first_tile % n_blocks + own_tile // n_heads
    return first_tile // n_blocks + own_tile % n_heads + step // n_blocks, n_blocks - 1 - step % n_blocks


@triton.jit
def query_place(n_queries, heads, ROWS: tl.constexpr):
    """Return `program_place` in the order of `tile_place`."""
    batch_head, query_block = tile_place(tl.program_id(0), tl.cdiv(n_queries, ROWS))
    return query_block, batch_head // heads, batch_head % heads, batch_head


@triton.jit
def mask_words(mask_ptr, batch_head, block, n_rows, n_words, ROWS: tl.constexpr):
    """Return the pointer to the words of one block of rows in a mask of (batch * heads, blocks of rows, n_words)."""
    return mask_ptr + (batch_head.to(tl.int64) * tl.cdiv(n_rows, ROWS) + block) * n_words


@triton.jit
def tile_pointers(operand, batch, head, start, ROWS: tl.constexpr, BLOCK_D: tl.constexpr):
    """Return the pointers to rows ``start .. start + ROWS`` of one head, [ROWS, BLOCK_D]."""
    pointer, stride_batch, stride_head, stride_row, stride_dim = operand
    # Offsets are 64 bit up to the tile: batch * heads * length * head_dim may pass 2 ** 31; 32 bit within it.
    base = pointer + batch.to(tl.int64) * stride_batch + head.to(tl.int64) * stride_head
    base += start.to(tl.int64) * stride_row
    return base + (tl.arange(0, ROWS)[:, None] * stride_row + tl.arange(0, BLOCK_D)[None, :] * stride_dim)


@triton.jit
def operand_rows(
    operand, batch, head, start, wanted, ROWS: tl.constexpr, BLOCK_D: tl.constexpr, HEAD_DIM: tl.constexpr
):
    """Return rows ``start .. start + ROWS`` of one head as [ROWS, BLOCK_D], zero beyond HEAD_DIM and not wanted."""
    mask = wanted[:, None]
    if HEAD_DIM != BLOCK_D:
        mask = mask & (tl.arange(0, BLOCK_D)[None, :] < HEAD_DIM)
    return tl.load(tile_pointers(operand, batch, head, start, ROWS, BLOCK_D), mask=mask, other=0.0)


@triton.jit
def operand_tile(
    operand, batch, head, start, length, ROWS: tl.constexpr, BLOCK_D: tl.constexpr, HEAD_DIM: tl.constexpr
):
    """Return rows ``start .. start + ROWS`` of one head as [ROWS, BLOCK_D], zero beyond ``length`` and HEAD_DIM."""
    exists = start + tl.arange(0, ROWS) < length
    return operand_rows(operand, batch, head, start, exists, ROWS, BLOCK_D, HEAD_DIM)


@triton.jit
def whole_tile(operand, batch, head, start, ROWS: tl.constexpr, BLOCK_D: tl.constexpr, HEAD_DIM: tl.constexpr):
    """Return `operand_tile` of rows that all exist: they are loaded without a test."""
    pointers = tile_pointers(operand, batch, head, start, ROWS, BLOCK_D)
    if HEAD_DIM == BLOCK_D:
        tile = tl.load(pointers)
    else:
        tile = tl.load(pointers, mask=tl.arange(0, BLOCK_D)[None, :] < HEAD_DIM, other=0.0)
    return tile


@triton.jit
def operand_gather(operand, batch, head, rows, wanted, BLOCK_D: tl.constexpr, HEAD_DIM: tl.constexpr):
    """Return single rows of one head as [rows, BLOCK_D], zero beyond HEAD_DIM and where not wanted."""
    pointer, stride_batch, stride_head, stride_row, stride_dim = operand
    base = pointer + batch.to(tl.int64) * stride_batch + head.to(tl.int64) * stride_head
    dims = tl.arange(0, BLOCK_D)
    offsets = rows[:, None].to(tl.int64) * stride_row + dims[None, :] * stride_dim
    mask = wanted[:, None]
    if HEAD_DIM != BLOCK_D:
        mask = mask & (dims[None, :] < HEAD_DIM)
    return tl.load(base + offsets, mask=mask, other=0.0)


@triton.jit
def whole_gather(operand, batch, head, rows, BLOCK_D: tl.constexpr, HEAD_DIM: tl.constexpr):
    """Return `operand_gather` of rows that all exist: they are loaded without a test."""
    pointer, stride_batch, stride_head, stride_row, stride_dim = operand
    base = pointer + batch.to(tl.int64) * stride_batch + head.to(tl.int64) * stride_head
    dims = tl.arange(0, BLOCK_D)
    pointers = base + (rows[:, None].to(tl.int64) * stride_row + dims[None, :] * stride_dim)
    if HEAD_DIM == BLOCK_D:
        tile = tl.load(pointers)
    else:
        tile = tl.load(pointers, mask=dims[None, :] < HEAD_DIM, other=0.0)
    return tile


@triton.jit
def store_operand_tile(
    operand, tile, batch, head, start, length, ROWS: tl.constexpr, BLOCK_D: tl.constexpr, HEAD_DIM: tl.constexpr
):
    """Store a float32 [ROWS, BLOCK_D] tile where `operand_tile` would load it, rounded to the operand's dtype."""
    inside = (start + tl.arange(0, ROWS) < length)[:, None] & (tl.arange(0, BLOCK_D)[None, :] < HEAD_DIM)
    pointers = tile_pointers(operand, batch, head, start, ROWS, BLOCK_D)
    tl.store(pointers, tile.to(operand[0].dtype.element_ty), mask=inside)


@triton.jit
def row_offsets(batch_head, start, n_queries, ROWS: tl.constexpr):
    """Return int64 offsets of ROWS query rows in a contiguous (batch * heads, n_queries) array, and which exist."""
    rows = start + tl.arange(0, ROWS)
    return batch_head.to(tl.int64) * n_queries + rows, rows < n_queries


@triton.jit
def inner_products(a, b):
    """Return ``a @ b.T`` of two [rows, BLOCK_D] tiles, float32; float32 operands are multiplied as float32."""
    if a.dtype == tl.float32 and a.shape[1] > 128:
        # Without a matrix unit a thread holds whole rows of both operands; halves of them stay in registers.
        a_even, a_odd = tl.split(tl.reshape(a, [a.shape[0], a.shape[1] // 2, 2]))
        b_even, b_odd = tl.split(tl.reshape(b, [b.shape[0], b.shape[1] // 2, 2]))
        products = inner_products(a_even, b_even) + inner_products(a_odd, b_odd)
    else:
        products = tl.dot(a, tl.trans(b), input_precision="ieee")
    return products


@triton.jit
def turned_products(k, q):
    """Return the transpose of ``inner_products(q, k)``, bit by bit.

    Compilers sum over head_dim in one order, whichever operand is on the left; the interpreter's library does not.
    """
    if INTERPRETED:
        products = tl.trans(inner_products(q, k))
    else:
        products = inner_products(k, q)
    return products


@triton.jit
def above(products, z_scale, base, rest):
    """Return ``z - tau`` of a tile of products with the rows on axis 0, float32; ``base + rest`` is tau.

    One rounding of ``z - base`` and one of the difference from ``rest``: every stage that works on tiles does it so.
    Lemma: fused_gap
    """
    return tl.fma(products, z_scale, -base[:, None]) - rest[:, None]


@triton.jit
def above_single(products, z_scale, base, rest):
    """Return `above` of one product a row."""
    return tl.fma(products, z_scale, -base) - rest


@triton.jit
def above_turned(products, z_scale, base, rest):
    """Return `above` of a tile [keys, queries]."""
    return tl.fma(products, z_scale, -base[None, :]) - rest[None, :]


@triton.jit
def positive(margin):
    """Return ``max(margin, 0)``, NaN where it is NaN: the gap, in a row whose tau is NaN."""
    return tl.maximum(margin, 0.0, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def has_threshold(base):
    """Return which rows have a finite tau: they see a key, and no score of NaN or +inf.

    The backward stages read neither d_out nor delta of the other rows, nor the query where it is a factor: then a
    poisoned row has NaN where it sees a key, since its gap is NaN, and 0 elsewhere; and a row without a key has 0.
    """
    return base < float("inf")


@triton.jit
def known_or_zero(k):
    """Return a key tile with 0 for NaN.

    Who sees such a key is poisoned and has NaN gaps; to the others of the tile 0 * NaN must not come.
    """
    return tl.where(k == k, k, 0.0)


@triton.jit
def larger_or_nan(a, b):
    """Return the larger of two numbers, NaN if one is NaN."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def row_maximum(x):
    """Return the largest number of each row of a matrix; where the row holds NaN, NaN or +inf."""
    if INTERPRETED:
        largest = tl.max(tl.where(x == x, x, float("inf")), axis=1)
    else:
        largest = tl.reduce(x, 1, larger_or_nan)
    return largest


@triton.jit
def add_exactly(a, b):
    """Return the float32 sum of two vectors and what its rounding leaves over; together they are ``a + b``.

    Lemma: pair_exact
    """
    total = a + b
    shift = total - a
    return total, (a - (total - shift)) + (b - shift)


@triton.jit
def add_compensated(total, error, term):
    """Add a nonnegative float32 term to ``total`` and carry what the addition rounds away into the next one.

    ``total + error`` is the sum; its relative error does not grow with the number of tiles, up to 2 ** 22 of them.
    Lemma: compensated_sum
    """
    term = term + error
    # The default of a GPU drops NaN, that of NumPy, and so of the interpreter, does not.
    larger = larger_or_nan(total, term)
    smaller = tl.minimum(total, term, propagate_nan=tl.PropagateNan.ALL)
    total = larger + smaller
    return total, smaller - (total - larger)


@triton.jit
def any_of(flags):
    """Return 1 if one of the flags (a boolean vector) is set, else 0; int32 scalar."""
    # Reduced as a matrix of one row: Triton 3.6 to 3.7 fails on sm_100 where a vector that comes from a product is
    # reduced over its only axis ("parent layout must have at least rank >= 2").
    return tl.max(tl.max(flags.to(tl.int32)[None, :], axis=1), axis=0)


@triton.jit
def largest_of(numbers):
    """Return the largest number of a vector, scalar; as a matrix of one row for the reason of `any_of`."""
    return tl.max(tl.max(numbers[None, :], axis=1), axis=0)


@triton.jit
def sum_of(numbers):
    """Return the sum of a vector, scalar; as a matrix of one row for the reason of `any_of`."""
    return tl.sum(tl.sum(numbers[None, :], axis=1), axis=0)
