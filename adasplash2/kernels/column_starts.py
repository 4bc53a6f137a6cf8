"""Where in the pool of its head does each part of the column of a key start?"""

import triton
import triton.language as tl

from .support import PARTS, load_parts
from .tile import program_place, sum_of

# Blocks of keys that are counted at a time.
STEP = tl.constexpr(1024)


@triton.jit
def column_starts_kernel(
    column_counts_ptr, block_pairs_ptr, paths_ptr, starts_ptr, heads, group, n_keys,
    KEYS: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Grid (parts of KEYS keys * batch * heads,); KEYS is a multiple of BLOCK_N.

    Reads how many rows each key and each block of keys supports, and the paths of the blocks.  Writes the start of each
    part of a column, int32 (batch * heads, n_keys, PARTS); columns of blocks that go by tiles take no place.
    """
    own, _, _, batch_head = program_place(n_keys, heads, KEYS)
    n_blocks = tl.cdiv(n_keys, BLOCK_N)
    paths_ptr += (batch_head // group).to(tl.int64) * n_blocks
    block_pairs_ptr += batch_head.to(tl.int64) * n_blocks
    column_counts_ptr += batch_head.to(tl.int64) * n_keys * PARTS
    starts_ptr += batch_head.to(tl.int64) * n_keys * PARTS
    before = 0
    first_block = own * (KEYS // BLOCK_N)
    for start in tl.range(0, first_block, STEP, num_stages=1):
        blocks = start + tl.arange(0, STEP)
        path = tl.load(paths_ptr + blocks, mask=blocks < first_block, other=0)
        before += sum_of(tl.load(block_pairs_ptr + blocks, mask=(blocks < first_block) & (path > 0), other=0))
    keys = own * KEYS + tl.arange(0, KEYS)
    path = tl.load(paths_ptr + keys // BLOCK_N, mask=keys < n_keys, other=0)
    count = tl.where((path > 0)[:, None], load_parts(column_counts_ptr, keys, n_keys), 0)
    column = tl.sum(count, axis=1)
    start = before + (tl.cumsum(column, axis=0) - column)[:, None] + tl.cumsum(count, axis=1) - count
    places = keys[:, None] * PARTS + tl.arange(0, PARTS)[None, :]
    tl.store(starts_ptr + places, start, mask=(keys < n_keys)[:, None])
