"""Are probabilities and support those of the definition, to their stated bounds?"""

import math

import exact
import numpy as np
import pytest
from drawn import ALPHAS, EXTREME_ALPHAS, edge_rows, finite_rows, grid_rows, masked_rows, shifted_rows
from exact import U
from hypothesis import assume, given
from hypothesis import strategies as st
from lemmas import lemma
from profiles import examples

from entmax_ref import entmax, entmax15, entmax_vjp, softmax, sparsemax, support, threshold

EXACT_EXAMPLES = 25  # each costs some milliseconds in high precision
each_alpha = pytest.mark.parametrize("alpha", ALPHAS)


def mass_bound(scores, alpha):
    """Return a bound of abs(sum(probs) - 1), from the computed gaps and not from their exact values.

    Each probability: 2 U for numpy.power, U * abs(log(probs)) for its exponent, power * 2 U for the roundings
    of the gap after the solve. The sums of the solve and of this test: n U each. The last Newton step: 2 U of
    the mass, and of its x 2 U, which the slope turns into at most power * 2 U.
    """
    n, power = len(scores), 1.0 / (alpha - 1.0)
    return U * (4 + np.log(n) + 2 * n + 4 * power + 4)


@each_alpha
@lemma("threshold_unique")
@examples(EXACT_EXAMPLES)
@given(scores=shifted_rows())
def test_probabilities_and_support_against_high_precision(alpha, scores):
    n = len(scores)
    slack = exact.gap_bound(n, alpha)
    found, supported = entmax(scores, alpha), support(scores, alpha)
    for probability, inside, gap in zip(found, supported, exact.gaps(scores, alpha), strict=True):
        least, greatest = exact.probs_range(gap, n, alpha)
        assert least <= exact.exact(float(probability)) <= greatest
        assert inside == (gap > 0) or abs(gap) <= slack
        assert inside or probability == 0.0


@pytest.mark.parametrize("alpha", EXTREME_ALPHAS)
@examples(EXACT_EXAMPLES)
@given(scores=shifted_rows())
def test_probabilities_for_extreme_alpha(alpha, scores):
    for probability, gap in zip(entmax(scores, alpha), exact.gaps(scores, alpha), strict=True):
        least, greatest = exact.probs_range(gap, len(scores), alpha)
        assert least <= exact.exact(float(probability)) <= greatest


@each_alpha
@examples(EXACT_EXAMPLES)
@given(data=st.data())
def test_a_key_within_rounding_of_the_edge_of_the_support(alpha, data):
    scores = data.draw(edge_rows(alpha, threshold))
    n = len(scores)
    for probability, gap in zip(entmax(scores, alpha), exact.gaps(scores, alpha), strict=True):
        least, greatest = exact.probs_range(gap, n, alpha)
        assert least <= exact.exact(float(probability)) <= greatest


NEAR_ONE = (1.0, 1.0 + 2.0**-52, 1.0 + 1e-8, 1.0001, 1.001, 1.01, 1.1)


@pytest.mark.parametrize("alpha", NEAR_ONE)
@examples(EXACT_EXAMPLES)
@given(scores=shifted_rows())
def test_probabilities_keep_their_digits_close_to_alpha_1(alpha, scores):
    """A relative error by key, where the bound from the gap alone grows as 1 / (alpha - 1)."""
    bounds = exact.FirstOrder(scores, alpha)
    assume(bounds.valid)
    for found, wanted, error in zip(entmax(scores, alpha), exact.probs(scores, alpha), bounds.probs_error, strict=True):
        assert exact.difference(found, wanted) <= 1.01 * error * float(wanted) + 2.0**-1073


