"""Is it worth turning over the support of a head, or do all of its blocks of keys go by tiles?"""

import triton
import triton.language as tl

from .tile import sum_of

# Blocks of keys that are counted at a time.
STEP = tl.constexpr(1024)


@triton.jit
def column_worth_kernel(paths_ptr, used_ptr, turned_ptr, group, n_blocks, turn_pairs):
    """Grid (batch * kv_heads,).

    Reads how many tiles each block of keys saves by single queries, its path, and how many pairs of row and support the
    heads of the group have.  Writes 1 if turning them over costs less, as much as a tile for ``turn_pairs`` of them,
    else 0: int32 (batch * kv_heads,); and then 0 for the paths.
    """
    batch_kv_head = tl.program_id(0)
    paths_ptr += batch_kv_head.to(tl.int64) * n_blocks
    saved = tl.zeros([], tl.int64)
    for start in tl.range(0, n_blocks, STEP, num_stages=1):
        blocks = start + tl.arange(0, STEP)
        saved += sum_of(tl.load(paths_ptr + blocks, mask=blocks < n_blocks, other=0).to(tl.int64))
    pairs = tl.zeros([], tl.int64)
    for member in tl.range(group, num_stages=1):
        pairs += tl.load(used_ptr + batch_kv_head * group + member)
    turned = saved * turn_pairs >= pairs
    tl.store(turned_ptr + batch_kv_head, turned.to(tl.int32))
    for start in tl.range(0, tl.where(turned, 0, n_blocks), STEP, num_stages=1):
        blocks = start + tl.arange(0, STEP)
        tl.store(paths_ptr + blocks, tl.zeros([STEP], tl.int32), mask=blocks < n_blocks)
