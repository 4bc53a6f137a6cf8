"""Which query blocks keep a key block?  The transpose of the block mask, for the gradient of keys and values."""

import triton
import triton.language as tl

from .tile import WORD


@triton.jit
def block_mask_transpose_kernel(
    block_mask_ptr, transposed_ptr, n_query_blocks, n_key_blocks, n_words, n_transposed_words
):
    """Grid (words of key blocks * words of query blocks * batch * heads,).

    Reads the mask, int32 words (batch * heads, n_query_blocks, n_words); writes (batch * heads, n_key_blocks,
    n_transposed_words).  Bit i of word w in row j is the bit of key block j in query block ``w * 32 + i``.
    """
    key_word = tl.program_id(0) % n_words
    query_word = tl.program_id(0) // n_words % n_transposed_words
    batch_head = (tl.program_id(0) // n_words // n_transposed_words).to(tl.int64)
    lanes = tl.arange(0, WORD)
    query_blocks = query_word * WORD + lanes
    key_blocks = key_word * WORD + lanes
    source = block_mask_ptr + (batch_head * n_query_blocks + query_blocks) * n_words + key_word
    words = tl.load(source, mask=query_blocks < n_query_blocks, other=0)
    bits = (words[None, :] >> lanes[:, None]) & 1
    # Disjoint bits: their sum is their union.
    transposed = tl.sum(bits << lanes[None, :], axis=1)
    target = transposed_ptr + (batch_head * n_key_blocks + key_blocks) * n_transposed_words + query_word
    tl.store(target, transposed, mask=key_blocks < n_key_blocks)
