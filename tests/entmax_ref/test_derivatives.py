"""Are the derivatives those of the exact map, to their bounds, from alpha 1 on, and at the edge of the support?"""

import re

import exact
import numpy as np
import pytest
from drawn import finite_rows
from exact import Fraction, U
from hypothesis import assume, given
from hypothesis import strategies as st
from lemmas import lemma
from profiles import examples

import entmax_ref
from entmax_ref import entmax, entmax_alpha_grad, entmax_jacobian, entmax_jvp, entmax_second, entmax_vjp, softmax

FROM_ONE = (1.0, 1.0 + 1e-8, 1.001, 1.1, 1.5, 1.8, 2.0, 3.0)
from_one = pytest.mark.parametrize("alpha", FROM_ONE)
STEP = Fraction(1, 2**60)
EXACT = 2.0**-250  # where the Jacobian of `exact` itself has lost its 300 bits
BITS = 210  # tau to 2**-210: power * 2**-210 / STEP is below 2**-90 from alpha 1 + STEP on


def vectors(n):
    return st.lists(st.floats(-8.0, 8.0, width=32), min_size=n, max_size=n).map(np.array)


def smooth(scores, alpha):
    """Return the first-order bounds of a row without a key near the edge, or give the example up."""
    bounds = exact.FirstOrder(scores, alpha)
    gaps = [] if alpha == 1 else exact.gaps(scores, alpha)
    assume(bounds.valid and all(abs(gap) > 2.0**-6 for gap in gaps))
    return bounds


def assert_close(found, wanted, allowed):
    for ours, theirs, limit in zip(found, wanted, allowed, strict=True):
        assert exact.difference(ours, theirs) <= limit


@lemma("tau_subgradient")
@examples(60)
@given(scores=finite_rows(max_size=7), data=st.data(), alpha=st.sampled_from((1.1, 1.5, 1.8, 2.0)))
def test_the_threshold_rises_at_least_as_its_derivative_says(scores, data, alpha):
    step = np.float64(alpha - 1.0)
    moved = scores + data.draw(vectors(len(scores)))
    probs = entmax(scores, alpha)
    s = np.where(probs > 0.0, probs ** (2.0 - alpha), 0.0)
    rise = entmax_ref.threshold(moved, alpha) - entmax_ref.threshold(scores, alpha)
    least = step * np.sum(s * (moved - scores)) / np.sum(s)
    size = 1.0 + np.max(np.abs(scores)) + np.max(np.abs(moved))
    assert rise >= least - 2.0**-40 * size


@from_one
@lemma("jacobian_form", "jacobian_rows_zero")
@examples(20)
@given(scores=finite_rows(max_size=7), data=st.data())
def test_products_and_jacobian_against_high_precision(alpha, scores, data):
    n = len(scores)
    bounds, vector = smooth(scores, alpha), data.draw(vectors(n))
    wanted = exact.vjp(scores, vector, alpha)
    assert_close(entmax_vjp(scores, vector, alpha), wanted, bounds.product(vector) + EXACT)
    np.testing.assert_array_equal(entmax_jvp(scores, vector, alpha), entmax_vjp(scores, vector, alpha))
    jacobian = entmax_jacobian(scores, alpha)
    np.testing.assert_array_equal(jacobian, jacobian.T)
    for key, unit in enumerate(np.eye(n)):
        # Entry by entry: s_i * s_j / S has three relative errors and n + 5 roundings, and the diagonal is their sum.
        column = exact.vjp(scores, unit, alpha)
        worst = np.max(bounds.sensitivity_error[bounds.live])
        allowed = [abs(float(entry)) * 1.01 * (3 * worst + U * (n + 5)) + EXACT for entry in column]
        assert_close(jacobian[:, key], column, allowed)


