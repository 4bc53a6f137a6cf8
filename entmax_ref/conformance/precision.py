"""Which numbers does a dtype hold, and in which precision may a target compute?"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


class Format(NamedTuple):
    """A dtype of operands and results.

    Attributes
    ----------
    roundoff : float
        Unit roundoff: the largest relative error of a rounding.
    tiny : float
        Half the smallest positive number: the largest error of a rounding where the result underflows.
    largest : float
        The largest finite number.
    working : float
        Unit roundoff of the arithmetic inside: float64 for float64, float32 for the others, as torch's softmax has it.
    working_tiny : float
        What an operation of that arithmetic may lose where its result is flushed to 0.
    """

    roundoff: float
    tiny: float
    largest: float
    working: float
    working_tiny: float


FORMATS = {
    "float64": Format(2.0**-53, 0.0, float(np.finfo(np.float64).max), 2.0**-53, 2.0**-1022),
    "float32": Format(2.0**-24, 2.0**-150, float(np.finfo(np.float32).max), 2.0**-24, 2.0**-126),
    "bfloat16": Format(2.0**-8, 2.0**-134, (2.0 - 2.0**-7) * 2.0**127, 2.0**-24, 2.0**-126),
    "float16": Format(2.0**-11, 2.0**-25, 65504.0, 2.0**-24, 2.0**-126),
}


def rounded(values: ArrayLike, dtype: str) -> Floats:
    """Return the nearest numbers of a dtype, in float64; what is too large becomes the largest finite one.

    Parameters
    ----------
    values : array_like of real numbers
    dtype : {"float64", "float32", "bfloat16", "float16"}

    Returns
    -------
    ndarray of float64, the shape of ``values``
        NaN and infinities stay what they are.

    Examples
    --------
    >>> rounded([1.0 + 2.0**-7, 1.0 + 2.0**-9, 1e39], "bfloat16").tolist()
    [1.0078125, 1.0, 3.3895313892515355e+38]
    """
    given = np.asarray(values, dtype=np.float64)
    largest = FORMATS[dtype].largest
    finite = np.where(np.isfinite(given), np.clip(given, -largest, largest), given)
    if dtype == "float64":
        return finite
    if dtype in ("float32", "float16"):
        return finite.astype(np.float32 if dtype == "float32" else np.float16).astype(np.float64)
    with np.errstate(invalid="ignore"):
        mantissa, exponent = np.frexp(np.where(np.isfinite(finite), finite, 0.0))
        # 8 bits of significand, fewer where the number is subnormal: the last one never counts less than 2**-133.
        last = np.maximum(exponent - 8, -133)
        nearest = np.ldexp(np.rint(np.ldexp(mantissa, exponent - last)), last)
    return np.where(np.isfinite(finite), nearest, finite)
