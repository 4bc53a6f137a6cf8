"""Is tau exact to its stated bound, is it the one of the lemmas, and is the value contract kept?"""

from fractions import Fraction

import exact
import numpy as np
import pytest
from drawn import ALPHAS, EXTREME_ALPHAS, edge_rows, finite_rows, grid_rows, masked_rows, shifted_rows
from exact import U
from hypothesis import given
from hypothesis import strategies as st
from lemmas import lemma
from profiles import examples

import entmax_ref
from entmax_ref import threshold

EXACT_EXAMPLES = 30  # each costs some milliseconds in high precision
each_alpha = pytest.mark.parametrize("alpha", ALPHAS)


def row_max_of(scores, alpha):
    return (alpha - 1.0) * float(np.max(scores))


def error_of(found, scores, alpha, relative_tau):
    """Return abs(found - tau), with tau = row_max + relative_tau formed exactly."""
    numerator, denominator = Fraction(alpha) - 1, Fraction(float(np.max(scores)))
    return float(abs(exact.exact(Fraction(float(found)) - numerator * denominator) - relative_tau))


def assert_within_bounds(found, scores, alpha, relative_tau):
    error = error_of(found, scores, alpha, relative_tau)
    row_max = row_max_of(scores, alpha)
    assert error <= exact.tau_bound(len(scores), row_max, alpha)
    assert error <= 4 * 2 * U * max(1.0, abs(row_max))  # the promise for short rows in the docstring


@each_alpha
@lemma("threshold_unique")
@examples(EXACT_EXAMPLES)
@given(scores=shifted_rows())
def test_tau_against_high_precision(alpha, scores):
    assert_within_bounds(threshold(scores, alpha), scores, alpha, exact.relative_tau(scores, alpha))


@each_alpha
@examples(EXACT_EXAMPLES)
@given(data=st.data())
def test_tau_with_a_key_within_rounding_of_the_edge_of_the_support(alpha, data):
    scores = data.draw(edge_rows(alpha, threshold))
    assert_within_bounds(threshold(scores, alpha), scores, alpha, exact.relative_tau(scores, alpha))


@pytest.mark.parametrize("alpha", EXTREME_ALPHAS)
@examples(EXACT_EXAMPLES)
@given(scores=shifted_rows())
def test_tau_for_extreme_alpha(alpha, scores):
    error = error_of(threshold(scores, alpha), scores, alpha, exact.relative_tau(scores, alpha))
    assert error <= exact.tau_bound(len(scores), row_max_of(scores, alpha), alpha)


@pytest.mark.filterwarnings("error")
def test_an_alpha_so_large_that_gaps_underflow():
    """The gap is 10 ** -399, so tau is row_max, and nothing warns; `entmax` says what becomes of the probabilities."""
    np.testing.assert_array_equal(threshold(np.zeros(10), 400.0), 0.0)
    assert not entmax_ref.entmax(np.zeros(10), 400.0).any()


@given(scores=shifted_rows(max_size=30))
def test_sparsemax_tau_against_fractions(scores):
    relative = exact.exact(exact.sparsemax_relative_tau(scores))
    assert_within_bounds(threshold(scores, 2.0), scores, 2.0, relative)


@each_alpha
@pytest.mark.parametrize("kind", ["gaussian", "equal", "ties", "nearly equal", "wide", "spike"])
def test_tau_of_long_rows_lies_between_two_points_around_mass_one(alpha, kind):
    """tau lies within the bound iff the mass, decreasing, is >= 1 at one end of it and <= 1 at the other."""
    n = 1500
    rng = np.random.default_rng(20 + len(kind))
    scores = {
        "gaussian": rng.normal(size=n),
        "equal": np.full(n, 0.7),
        "ties": rng.integers(-3, 3, n) / 4,
        "nearly equal": 1.0 + rng.integers(0, 5, n) * 2.0**-50,
        "wide": rng.normal(size=n) * 100,
        "spike": np.append(np.zeros(n - 1), 50.0),
    }[kind]
    found = threshold(scores, alpha)
    row_max = row_max_of(scores, alpha)
    relative = exact.exact(Fraction(float(found)) - (Fraction(alpha) - 1) * Fraction(float(scores.max())))
    bound = exact.exact(exact.tau_bound(n, row_max, alpha))
    relative_z = exact.relative_z(scores, alpha)
    assert exact.mass_at(relative_z, alpha, relative - bound) >= 1
    assert exact.mass_at(relative_z, alpha, relative + bound) <= 1


