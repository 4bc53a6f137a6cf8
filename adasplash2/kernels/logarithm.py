"""What is the logarithm of a number, to nearly the last bit?

log2 of a GPU is approximate to 2 ** -22, of which a large power would make too much.
"""

import triton
import triton.language as tl

SQRT_HALF_BITS = tl.constexpr(0x3F3504F3)
EXPONENT_ONE_BITS = tl.constexpr(0x3F800000)
MANTISSA_MASK = tl.constexpr(0x007FFFFF)
LN_2 = tl.constexpr(0.6931471805599453)
LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def log_one_plus(f):
    """Return log(1 + f), float32, for f from -0.3 to 0.42; the error is 2 ** -23 of the result.  NaN stays NaN."""
    # 2 * atanh(s) with s = f / (2 + f), whose first term 2 * s is f - f * s
    s = f / (2.0 + f)
    square = s * s
    series = 2.0 / 9.0 * square + 2.0 / 7.0
    series = series * square + 2.0 / 5.0
    series = series * square + 2.0 / 3.0
    return f - s * (f - square * series)


@triton.jit
def log_of(x):
    """Return log(x), float32, for normal positive numbers; the error is 2 ** -23 of the result, and 2 ** -24 of its
    multiple of log(2).  NaN and what is not positive give anything finite or NaN.
    """
    # x = 2 ** exponent * m with m from sqrt(1/2) to sqrt(2)
    bits = x.to(tl.int32, bitcast=True) + (EXPONENT_ONE_BITS - SQRT_HALF_BITS)
    exponent = ((bits >> 23) - 127).to(tl.float32)
    m = ((bits & MANTISSA_MASK) + SQRT_HALF_BITS).to(tl.float32, bitcast=True)
    return exponent * LN_2 + log_one_plus(m - 1.0)
