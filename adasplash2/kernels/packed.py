"""How are two numbers of 16 bits kept in one register, and how do they come out again?

Float32 copies of a long row fill the registers of a multiprocessor, so that nothing is loaded while it is worked on.
The words of a row of 16 bits take half of them.  ``DTYPE`` is 1 for bfloat16 and 2 for float16 throughout.
"""

import triton
import triton.language as tl

# Tiles that a row is held in.  They are worked on one after the other, so that few results are held beside them.
PARTS = tl.constexpr(8)


@triton.jit
def hidden_words(DTYPE: tl.constexpr):
    """Return the word of two keys of -inf, int32."""
    # As signed numbers: 0xFF80FF80, and 0xFC00FC00.
    return -8323200 if DTYPE == 1 else -67044352


@triton.jit
def unpacked(words, witness, DTYPE: tl.constexpr):
    """Return both numbers of each word, first and second in memory; float32, exact.

    ``witness``, float32[rows], is at most 1, which a compiler does not know.  It takes what is returned for another one
    where the witness is another: numbers that it believes to stay the same it would hold, in twice the registers.
    """
    none = (witness > 4.0).to(tl.int32)[:, None]
    if DTYPE == 1:
        # bfloat16 is the upper half of a float32
        first = (words << (16 + none)).to(tl.float32, bitcast=True)
        second = (words & (-65536 - none)).to(tl.float32, bitcast=True)
    else:
        first = (words >> none).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
        second = (words >> (16 + none)).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
    return first, second


@triton.jit
def packed(first, second, DTYPE: tl.constexpr):
    """Return words of two float32 numbers, each rounded to 16 bits."""
    if DTYPE == 1:
        first, second = first.to(tl.bfloat16), second.to(tl.bfloat16)
    else:
        first, second = first.to(tl.float16), second.to(tl.float16)
    low = first.to(tl.int16, bitcast=True).to(tl.int32) & 0xFFFF
    return low | (second.to(tl.int16, bitcast=True).to(tl.int32) << 16)
