"""Which keys has a row found so far, and what has it computed of each?  A list in scratch, a place for each key.

A place is an int64: a float32 in the upper half, the key in the lower half.  In registers a list would cost a select a
place for each key that is added or taken: in scratch it costs one store and one load.
"""

import triton
import triton.language as tl

from .halves import join_halves, lower_half, upper_half


@triton.jit
def store_found(found_ptr, places, inside, number, key):
    """Store a number of each key that is ``inside``, float32, with the keys, int32 from 0 on."""
    tl.store(found_ptr + places, join_halves(number.to(tl.int32, bitcast=True), key), mask=inside)


@triton.jit
def load_found(found_ptr, places, inside, other):
    """Return the numbers, ``other`` where not ``inside``, and the keys, 0 there."""
    place = tl.load(found_ptr + places, mask=inside, other=0)
    number = upper_half(place).to(tl.float32, bitcast=True)
    return tl.where(inside, number, other), lower_half(place)


@triton.jit
def settle_found():
    """Let what the threads of the program stored be seen by all of them."""
    tl.debug_barrier()