def test_the_default_alpha_is_entmax_with_alpha_one_and_a_half():
    scores = np.random.default_rng(0).normal(size=(4, 9))
    np.testing.assert_array_equal(threshold(scores), threshold(scores, 1.5))


@each_alpha
@lemma("threshold_bracket")
@given(scores=shifted_rows(max_size=40))
def test_tau_lies_in_its_bracket(alpha, scores):
    n, row_max = len(scores), row_max_of(scores, alpha)
    slack = exact.tau_bound(n, row_max, alpha) + 4 * U * max(1.0, abs(row_max))  # the ends are rounded too
    tau = threshold(scores, alpha)
    assert row_max - 1 - slack <= tau <= row_max - n ** (1.0 - alpha) + slack


@each_alpha
@lemma("threshold_shift")
@given(scores=grid_rows(), shift=st.integers(-(2**40), 2**40))
def test_an_exact_shift_moves_tau_by_the_shift_and_leaves_probabilities_alone(alpha, scores, shift):
    shifted = scores + float(shift)
    assert np.array_equal(shifted - float(shift), scores)
    np.testing.assert_array_equal(entmax_ref.entmax(shifted, alpha), entmax_ref.entmax(scores, alpha))
    moved = (Fraction(float(threshold(shifted, alpha))) - Fraction(float(threshold(scores, alpha)))) - (
        Fraction(alpha) - 1
    ) * shift
    bounds = [exact.tau_bound(len(scores), row_max_of(row, alpha), alpha) for row in (scores, shifted)]
    assert abs(moved) <= sum(bounds)


@each_alpha
@pytest.mark.parametrize("offset", [1e300, -1e300, 1.7e308, -1.7e308])
def test_offsets_near_the_end_of_the_range(alpha, offset):
    np.testing.assert_array_equal(entmax_ref.entmax(np.full(3, offset), alpha), entmax_ref.entmax(np.zeros(3), alpha))
    one_unit_up = np.array([offset, np.nextafter(offset, np.inf), offset])
    np.testing.assert_array_equal(entmax_ref.entmax(one_unit_up, alpha), [0.0, 1.0, 0.0])
    np.testing.assert_array_equal(entmax_ref.entmax([offset, -offset], alpha), [offset > 0, offset < 0])


@each_alpha
@lemma("threshold_subset")
@given(row=masked_rows(max_size=20))
def test_tau_of_some_keys_is_not_above_that_of_all(alpha, row):
    scores, mask = row
    if not mask.any():
        mask[0] = True
    slack = 2 * exact.tau_bound(
        len(scores), max(abs(row_max_of(part, alpha)) for part in (scores, scores[mask])), alpha
    )
    some, every = threshold(scores, alpha, where=mask), threshold(scores, alpha)
    assert some <= every + slack
    np.testing.assert_array_equal(some, threshold(np.where(mask, scores, -np.inf), alpha))


@pytest.mark.parametrize("alpha", [alpha for alpha in ALPHAS if alpha <= 2.0])
@lemma("residual_bound")
@examples(50)
@given(scores=finite_rows(), depth=st.floats(-0.5, 1.5))
def test_the_defect_of_the_mass_bounds_the_distance_to_tau(alpha, scores, depth):
    """abs(t - tau) <= abs(mass(t) - 1) for t <= row_max; the mass is exact, tau errs by its bound."""
    row_max = row_max_of(scores, alpha)
    t = min(row_max, row_max - 1.0 + depth)
    relative = exact.exact(Fraction(t) - (Fraction(alpha) - 1) * Fraction(float(np.max(scores))))
    if relative > 0:  # row_max, rounded up
        return
    defect = float(abs(exact.mass_at(exact.relative_z(scores, alpha), alpha, relative) - 1))
    bound = exact.tau_bound(len(scores), row_max, alpha)
    assert abs(t - threshold(scores, alpha)) <= defect + bound + U * defect


