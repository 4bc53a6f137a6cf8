"""Which keys has a row found so far, and what has it computed of each?  A list in scratch, a place for each key.

A place is an int64: a float32 in the upper half, the key in the lower half.  In registers a list would cost a select a
place for each key that is added or taken: in scratch it costs one store and one load.
"""

import triton
import triton.language as tl


@triton.jit
def _packed(number, key):
    bits = number.to(tl.int32, bitcast=True).to(tl.int64)
    return (bits << 32) | key.to(tl.int64)


@triton.jit
def _taken_apart(place):
    return (place >> 32).to(tl.int32).to(tl.float32, bitcast=True), (place & 0x7FFFFFFF).to(tl.int32)


@triton.jit
def store_found(found_ptr, places, number, key):
    """Store a number of each key, float32, with the keys, int32 from 0 on."""
    tl.store(found_ptr + places, _packed(number, key))


@triton.jit
def load_found(found_ptr, places, inside, other):
    """Return the numbers, ``other`` where not ``inside``, and the keys, 0 there."""
    number, key = _taken_apart(tl.load(found_ptr + places, mask=inside, other=0))
    return tl.where(inside, number, other), key


@triton.jit
def settle_found():
    """Let what the threads of the program stored be seen by all of them."""
    tl.debug_barrier()
