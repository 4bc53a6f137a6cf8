"""What may a rounding, a sum or a product of matrices in the kernels lose?  The model that the bounds rest on."""

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from entmax_ref.arguments import Floats, as_number, as_real
from entmax_ref.reading import shown

U = 2.0**-24  # unit roundoff of float32
TINY = 2.0**-126  # what an operation of float32 may lose to underflow, flushed or gradual
TRUNCATED = 2.0**-23  # what an addend of a matrix unit may lose, relative to the largest one
SLACK = 1.0 + 2.0**-40  # for the rounding of the float64 arithmetic that evaluates a bound

Operand = Literal["float32", "bfloat16", "float16"]


class Format(NamedTuple):
    """What rounding to a dtype of operands may lose: relatively, and half the smallest number."""

    roundoff: float
    tiny: float


# float32 results are stored as they are.
FORMATS = {
    "float32": Format(0.0, 0.0),
    "bfloat16": Format(2.0**-8, 2.0**-134),
    "float16": Format(2.0**-11, 2.0**-25),
}


def check_operand(function: str, dtype: Any) -> None:
    """Raise ValueError unless ``dtype`` names one of `FORMATS`."""
    if not (isinstance(dtype, str) and dtype in FORMATS):
        raise ValueError(
            f"{function}: dtype must be one of {', '.join(FORMATS)}; it is {shown(dtype)}. Use one of these."
        )


def gamma(roundings: ArrayLike, unit: float = U) -> Floats:
    """Return ``k * unit / (1 - k * unit)``: what k roundings may do to a product, or to a sum of terms of one sign.

    Parameters
    ----------
    roundings : array_like of int
        How many, at least 0.
    unit : float, default 2**-24
        Unit roundoff.

    Returns
    -------
    bound : ndarray of float64
        Relative; infinite where ``roundings * unit >= 1``.

    Examples
    --------
    >>> bool(gamma(64) < 64.01 * 2.0**-24)
    True
    """
    spent = as_real("gamma", "roundings", roundings) * unit
    return np.asarray(np.where(spent < 1.0, spent / np.where(spent < 1.0, 1.0 - spent, 1.0), np.inf))


def product_gamma(terms: ArrayLike, dtype: Operand) -> Floats:
    """Return the error of a product of matrices, relative to the sum of the moduli of its terms.

    Parameters
    ----------
    terms : array_like of int
        How many terms of the sum may differ from 0.
    dtype : {"float32", "bfloat16", "float16"}
        Of the operands.

    Returns
    -------
    bound : ndarray of float64
        Relative to the sum of the moduli of the terms.

    Notes
    -----
    float32: a term meets its own rounding and at most ``terms`` additions, those with zeros being exact:
    ``gamma(terms + 1)``. 16 bits: a matrix unit adds a group of products and the accumulator at once, truncates each
    addend to ``2**-23`` of the largest, and the sum again. Zeros lose nothing, and a group without a nonzero product
    changes nothing; so a group with k of them errs by at most (k + 2) * 2**-23 of the sum of the moduli so far, and
    k + 2 <= 3 k: ``gamma(3 * terms, 2**-23)``. This covers the former.
    """
    count = as_real("product_gamma", "terms", terms)
    check_operand("product_gamma", dtype)
    return gamma(count + 1.0) if dtype == "float32" else gamma(3.0 * count, TRUNCATED)


def sum_gamma(block: int) -> float:
    """Return the relative error of mass and slope, whatever the length of the row.

    Parameters
    ----------
    block : int
        Keys of a tile.

    Returns
    -------
    bound : float
        ``(block + 8) * 2**-24``, for rows of up to ``2**22`` tiles.

    Notes
    -----
    At most three roundings a term, at most ``block - 1`` additions inside a tile, and a compensated sum over tiles.
    Lemma: compensated_sum
    """
    return (as_number("sum_gamma", "block", block, "one count of keys", "Pass for example block=64.") + 8.0) * U