@from_one
@lemma("jacobian_form")
@examples(10)
@given(scores=finite_rows(max_size=5), data=st.data())
def test_jvp_is_the_slope_of_the_exact_map(alpha, scores, data):
    """Independent of the formula of the Jacobian: central differences of the map itself."""
    bounds, direction = smooth(scores, alpha), data.draw(vectors(len(scores)))

    def moved(t):
        row = [Fraction(float(s)) + t * Fraction(float(v)) for s, v in zip(scores, direction, strict=True)]
        return exact.probs(row, alpha, BITS)

    # Third derivatives are below (4 * max(power, 1) * 8 * 2**6) ** 3 <= 2**48 for alpha from 1.1; closer to 1, where
    # gap > 2**-6 allows any power, those of gap ** power for scores are below (8 / gap) ** 3 * 6.
    assert_close(entmax_jvp(scores, direction, alpha), exact.slope(moved, STEP), bounds.product(direction) + 2.0**-60)


@from_one
@examples(10)
@given(scores=finite_rows(max_size=5), data=st.data())
def test_second_order_product_is_the_slope_of_the_exact_vjp(alpha, scores, data):
    n = len(scores)
    bounds, outer, inner = smooth(scores, alpha), data.draw(vectors(n)), data.draw(vectors(n))

    def moved(t):
        row = [Fraction(float(s)) + t * Fraction(float(v)) for s, v in zip(scores, inner, strict=True)]
        return exact.vjp(row, outer, alpha, BITS)

    (a, a_error), (b, b_error) = bounds.centred(outer), bounds.centred(inner)
    weight = abs(2.0 - alpha) / bounds.gap
    error = weight * (a_error * np.abs(b) + np.abs(a) * b_error)
    error += weight * np.abs(a * b) * (bounds.gap_error / bounds.gap + 8 * U)
    allowed = bounds.product((2.0 - alpha) * a * b / bounds.gap, error)
    found = entmax_second(scores, outer, inner, alpha)
    assert_close(found, exact.slope(moved, STEP), allowed + 2.0**-50)  # 2**-120 times the fourth derivative
    swapped = entmax_second(scores, inner, outer, alpha)
    assert np.all(np.abs(found - swapped) <= 2 * allowed)


@from_one
@lemma("alpha_derivative")
@examples(15)
@given(scores=finite_rows(max_size=6))
def test_alpha_grad_is_the_slope_of_the_exact_map(alpha, scores):
    bounds = smooth(scores, alpha)

    def moved(t):
        return exact.probs(scores, Fraction(alpha) + t, BITS)

    wanted = exact.slope_from_right(moved, STEP) if alpha == 1 else exact.slope(moved, STEP)
    assert_close(entmax_alpha_grad(scores, alpha), wanted, alpha_grad_bound(bounds) + 2.0**-60)


def alpha_grad_bound(bounds):
    """Bound the error of `entmax_alpha_grad`: d w / d depth is log(probs), besides 30 roundings of w itself."""
    if bounds.alpha == 1.0:
        weight = -0.5 * bounds.log_probs**2
    else:
        weight = np.array([float(w) for w in map(exact_weight(bounds.alpha), bounds.gap, bounds.log_probs)])
    return bounds.product(weight, np.abs(bounds.log_probs) * bounds.depth_error + 30 * U * np.abs(weight))


def exact_weight(alpha):
    step = exact.exact(alpha) - 1

    def weight(_, log_probs):
        gap = exact.CONTEXT.exp(step * exact.exact(float(log_probs)))
        return -(1 - gap + gap * exact.CONTEXT.log(gap)) / step**2

    return weight


