"""How does a program address, mask and score one tile?  Leaves that every stage shares.

Names used by all stages: a *tile* is what a program loads, a *block* is a cell of the block mask.  ``shifted`` is
``z - row_max`` and the kernels keep ``tau``, ``lo`` and ``hi`` in that unit too (``tau - row_max``, in [-1, 0)): near
the maximum, where flat rows have their threshold, float32 is then as fine as the row needs, whatever the offset of the
scores.  An operand is the tuple ``(pointer, stride_batch, stride_head, stride_row, stride_dim)``.
"""

import triton
import triton.language as tl

# Blocks of the mask that one int32 word holds.
WORD = tl.constexpr(32)


@triton.jit
def program_place(n_rows, heads, ROWS: tl.constexpr):
    """Return (block of rows, batch, head, batch * heads + head) of this program in a one-dimensional grid."""
    n_blocks = tl.cdiv(n_rows, ROWS)
    batch_head = tl.program_id(0) // n_blocks
    return tl.program_id(0) % n_blocks, batch_head // heads, batch_head % heads, batch_head


@triton.jit
def mask_words(mask_ptr, batch_head, block, n_rows, n_words, ROWS: tl.constexpr):
    """Return the pointer to the words of one block of rows in a mask of (batch * heads, blocks of rows, n_words)."""
    return mask_ptr + (batch_head.to(tl.int64) * tl.cdiv(n_rows, ROWS) + block) * n_words


@triton.jit
def operand_rows(operand, batch, head, start, wanted, head_dim, ROWS: tl.constexpr, BLOCK_D: tl.constexpr):
    """Return rows ``start .. start + ROWS`` of one head as [ROWS, BLOCK_D], zero beyond ``head_dim`` and not wanted."""
    pointer, stride_batch, stride_head, stride_row, stride_dim = operand
    # Offsets are 64 bit: batch * heads * length * head_dim may pass 2 ** 31.
    base = pointer + batch.to(tl.int64) * stride_batch + head.to(tl.int64) * stride_head
    rows = start + tl.arange(0, ROWS)
    dims = tl.arange(0, BLOCK_D)
    offsets = rows[:, None].to(tl.int64) * stride_row + dims[None, :].to(tl.int64) * stride_dim
    return tl.load(base + offsets, mask=wanted[:, None] & (dims[None, :] < head_dim), other=0.0)


@triton.jit
def operand_tile(operand, batch, head, start, length, head_dim, ROWS: tl.constexpr, BLOCK_D: tl.constexpr):
    """Return rows ``start .. start + ROWS`` of one head as [ROWS, BLOCK_D], zero beyond ``length`` and ``head_dim``."""
    exists = start + tl.arange(0, ROWS) < length
    return operand_rows(operand, batch, head, start, exists, head_dim, ROWS, BLOCK_D)


@triton.jit
def store_operand_tile(operand, tile, batch, head, start, length, head_dim, ROWS: tl.constexpr, BLOCK_D: tl.constexpr):
    """Store a float32 [ROWS, BLOCK_D] tile where `operand_tile` would load it, rounded to the operand's dtype."""
    pointer, stride_batch, stride_head, stride_row, stride_dim = operand
    base = pointer + batch.to(tl.int64) * stride_batch + head.to(tl.int64) * stride_head
    rows = start + tl.arange(0, ROWS)
    dims = tl.arange(0, BLOCK_D)
    offsets = rows[:, None].to(tl.int64) * stride_row + dims[None, :].to(tl.int64) * stride_dim
    inside = (rows[:, None] < length) & (dims[None, :] < head_dim)
    tl.store(base + offsets, tile.to(pointer.dtype.element_ty), mask=inside)


@triton.jit
def row_offsets(batch_head, start, n_queries, ROWS: tl.constexpr):
    """Return int64 offsets of ROWS query rows in a contiguous (batch * heads, n_queries) array, and which exist."""
    rows = start + tl.arange(0, ROWS)
    return batch_head.to(tl.int64) * n_queries + rows, rows < n_queries