@each_alpha
@given(scores=finite_rows())
def test_order_and_ties_of_keys_do_not_matter(alpha, scores):
    np.testing.assert_array_equal(threshold(scores[::-1], alpha), threshold(scores, alpha))
    found = entmax_ref.entmax(scores, alpha)
    for score in scores:
        assert len(set(found[scores == score])) == 1


def test_rows_are_solved_each_on_its_own():
    """Bitwise: what a row gets does not depend on the rows beside it, nor on how many there are."""
    rng = np.random.default_rng(3)
    scores = rng.normal(size=(5, 6, 7)) * rng.choice([0.1, 1.0, 30.0], size=(5, 6, 1))
    for alpha in ALPHAS:
        together = threshold(scores, alpha, axis=1)
        assert together.shape == (5, 7) and together.dtype == np.float64
        for i in range(5):
            for j in range(7):
                alone = threshold(scores[i, :, j], alpha)
                assert alone.shape == ()
                # The padding of a shorter support by zeros may change the tree of a sum, never its terms.
                assert abs(alone - together[i, j]) <= exact.tau_bound(6, row_max_of(scores[i, :, j], alpha), alpha)


@each_alpha
def test_value_contract(alpha):
    inf, nan = np.inf, np.nan
    scores = np.array(
        [
            [0.0, 0.5, -1.0],
            [-inf, -inf, -inf],
            [nan, 0.5, -1.0],
            [0.0, inf, -1.0],
            [inf, nan, -inf],
            [0.0, 0.5, -inf],
        ]
    )
    tau = threshold(scores, alpha)
    assert tau[1] == inf
    assert np.isnan(tau[2:5]).all()
    np.testing.assert_array_equal(tau[[0]], threshold(scores[[0]], alpha))
    np.testing.assert_array_equal(tau[5], threshold(scores[5, :2], alpha))
    hidden = threshold(scores, alpha, where=[False, True, True])
    np.testing.assert_array_equal(hidden[2], threshold([0.5, -1.0], alpha))
    assert np.isnan(hidden[3]) and np.isnan(hidden[4]) and hidden[1] == inf
    assert np.all(threshold(scores, alpha, where=False) == inf)


@each_alpha
def test_one_key_takes_everything(alpha):
    scores = np.array([[-3.0], [0.0], [1e5]])
    np.testing.assert_array_equal(threshold(scores, alpha), (alpha - 1) * scores[:, 0] - 1)
    np.testing.assert_array_equal(entmax_ref.entmax(scores, alpha), np.ones((3, 1)))


@each_alpha
def test_subnormal_differences_count_as_ties_or_less(alpha):
    tiny = np.array([0.0, 5e-324, -5e-324, 2e-308])
    # The differences vanish beside 1: tau is that of four equal scores, to the rounding of its own bound.
    assert abs(threshold(tiny, alpha) - threshold(np.zeros(4), alpha)) <= 2 * exact.tau_bound(4, 0.0, alpha)


def test_no_rows_is_no_error():
    assert threshold(np.empty((0, 4))).shape == (0,)
    assert threshold(np.empty((3, 4, 0)), axis=1).shape == (3, 0)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble, np.int8, np.uint16, np.int64])
def test_every_real_dtype_is_raised_to_float64(dtype):
    scores = np.array([[3, 1, 2, 0], [1, 1, 1, 1]]).astype(dtype)
    for alpha in ALPHAS:
        tau = threshold(scores, alpha)
        assert tau.dtype == np.float64
        np.testing.assert_array_equal(tau, threshold(scores.astype(np.float64), alpha))