@pytest.mark.parametrize("alpha", [1.0, 1.0 + 2.0**-52, 1.0 + 1e-12, 1.0 + 1e-8, 1.0 + 1e-5])
def test_nothing_is_lost_as_alpha_tends_to_1(alpha):
    """All derivatives differ from their limits by order alpha - 1; published code loses every digit there."""
    scores = np.array([[0.3, -0.2, 1.4, 0.9], [0.0, 0.0, -5.0, -20.0]])
    outer, inner = np.random.default_rng(0).normal(size=(2, 2, 4))
    p = softmax(scores)
    mean = np.sum(p * outer, axis=-1, keepdims=True)
    logs = np.log(p)
    # depth <= 21, gap > 1 - 21e-5: one order in alpha - 1 is at most 21 ** 4 of it in any of these
    slack = (alpha - 1.0) * 21.0**4 + 100 * U
    np.testing.assert_allclose(entmax_vjp(scores, outer, alpha), p * (outer - mean), rtol=0, atol=slack)
    weight = -0.5 * logs * logs
    limit = p * (weight - np.sum(p * weight, axis=-1, keepdims=True))
    np.testing.assert_allclose(entmax_alpha_grad(scores, alpha), limit, rtol=0, atol=slack)
    bend = (outer - mean) * (inner - np.sum(p * inner, axis=-1, keepdims=True))
    limit = p * (bend - np.sum(p * bend, axis=-1, keepdims=True))
    np.testing.assert_allclose(entmax_second(scores, outer, inner, alpha), limit, rtol=0, atol=slack)


def test_alpha_grad_where_the_series_meets_the_closed_form():
    """Gaps on both sides of 3/4, against the closed form in 300 bits."""
    for alpha in (1.2, 1.5, 2.0, 3.0):
        for depth in np.linspace(0.2499, 0.2501, 5) / (alpha - 1.0):
            scores = np.array([0.0, -depth])
            bounds = exact.FirstOrder(scores, alpha)
            wanted = exact.slope(lambda t, a=alpha, s=scores: exact.probs(s, Fraction(a) + t, BITS), STEP)
            assert_close(entmax_alpha_grad(scores, alpha), wanted, alpha_grad_bound(bounds) + 2.0**-60)


@pytest.mark.parametrize("alpha", [1.25, 1.5, 2.0])
def test_at_the_edge_of_the_support_the_key_stays_outside(alpha):
    """The row of `test_a_key_exactly_at_tau_is_outside`: every product is that of the row without the key."""
    power = round(1 / (alpha - 1))
    flat = np.zeros(2**power)
    row = np.append(flat, -0.5 * power)
    vector = np.arange(row.size, dtype=float)
    for function, vectors_ in ((entmax_vjp, 1), (entmax_jvp, 1), (entmax_second, 2), (entmax_alpha_grad, 0)):
        found = function(row, *[vector] * vectors_, alpha)
        assert found[-1] == 0.0
        np.testing.assert_array_equal(found[:-1], function(flat, *[vector[:-1]] * vectors_, alpha))
    assert not entmax_jacobian(row, alpha)[-1].any()


def test_sparsemax_is_piecewise_linear():
    rng = np.random.default_rng(1)
    assert not entmax_second(*rng.normal(size=(3, 5, 8)), 2.0).any()


def test_jacobian_keeps_digits_where_one_key_holds_nearly_everything():
    """p = (1 - e, e) with e = exp(-40): the diagonal is e * (1 - e), where p - p * p would be 0."""
    jacobian = entmax_jacobian([0.0, -40.0], 1.0)
    np.testing.assert_allclose(jacobian, np.exp(-40.0) * np.array([[1, -1], [-1, 1]]), rtol=100 * U)


@from_one
def test_value_contract(alpha):
    inf, nan = np.inf, np.nan
    scores = np.array([[0.0, 0.5, -1.0], [-inf] * 3, [nan, 0.5, -inf], [0.0, inf, -1.0], [0.0, 0.5, -inf]])
    vector = np.array([[1.0, -2.0, 4.0]] * 5)
    visible, dirty = scores != -inf, np.isin(np.arange(5), [2, 3])[:, None]
    for function, count in ((entmax_jvp, 1), (entmax_second, 2), (entmax_alpha_grad, 0)):
        found = function(scores, *[vector] * count, alpha)
        np.testing.assert_array_equal(np.isnan(found), visible & dirty)
        assert not found[1].any() and not found[~visible].any()
        clean = [0, 4]
        np.testing.assert_array_equal(found[clean], function(scores[clean], *[vector[clean]] * count, alpha))
    jacobian = entmax_jacobian(scores, alpha)
    np.testing.assert_array_equal(np.isnan(jacobian), (visible & dirty)[:, :, None] & (visible & dirty)[:, None, :])
    assert not jacobian[1].any() and not jacobian[4][:, 2].any()


