"""How is a number computed with to a hundred bits?  As the sum of two float64, in the algorithms of Dekker and others.

With u = 2**-53, a sum or a product errs by at most 8 u**2 of itself, `exponential` by 2**-98 of itself, and `logarithm`
by 2**-100 absolutely.
"""

from decimal import Context, Decimal
from fractions import Fraction
from math import factorial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from entmax_ref.arguments import Floats

SPLITTER = 2.0**27 + 1.0  # overflows on numbers above 2**996, which nobody here multiplies


class Twofold(NamedTuple):
    """The unevaluated sum of two float64; ``rest`` is at most half a unit in the last place of ``head``."""

    head: Floats
    rest: Floats


def two_sum(a: Floats | float, b: Floats | float) -> Twofold:
    """Return ``a + b`` exactly, also where it is subnormal."""
    head = np.asarray(a + b)
    back = head - a
    return Twofold(head, np.asarray((a - (head - back)) + (b - back)))


def two_product(a: Floats | float, b: Floats | float) -> Twofold:
    """Return ``a * b``, exactly where neither it nor its last bits underflow: 2**-960 is large enough."""
    head = np.asarray(a * b)
    a_high, a_low = _halves(a)
    b_high, b_low = _halves(b)
    return Twofold(head, np.asarray(((a_high * b_high - head) + a_high * b_low + a_low * b_high) + a_low * b_low))


def _halves(a: Floats | float) -> tuple[Floats | float, Floats | float]:
    scaled = SPLITTER * a
    high = scaled - (scaled - a)
    return high, a - high


def _renormal(head: Floats, rest: Floats) -> Twofold:
    """Return ``head + rest`` exactly, for a rest below the head."""
    total = head + rest
    return Twofold(total, rest - (total - head))


def add(x: Twofold, y: Twofold) -> Twofold:
    """Return the sum, which may cancel."""
    heads, rests = two_sum(x.head, y.head), two_sum(x.rest, y.rest)
    first = _renormal(heads.head, heads.rest + rests.head)
    return _renormal(first.head, first.rest + rests.rest)


def multiply(x: Twofold, y: Twofold) -> Twofold:
    """Return the product."""
    heads = two_product(x.head, y.head)
    return _renormal(heads.head, heads.rest + (x.head * y.rest + x.rest * y.head))


def scale(x: Twofold, exponent: NDArray[np.integer] | int) -> Twofold:
    """Return ``x * 2**exponent``, exactly unless it underflows."""
    return Twofold(np.ldexp(x.head, exponent), np.ldexp(x.rest, exponent))


def reciprocal(x: Floats) -> Twofold:
    """Return ``1 / x`` of a float64."""
    head = np.asarray(1.0 / x)
    product = two_product(head, x)
    return Twofold(head, np.asarray(((1.0 - product.head) - product.rest) / x))


def exponential(x: Twofold) -> Twofold:
    """Return exp(x) for x from -100 to 100."""
    halvings = 4
    count = np.rint(x.head / LN2.head)
    within = add(x, multiply(Twofold(-count, np.zeros_like(count)), LN2))
    within = scale(within, -halvings)  # at most 0.022, so the series ends below 2**-110
    series = SERIES[-1]
    for coefficient in SERIES[-2::-1]:
        series = add(multiply(series, within), coefficient)
    less_one = multiply(series, within)
    for _ in range(halvings):  # exp(2 x) - 1 from exp(x) - 1
        less_one = add(scale(less_one, 1), multiply(less_one, less_one))
    return scale(add(less_one, ONE), count.astype(np.intp))


def logarithm(x: Twofold) -> Twofold:
    """Return log(x) for x from 1/4 to 4: a float64 logarithm, and one step of Newton on its exponential."""
    head = np.log(x.head)
    near_one = multiply(x, exponential(Twofold(-head, np.zeros_like(head))))
    left = add(near_one, Twofold(-ONE.head, ONE.rest))
    # log(1 + left), for a left of some 2**-53: the next term, left**3 / 3, is below 2**-150
    return add(Twofold(head, np.zeros_like(head)), _renormal(left.head, left.rest - 0.5 * left.head * left.head))


def total(x: Twofold) -> Twofold:
    """Return the sums over the last axis, (m, 1), added in pairs."""
    while x.head.shape[-1] > 1:
        x, y = (Twofold(*(np.ascontiguousarray(part) for part in half)) for half in halves(x))
        x = add(x, y)
    return x


def halves(x: Twofold) -> tuple[Twofold, Twofold]:
    """Return the two halves of the last axis, the second filled up with 0 where the length is odd."""
    middle = (x.head.shape[-1] + 1) // 2
    first = Twofold(x.head[..., :middle], x.rest[..., :middle])
    room = [(0, 0)] * (x.head.ndim - 1) + [(0, 2 * middle - x.head.shape[-1])]
    return first, Twofold(np.pad(x.head[..., middle:], room), np.pad(x.rest[..., middle:], room))


def sign_of_sum(terms: Floats) -> NDArray[np.int8]:
    """Return the sign of the exact sum of each row of ``terms``, (m, w).

    Adding in pairs keeps every rounding error as a term of its own, so the sum of a row does not change from round to
    round, while what is not yet in its head shrinks by some 2**-45 each: to less than the head, or to nothing.
    """
    sign = np.zeros(terms.shape[0], dtype=np.int8)
    rows = np.arange(terms.shape[0])
    while rows.size:
        terms = _gathered(terms)
        head, rest = terms[:, 0], np.abs(terms[:, 1:]).sum(axis=-1)
        done = (np.abs(head) > 2.0 * rest) | (rest == 0.0)  # twice: the rest is rounded itself
        sign[rows[done]] = np.sign(head[done]).astype(np.int8)
        rows, terms = rows[~done], terms[~done]
        terms = terms[:, terms.any(axis=0)]
    return sign


def _gathered(terms: Floats) -> Floats:
    """Return terms with the same exact sum by row, of which the first is the rounded sum."""
    errors = []
    while terms.shape[1] > 1:
        middle = (terms.shape[1] + 1) // 2
        high, low = terms[:, :middle], np.zeros((terms.shape[0], middle))
        low[:, : terms.shape[1] - middle] = terms[:, middle:]
        terms, error = two_sum(high, low)
        errors.append(error)
    return np.concatenate([terms, *errors], axis=1)


def _constant(value: Fraction | Decimal) -> Twofold:
    head = float(value)
    return Twofold(np.asarray(head), np.asarray(float(value - type(value)(head))))  # type: ignore[operator]


ONE = _constant(Fraction(1))
LN2 = _constant(Context(prec=60).ln(Decimal(2)))
SERIES = tuple(_constant(Fraction(1, factorial(k))) for k in range(1, 17))  # (exp(x) - 1) / x
