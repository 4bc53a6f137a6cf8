"""Which blocks of keys have so many tiles that several programs share them, and which tiles does each of these take?"""

import triton
import triton.language as tl

from .lists import NUMBERS
from .tile import largest_of, sum_of

# Blocks of keys that are looked at a time.
STEP = tl.constexpr(256)
# Numbers of a segment: its block of keys, -1 if it is none; which of the segments of that block; how many that has; and
# one that is not used, so that segments are aligned.
SEGMENT = tl.constexpr(4)


@triton.jit
def column_segments_kernel(
    numbers_ptr, paths_ptr, split_ptr, segments_ptr, group, n_blocks, capacity, split_tiles, BY_KEYS: tl.constexpr
):  # fmt: skip
    """Grid (batch * kv_heads,).

    Reads the lengths of the lists of each block of keys, over the heads of its group, and which blocks go by single
    queries.  Writes the segments of the blocks of more than ``split_tiles`` tiles, in order, int32 (batch * kv_heads,
    capacity, SEGMENT), and 1 for each of these blocks, 0 for all others, int32 (batch * kv_heads, key blocks).  A block
    whose segments find no place is left whole: that depends on its head alone.
    """
    batch_kv_head = tl.program_id(0)
    split_ptr += batch_kv_head.to(tl.int64) * n_blocks
    segments_ptr += batch_kv_head.to(tl.int64) * capacity * SEGMENT
    used, end = 0, 0
    for start in tl.range(0, n_blocks, STEP, num_stages=1):
        blocks = start + tl.arange(0, STEP)
        exists = blocks < n_blocks
        tiles = tl.zeros([STEP], tl.int32)
        for member in tl.range(group, num_stages=1):
            row = (batch_kv_head * group + member).to(tl.int64) * n_blocks + blocks
            tiles += tl.load(numbers_ptr + row * NUMBERS + 1, mask=exists, other=0)
        if BY_KEYS:
            path = tl.load(paths_ptr + batch_kv_head.to(tl.int64) * n_blocks + blocks, mask=exists, other=1)
            tiles = tl.where(path > 0, 0, tiles)
        number = tl.where(tiles > split_tiles, tl.cdiv(tiles, split_tiles), 0)
        first = used + tl.cumsum(number, axis=0) - number
        fits = (number > 0) & (first + number <= capacity)
        tl.store(split_ptr + blocks, fits.to(tl.int32), mask=exists)
        for index in range(largest_of(tl.where(fits, number, 0))):
            own_ptr = segments_ptr + (first + index) * SEGMENT
            wanted = fits & (index < number)
            tl.store(own_ptr, blocks, mask=wanted)
            tl.store(own_ptr + 1, tl.zeros([STEP], tl.int32) + index, mask=wanted)
            tl.store(own_ptr + 2, number, mask=wanted)
        # What finds no place takes up its places all the same: so those behind it find none either.
        used += sum_of(number)
        end = tl.maximum(end, largest_of(tl.where(fits, first + number, 0)))
    for start in tl.range(end, capacity, STEP, num_stages=1):
        places = start + tl.arange(0, STEP)
        tl.store(segments_ptr + places * SEGMENT, tl.zeros([STEP], tl.int32) - 1, mask=places < capacity)