@pytest.mark.parametrize(("function", "count"), [(entmax_vjp, 1), (entmax_jvp, 1), (entmax_second, 2)])
def test_axis_mask_alpha_by_row_and_inputs(function, count):
    arrays = np.random.default_rng(2).normal(size=(1 + count, 3, 5, 4))
    arrays.flags.writeable = False
    copies = arrays.copy()
    mask = np.array([True, True, False, True, True])[:, None]
    alpha = np.array([1.0, 1.5, 2.0])[:, None]
    found = function(*arrays, alpha, axis=1, where=mask)
    for i, one in enumerate((1.0, 1.5, 2.0)):
        alone = function(*np.moveaxis(arrays[:, i], 1, 2), one, where=mask[:, 0])
        np.testing.assert_allclose(found[i], alone.T, rtol=0, atol=40 * U)
    np.testing.assert_array_equal(arrays, copies)


def test_axis_and_alpha_by_row_of_jacobian_and_alpha_grad():
    scores = np.random.default_rng(3).normal(size=(3, 5, 4))
    alpha = np.array([1.0, 1.5, 2.0])[:, None]
    jacobian, d_alpha = entmax_jacobian(scores, alpha, axis=1), entmax_alpha_grad(scores, alpha, axis=1)
    assert jacobian.shape == (3, 4, 5, 5) and d_alpha.shape == scores.shape
    for i, one in enumerate((1.0, 1.5, 2.0)):
        np.testing.assert_allclose(jacobian[i], entmax_jacobian(scores[i], one, axis=0), rtol=0, atol=40 * U)
        np.testing.assert_allclose(d_alpha[i], entmax_alpha_grad(scores[i], one, axis=0), rtol=0, atol=400 * U)
    vector = np.arange(60.0).reshape(scores.shape) / 60
    product = np.einsum("hqij,hjq->hiq", jacobian, vector)
    np.testing.assert_allclose(product, entmax_vjp(scores, vector, alpha, axis=1), rtol=0, atol=60 * U)


@from_one
@examples(30)
@given(scores=finite_rows(max_size=12))
def test_alpha_grad_sums_to_zero(alpha, scores):
    found = entmax_alpha_grad(scores, alpha)
    # Rows of a Jacobian sum to 0: 3 n + 20 roundings of terms that are as large as those that are summed
    inside = entmax(scores, alpha) > 0
    spread = np.ptp(np.log(entmax(scores, alpha)[inside])) ** 2 + 1
    assert abs(found.sum()) <= (6 * len(scores) + 60) * U * spread * np.count_nonzero(inside)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        ("entmax_vjp", "d_probs"),
        ("entmax_jvp", "d_scores"),
        ("entmax_second", "d_probs"),
        ("entmax_second", "d_scores"),
    ],
)
def test_a_bad_vector_is_named(function, name):
    names = ["d_probs", "d_scores"] if function == "entmax_second" else [name]
    for bad, error, message in (
        ([1j, 0], TypeError, "must be real and numeric; its dtype is complex128."),
        ([1.0], ValueError, "must have the shape of scores, (2,); its shape is (1,). Broadcast"),
    ):
        vectors_ = [bad if other == name else [1.0, 0.0] for other in names]
        with pytest.raises(error, match=re.escape(f"{function}: {name} {message}")):
            getattr(entmax_ref, function)([1.0, 2.0], *vectors_)


@pytest.mark.parametrize("function", ["entmax_jacobian", "entmax_alpha_grad"])
def test_a_bad_alpha_is_named(function):
    with pytest.raises(ValueError, match=f"^{function}: alpha must be finite and at least 1; it is 0.5"):
        getattr(entmax_ref, function)([1.0, 2.0], 0.5)