@each_alpha
def test_inputs_are_not_modified_and_need_not_be_contiguous(alpha):
    scores = np.random.default_rng(5).normal(size=(6, 8))
    scores[2] = -np.inf
    scores[3, 4] = np.nan
    mask = np.arange(48).reshape(6, 8) % 5 > 0
    copies = scores.copy(), mask.copy()
    scores.flags.writeable = mask.flags.writeable = False
    whole = threshold(scores, alpha, where=mask)
    np.testing.assert_array_equal(scores, copies[0])
    np.testing.assert_array_equal(mask, copies[1])
    spaced = np.repeat(np.repeat(scores, 2, axis=0), 3, axis=1)[::2, ::3]
    np.testing.assert_array_equal(threshold(spaced, alpha, where=mask), whole)
    np.testing.assert_array_equal(threshold(scores.T, alpha, axis=0, where=mask.T), whole)


def test_a_mask_broadcasts():
    scores = np.random.default_rng(6).normal(size=(2, 3, 4))
    mask = np.array([True, False, True])[:, None]
    np.testing.assert_array_equal(threshold(scores, axis=1, where=mask), threshold(scores[:, [0, 2]], axis=1))


@examples(50)
@given(data=st.data())
def test_alpha_by_row_is_each_row_on_its_own(data):
    """Any mix of the closed forms, both forms of the root and alpha above 2 in one call."""
    rows = [data.draw(shifted_rows()) for _ in range(6)]
    alpha = np.array([data.draw(st.sampled_from(ALPHAS + EXTREME_ALPHAS)) for _ in rows])
    n = max(map(len, rows))
    scores = np.array([np.pad(row, (0, n - len(row)), constant_values=-np.inf) for row in rows])
    found = threshold(scores, alpha)
    np.testing.assert_array_equal(found, threshold(scores[:, None], alpha[:, None])[:, 0])
    np.testing.assert_array_equal(found, threshold(scores.T, alpha, axis=0))
    for tau, row, one in zip(found, rows, alpha, strict=True):
        bound = exact.tau_bound(n, row_max_of(row, one), one)
        assert tau == threshold(row, float(one)) or abs(tau - threshold(row, float(one))) <= 2 * bound


@pytest.mark.parametrize("alpha", [1.001, 1.25, 1.5, 2.0, 2.5])
@pytest.mark.parametrize("n", [31, 32, 33, 129, 700])
def test_rows_around_the_widths_at_which_the_solver_changes_its_ways(alpha, n):
    """Supports that end before, at and after a prefix; candidates packed and not; many rows in one chunk."""
    rng = np.random.default_rng(n)
    scores = rng.normal(size=(24, n)) * np.geomspace(1e-6, 100.0, 24)[:, None] / (alpha - 1.0)
    scores[::4] = np.round(scores[::4])
    wide = np.full((24, 8 * n), -1e9)  # the same keys, few among many
    wide[:, ::8] = scores
    for row, tau, packed in zip(scores, threshold(scores, alpha), threshold(wide, alpha), strict=True):
        row_max = row_max_of(row, alpha)
        relative = exact.exact(Fraction(float(tau)) - (Fraction(alpha) - 1) * Fraction(float(row.max())))
        bound = exact.exact(exact.tau_bound(n, row_max, alpha))
        relative_z = exact.relative_z(row, alpha)
        assert exact.mass_at(relative_z, alpha, relative - bound) >= 1
        assert exact.mass_at(relative_z, alpha, relative + bound) <= 1
        assert abs(tau - packed) <= 2 * exact.tau_bound(n, row_max, alpha)


def test_more_rows_than_a_chunk_holds():
    scores = np.random.default_rng(7).normal(size=(300, 1500))
    together = threshold(scores, 1.5)
    np.testing.assert_array_equal(together[::37], [threshold(row, 1.5) for row in scores[::37]])


def test_alpha_may_be_any_kind_of_real_scalar():
    for alpha in (2, np.int64(2), np.float32(2.0), np.array(2.0)):
        np.testing.assert_array_equal(threshold([0.5, 0.25, -1.0], alpha), -0.125)