@pytest.mark.parametrize("alpha", [*NEAR_ONE, 1.25, 4 / 3, 1.4, 1.5, 1.75, 1.9, 2.0, 2.5, 4.0, 10.0, 30.0])
def test_probabilities_sum_to_1_within_4_units_times_sqrt_n(alpha):
    rng = np.random.default_rng(12)
    for n in (1, 2, 3, 4, 8, 100, 1000):
        for deviation in (0.0, 0.01, 0.3, 1.0, 3.0, 30.0):
            scores = rng.normal(size=(max(2, 300 // n), n)) * deviation
            scores[::3] = np.round(scores[::3] * 4.0) / 4.0
            for row in entmax(scores, alpha):
                assert abs(math.fsum([*row, -1.0])) <= 4 * 2.0**-52 * np.sqrt(n)


@given(scores=shifted_rows(max_size=30))
def test_softmax_against_its_definition(scores):
    relative = [exact.exact(exact.Fraction(float(s)) - exact.Fraction(float(scores.max()))) for s in scores]
    total = exact.CONTEXT.fsum(map(exact.CONTEXT.exp, relative))
    for found, depth in zip(softmax(scores), relative, strict=True):
        wanted = exact.CONTEXT.exp(depth) / total
        # exp and theta: 2 U and (2 + log(n) + n) U; theta + drop, theta and drop: 3 U of the depth
        error = U * (6 + 2 * np.log(len(scores)) + len(scores) + 3 * (abs(float(depth)) + np.log(len(scores))))
        assert exact.difference(found, wanted) <= 1.01 * error * float(wanted) + 2.0**-1073
    np.testing.assert_array_equal(softmax(scores), entmax(scores, 1.0))
    assert support(scores, 1.0).all()


def test_the_named_maps_are_entmax():
    scores = np.random.default_rng(13).normal(size=(3, 5, 4))
    mask = np.arange(5) != 2
    for function, alpha in ((softmax, 1.0), (entmax15, 1.5), (sparsemax, 2.0)):
        np.testing.assert_array_equal(function(scores), entmax(scores, alpha))
        np.testing.assert_array_equal(
            function(scores, axis=1, where=mask[:, None]), entmax(scores, alpha, axis=1, where=mask[:, None])
        )
        with pytest.raises(TypeError, match=f"^{function.__name__}: scores must be real"):
            function([1j])


@pytest.mark.filterwarnings("error")
def test_softmax_of_what_overflows_and_of_what_is_hidden():
    scores = [[1.7e308, -1.7e308, -np.inf], [-np.inf] * 3, [1e300, 1e300, 0.0]]
    np.testing.assert_array_equal(softmax(scores), [[1, 0, 0], [0, 0, 0], [0.5, 0.5, 0]])
    np.testing.assert_array_equal(support(scores, 1.0), [[True, True, False], [False] * 3, [True] * 3])
    both = entmax(scores, np.array([1.0, 1.0, 2.0]))
    np.testing.assert_array_equal(both, softmax(scores))
    np.testing.assert_array_equal(softmax([[0.0, np.nan], [0.0, 0.0]]), [[np.nan, np.nan], [0.5, 0.5]])


@pytest.mark.filterwarnings("error")
def test_one_alpha_per_head():
    scores = np.random.default_rng(14).normal(size=(2, 5, 3, 40)) * 2
    scores[0, :, 0] = -np.inf
    scores[1, :, 1, 3] = np.nan
    alpha = np.array([1.0, 1.5, 2.0, 1.2, 3.0])[:, None]
    found, supported = entmax(scores, alpha), support(scores, alpha)
    for head, one in enumerate(alpha[:, 0]):
        np.testing.assert_allclose(found[:, head], entmax(scores[:, head], one), rtol=0, atol=60 * U)
        np.testing.assert_array_equal(supported[:, head], support(scores[:, head], one))
    np.testing.assert_array_equal(found, np.moveaxis(entmax(np.moveaxis(scores, 3, 1), alpha, axis=1), 1, 3))
    with pytest.raises(ValueError, match=r"^entmax: alpha must be one number or broadcast .* \(2, 5, 3\) .* \(5,\)"):
        entmax(scores, alpha[:, 0])


@given(scores=grid_rows(max_size=30))
def test_sparsemax_support_on_a_grid_against_fractions(scores):
    """On multiples of 1/8 every sum is exact, so the support must be, also for a key exactly at tau."""
    tau = exact.sparsemax_relative_tau(scores)
    wanted = [exact.Fraction(float(score - scores.max())) > tau for score in scores]
    np.testing.assert_array_equal(support(scores, 2.0), wanted)


@pytest.mark.parametrize("alpha", [1.25, 1.5, 2.0])
def test_a_key_exactly_at_tau_is_outside(alpha):
    power = round(1 / (alpha - 1))
    flat = [0.0] * 2**power  # gaps of 1/2, so tau = -1/2, and every step is exact
    at_tau = -0.5 * power
    np.testing.assert_array_equal(support([*flat, at_tau], alpha), [*[True] * len(flat), False])
    np.testing.assert_array_equal(support([*flat, at_tau + 2.0**-45], alpha), True)
    np.testing.assert_array_equal(entmax([0.0, -power, -power], alpha), [1.0, 0.0, 0.0])


@each_alpha
@lemma("threshold_unique")
@given(scores=shifted_rows(max_size=40))
def test_probabilities_are_a_distribution(alpha, scores):
    found = entmax(scores, alpha)
    assert found.dtype == np.float64 and found.shape == scores.shape
    assert np.all(found >= 0.0)
    assert abs(found.sum() - 1.0) <= mass_bound(scores, alpha)
    ranks = np.argsort(scores, kind="stable")
    assert np.all(np.diff(found[ranks]) >= 0.0)  # larger scores have no smaller probabilities


@each_alpha
@pytest.mark.parametrize("n", [1, 2, 3, 1000, 100_000])
def test_equal_scores_share_the_mass_equally(alpha, n):
    found = entmax(np.full(n, -3.7), alpha)
    assert np.all(found == found[0])
    # lift = n ** (1 - alpha), to the power 1 / (alpha - 1): the two exponents and powers, and one Newton step
    power = 1.0 / (alpha - 1.0)
    assert abs(found[0] * n - 1.0) <= U * (8 + np.log(n) * 2 + 4 * power + 19 + np.log2(n))


def tsallis_objective(p, scores, alpha):
    """Return p . scores + H_alpha(p) in high precision; the p are mpf on the simplex."""
    order = exact.exact(alpha)
    entropy = exact.CONTEXT.fsum(value - value**order for value in p) / (order * (order - 1))
    return exact.CONTEXT.fdot(p, [exact.exact(float(score)) for score in scores]) + entropy


@pytest.mark.parametrize("alpha", [alpha for alpha in ALPHAS if alpha <= 2.0])
@examples(EXACT_EXAMPLES)
@given(scores=finite_rows(max_size=6), data=st.data())
def test_first_principles_no_distribution_scores_higher(alpha, scores, data):
    """entmax maximises p . s + H_alpha(p) over the simplex; the definition, with no threshold in it."""
    n = len(scores)
    weights = data.draw(st.lists(st.integers(0, 1000), min_size=n, max_size=n).filter(any))
    step = data.draw(st.sampled_from([1.0, 2.0**-4, 2.0**-12]))
    ours = [exact.exact(float(p)) for p in entmax(scores, alpha)]
    ours = [p / exact.CONTEXT.fsum(ours) for p in ours]  # exactly on the simplex, as the comparison needs
    other = [exact.exact(weight) / sum(weights) for weight in weights]
    other = [p + exact.exact(step) * (q - p) for p, q in zip(ours, other, strict=True)]
    # The objective is flat at its maximum: errors of the probabilities enter squared, and each is below
    # (power + 1) * 2**-45 relatively to sqrt(probs ** (2 - alpha)), the scale on which the curvature is 1.
    slack = n * (1 / (alpha - 1) + 1) ** 2 * 2.0**-90
    assert tsallis_objective(ours, scores, alpha) >= tsallis_objective(other, scores, alpha) - exact.exact(slack)


@each_alpha
@lemma("threshold_subset")
@given(row=masked_rows(max_size=20))
def test_a_mask_equals_dropping_the_keys(alpha, row):
    scores, mask = row
    found = entmax(scores, alpha, where=mask)
    assert np.all(found[~mask] == 0.0)
    garbage = np.where(mask, scores, np.resize([np.nan, np.inf, -np.inf, 1e308], len(scores)))
    np.testing.assert_array_equal(entmax(garbage, alpha, where=mask), found)
    np.testing.assert_array_equal(support(garbage, alpha, where=mask), support(scores, alpha, where=mask))
    d_probs = np.where(mask, np.arange(len(scores)), np.nan)
    d_scores = entmax_vjp(garbage, d_probs, alpha, where=mask)
    np.testing.assert_array_equal(d_scores, entmax_vjp(scores, np.arange(len(scores)), alpha, where=mask))
    if mask.any():
        assert abs(found.sum() - 1.0) <= mass_bound(scores, alpha)
    else:
        assert not found.any() and not d_scores.any()


@each_alpha
def test_value_contract(alpha):
    inf, nan = np.inf, np.nan
    scores = np.array([[0.0, 0.5, -1.0], [-inf] * 3, [nan, 0.5, -inf], [0.0, inf, -1.0], [0.0, 0.5, -inf]])
    clean, dirty = [0, 1, 4], [2, 3]
    d_probs = np.array([[1.0, -2.0, 4.0]] * 5)
    visible = scores != -inf
    for found in (entmax(scores, alpha), entmax_vjp(scores, d_probs, alpha)):
        np.testing.assert_array_equal(np.isnan(found), visible & np.isin(np.arange(5), dirty)[:, None])
        assert not found[1].any() and not found[~visible].any()
    np.testing.assert_array_equal(entmax(scores, alpha)[clean], entmax(scores[clean], alpha))
    np.testing.assert_array_equal(
        entmax_vjp(scores, d_probs, alpha)[clean], entmax_vjp(scores[clean], d_probs[clean], alpha)
    )
    assert not support(scores, alpha)[[1, 2, 3]].any()
    np.testing.assert_array_equal(support(scores, alpha)[4], [*support([0.0, 0.5], alpha), False])


def test_the_default_alpha_is_one_and_a_half():
    scores, d_probs = np.random.default_rng(1).normal(size=(2, 3, 6))
    np.testing.assert_array_equal(entmax(scores), entmax(scores, 1.5))
    np.testing.assert_array_equal(support(scores), support(scores, 1.5))
    np.testing.assert_array_equal(entmax_vjp(scores, d_probs), entmax_vjp(scores, d_probs, 1.5))


@each_alpha
def test_axis_mask_layout_and_inputs(alpha):
    scores, d_probs = np.random.default_rng(2).normal(size=(2, 3, 5, 4))
    mask = np.array([True, True, False, True, True])[:, None]
    copies = scores.copy(), d_probs.copy()
    scores.flags.writeable = d_probs.flags.writeable = False
    turned, d_turned = (np.ascontiguousarray(np.moveaxis(array, 1, -1)) for array in (scores, d_probs))
    for function, inputs, last in (
        (entmax, (scores,), (turned,)),
        (support, (scores,), (turned,)),
        (entmax_vjp, (scores, d_probs), (turned, d_turned)),
    ):
        found = function(*inputs, alpha, axis=1, where=mask)
        assert found.shape == scores.shape
        np.testing.assert_array_equal(np.moveaxis(found, 1, -1), function(*last, alpha, where=mask[:, 0]))
        np.testing.assert_array_equal(found, function(*inputs, alpha, axis=-2, where=mask))
    np.testing.assert_array_equal(scores, copies[0])
    np.testing.assert_array_equal(d_probs, copies[1])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.longdouble, np.int32])
def test_every_real_dtype_is_raised_to_float64(dtype):
    scores = np.array([3, 1, 2, 2]).astype(dtype)
    for alpha in ALPHAS:
        assert entmax(scores, alpha).dtype == np.float64
        np.testing.assert_array_equal(entmax(scores, alpha), entmax([3.0, 1.0, 2.0, 2.0], alpha))
        d_scores = entmax_vjp(scores, scores, alpha)
        assert d_scores.dtype == np.float64
        np.testing.assert_array_equal(d_scores, entmax_vjp([3.0, 1.0, 2.0, 2.0], [3.0, 1.0, 2.0, 2.0], alpha))
