"""Do two float64 hold the hundred bits that are claimed, and are the sums without error exact?"""

from fractions import Fraction

import exact
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from entmax_ref.rows.exact_support import twofold
from entmax_ref.rows.exact_support.twofold import Twofold

CONTEXT = exact.CONTEXT
finite = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300)
plain = st.floats(2.0**-400, 2.0**400) | st.floats(-(2.0**400), -(2.0**-400))


def value(x):
    return Fraction(float(x.head)) + Fraction(float(x.rest))


def drawn(low, high):
    """Return numbers of a hundred bits between two float64."""
    tail = st.floats(-0.5, 0.5)
    return st.tuples(st.floats(low, high), tail).map(
        lambda pair: twofold.two_sum(pair[0], pair[1] * np.spacing(pair[0]))
    )


@given(a=finite, b=finite)
def test_a_sum_keeps_its_error(a, b):
    found = twofold.two_sum(a, b)
    assert value(found) == Fraction(a) + Fraction(b) and found.head == a + b


@given(a=plain, b=plain)
def test_a_product_keeps_its_error(a, b):
    found = twofold.two_product(a, b)
    assert value(found) == Fraction(a) * Fraction(b) and found.head == a * b


@given(x=drawn(-4.0, 4.0), y=drawn(-4.0, 4.0))
def test_sums_and_products_to_a_hundred_bits(x, y):
    assert abs(value(twofold.add(x, y)) - (value(x) + value(y))) <= abs(value(x) + value(y)) * Fraction(2) ** -103
    wanted = value(x) * value(y)
    assert abs(value(twofold.multiply(x, y)) - wanted) <= abs(wanted) * Fraction(2) ** -103 + Fraction(2) ** -1000


@given(x=plain)
def test_a_reciprocal_to_a_hundred_bits(x):
    assert abs(value(twofold.reciprocal(np.asarray(x))) * Fraction(x) - 1) <= Fraction(2) ** -103


@given(x=drawn(-100.0, 100.0))
def test_an_exponential_to_98_bits(x):
    wanted = CONTEXT.exp(exact.exact(value(x)))
    assert abs(exact.exact(value(twofold.exponential(x))) / wanted - 1) <= CONTEXT.mpf(2) ** -98


@given(x=drawn(0.25, 4.0))
def test_a_logarithm_to_100_bits(x):
    wanted = CONTEXT.log(exact.exact(value(x)))
    assert abs(exact.exact(value(twofold.logarithm(x))) - wanted) <= CONTEXT.mpf(2) ** -100


@pytest.mark.parametrize("width", [1, 2, 3, 7, 64, 1001])
def test_a_total_to_a_hundred_bits(width):
    rng = np.random.default_rng(width)
    x = twofold.two_sum(rng.random((3, width)), 2.0**-55 * rng.random((3, width)))
    found = twofold.total(x)
    for row in range(3):
        wanted = sum(map(Fraction, x.head[row])) + sum(map(Fraction, x.rest[row]))
        total = value(Twofold(found.head[row, 0], found.rest[row, 0]))
        assert abs(total - wanted) <= wanted * Fraction(2) ** -98


@given(data=st.data())
def test_the_sign_of_a_sum_is_exact(data):
    """Also where the sum vanishes, or is what a subnormal leaves of numbers around 1."""
    terms = data.draw(st.lists(st.floats(-2.0, 2.0, allow_subnormal=True), min_size=1, max_size=12))
    kind = data.draw(st.sampled_from(["as drawn", "cancelled", "all but"]))
    if kind != "as drawn":
        terms += [-term for term in terms]
    if kind == "all but":
        terms.append(data.draw(st.sampled_from([5e-324, -5e-324, 1e-200, -(2.0**-60)])))
    terms = data.draw(st.permutations(terms))
    wanted = sum(map(Fraction, terms))
    found = twofold.sign_of_sum(np.array([terms, [1.0] * len(terms)]))
    assert found.tolist() == [(wanted > 0) - (wanted < 0), 1]


def test_no_rows_have_no_signs():
    assert twofold.sign_of_sum(np.empty((0, 3))).shape == (0,)