@triton.jit
def visible_tile(
    query_start, key_start, n_queries, n_keys, IS_CAUSAL: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr
):
    """Return which (query, key) pairs of a tile exist and may see each other; causal is bottom-right aligned."""
    rows = query_start + tl.arange(0, BLOCK_M)
    cols = key_start + tl.arange(0, BLOCK_N)
    visible = (rows[:, None] < n_queries) & (cols[None, :] < n_keys)
    if IS_CAUSAL:
        visible = visible & (cols[None, :] <= rows[:, None] + (n_keys - n_queries))
    return visible


@triton.jit
def visible_key_blocks(
    query_start, n_queries, n_keys, IS_CAUSAL: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr
):
    """Return how many leading key blocks some query of the tile may see."""
    end = n_keys
    if IS_CAUSAL:
        last_query = tl.minimum(query_start + BLOCK_M, n_queries) - 1
        end = tl.minimum(end, tl.maximum(last_query + 1 + n_keys - n_queries, 0))
    return tl.cdiv(end, BLOCK_N)


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
def score_tile(q, k, z_scale):
    """Return z of a tile, float32 [BLOCK_M, BLOCK_N].

    Every stage calls this with the same tile shapes, so forward and backward see the same bits.
    """
    return inner_products(q, k) * z_scale


@triton.jit
def row_reference(row_max):
    """Return the finite value that ``shifted`` is counted from: a row without a visible key has row_max = -inf."""
    return tl.where(row_max == float("-inf"), 0.0, row_max)


@triton.jit
def gap_tile(shifted, tau, visible):
    """Return ``max(z - tau, 0)``, exactly 0 where not visible, NaN where visible in a row whose tau is NaN."""
    gap = tl.maximum(shifted - tau[:, None], 0.0, propagate_nan=tl.PropagateNan.ALL)
    return tl.where(visible, gap, 0.0)


@triton.jit
def has_threshold(tau):
    """Return which rows have a finite tau: they see a key, and no score of NaN or +inf.

    The backward stages read neither d_out nor delta of the other rows, nor the query where it is a factor: then a
    poisoned row has NaN where it sees a key, since its gap is NaN, and 0 elsewhere; and a row without a key has 0.
    """
    return tau < float("inf")


@triton.jit
def known_or_zero(k):
    """Return a key tile with 0 for NaN.

    Who sees such a key is poisoned and has NaN gaps; to the others of the tile 0 * NaN must not come.
    """
    return tl.where(k == k, k, 0.0)


@triton.jit
def lowest_bit(word):
    """Return the index of the lowest set bit of a nonzero int32."""
    lowest = (word & (-word)).to(tl.uint32, bitcast=True)
    # A power of two converts to float32 exactly; its exponent is the index.
    return (lowest.to(tl.float32).to(tl.int32, bitcast=True) >> 23) - 127


@triton.jit
def clear_lowest_bit(word):
    """Return an int32 without its lowest set bit."""
    return word & (word - 1)


@triton.jit
def add_compensated(total, error, term):
    """Add a nonnegative float32 term to ``total`` and carry what the addition rounds away into the next one.

    ``total + error`` is the sum; its relative error does not grow with the number of tiles, up to 2 ** 22 of them.
    Lemma: compensated_sum
    """
    term = term + error
    # The default of a GPU drops NaN, that of NumPy, and so of the interpreter, does not.
    larger = tl.maximum(total, term, propagate_nan=tl.PropagateNan.ALL)
    smaller = tl.minimum(total, term, propagate_nan=tl.PropagateNan.ALL)
    total = larger + smaller
    return total, smaller - (total - larger)


@triton.jit
def any_of(flags):
    """Return 1 if one of the flags (a boolean vector) is set, else 0; int32 scalar."""
    # Reduced as a matrix of one row: Triton 3.6 to 3.7 fails on sm_100 where a vector that comes from a product is
    # reduced over its only axis ("parent layout must have at least rank >= 2").
    return tl.max(tl.max(flags.to(tl.int32)[None, :], axis=1), axis=0)
