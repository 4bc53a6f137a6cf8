"""How do two numbers of 32 bits share a place of scratch?  An int64, which is stored and loaded at once."""

import triton
import triton.language as tl


@triton.jit
def join_halves(upper, lower):
    """Return the int64 of two int32, the lower one from 0 on."""
    return (upper.to(tl.int64) << 32) | lower.to(tl.int64)


@triton.jit
def upper_half(place):
    """Return the int32 that `join_halves` put on top."""
    return (place >> 32).to(tl.int32)


@triton.jit
def lower_half(place):
    """Return the int32, from 0 on, that `join_halves` put below."""
    return (place & 0x7FFFFFFF).to(tl.int32)
