"""Which single keys does a row need?  Entries of up to 32 neighbouring keys, which a row appends and takes apart again.

An entry is an int64: a word, one bit a key, in the upper half, and in the lower half the number of its group of keys.
A row has ``capacity`` places for entries; a row that needs more is left to the stages that work on tiles.  The places
of ROWS neighbouring rows, of one program of `solve`, alternate, so that it finds the next ones side by side.
"""

import triton
import triton.language as tl

from .halves import join_halves, lower_half, upper_half
from .support import ROWS
from .tile import largest_of

# Entries of a row that are taken apart at once.
SPREAD = tl.constexpr(16)


@triton.jit
def first_places(rows, row_places):
    """Return the first place of each row of the scratch, int32; its other places follow at a distance of ROWS."""
    return rows // ROWS * ROWS * row_places + rows % ROWS


@triton.jit
def append_words(entries_ptr, places, count, live, first_group, capacity, TILE_N: tl.constexpr, KEYS: tl.constexpr):
    """Append the nonzero words of a boolean tile [rows, TILE_N] to the entries of its rows; returns their new counts.

    ``places`` is the first place of each row.  Nothing is exchanged between the warps of a tile.
    """
    columns = tl.arange(0, TILE_N)
    hot = tl.where(live, (1 << (columns % KEYS))[None, :], 0)
    for part in tl.static_range(TILE_N // KEYS):
        # Disjoint bits: their sum is their union.
        word = tl.sum(tl.where((columns // KEYS == part)[None, :], hot, 0), axis=1)
        wanted = word != 0
        entry = join_halves(word, first_group + part)
        tl.store(entries_ptr + places + count * ROWS, entry, mask=wanted & (count < capacity))
        count += wanted.to(tl.int32)
    return count


@triton.jit
def lowest_bit(word):
    """Return the index of the lowest bit of words that are not 0."""
    lowest = (word & (-word)).to(tl.uint32, bitcast=True)
    # A power of two converts to float32 exactly; its exponent is the index of the bit.
    return (lowest.to(tl.float32).to(tl.int32, bitcast=True) >> 23) - 127


@triton.jit
def count_bits(word):
    """Return how many bits of words are set, int32."""
    # Sums of the bits of neighbours, in fields of 2, 4 and 8 bits; the product sums the four of 8 in the highest.
    bits = word.to(tl.uint32, bitcast=True)
    bits -= (bits >> 1) & 0x55555555
    bits = (bits & 0x33333333) + ((bits >> 2) & 0x33333333)
    bits = (bits + (bits >> 4)) & 0x0F0F0F0F
    return ((bits * 0x01010101) >> 24).to(tl.int32)


@triton.jit
def next_key(word, group, taken, count, entries_ptr, places, KEYS: tl.constexpr):
    """Take the next key of each row: returns it, whether there is one, and word, group and entries taken so far."""
    need = (word == 0) & (taken < count)
    entry = tl.load(entries_ptr + places + taken * ROWS, mask=need, other=0)
    word = tl.where(need, upper_half(entry), word)
    group = tl.where(need, lower_half(entry), group)
    taken += need.to(tl.int32)
    live = word != 0
    return group * KEYS + tl.where(live, lowest_bit(word), 0), live, word & (word - 1), group, taken


@triton.jit
def spread_keys(entries_ptr, places, first, room, count, KEYS: tl.constexpr):
    """Store the keys of each row, ascending, from its place ``first`` on; returns how many keys each row has.

    Only the first ``room`` of them are stored.  Entries are taken apart side by side: each knows how many keys the
    others before it hold.
    """
    n_keys = count * 0
    for begin in range(0, largest_of(count), SPREAD):
        slots = begin + tl.arange(0, SPREAD)[:, None]
        taken = tl.minimum(slots, count[None, :])
        entry = tl.load(entries_ptr + places[None, :] + taken * ROWS, mask=slots < count[None, :], other=0)
        word, first_key = upper_half(entry), lower_half(entry) * KEYS
        number = count_bits(word)
        slot = n_keys[None, :] + tl.cumsum(number, axis=0) - number
        n_keys += tl.sum(number, axis=0)
        for _ in range(largest_of(tl.max(number, axis=0))):
            wanted = (word != 0) & (slot < room)
            found = first_key + lowest_bit(word)
            tl.store(entries_ptr + places[None, :] + (first + slot) * ROWS, join_halves(found * 0, found), mask=wanted)
            word &= word - 1
            slot += 1
    return n_keys
