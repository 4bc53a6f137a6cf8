"""Is the support the exact one, for keys on tau, and next to it?  Against rationals, mpmath and `certify`."""

from fractions import Fraction

import exact
import numpy as np
import pytest
from drawn import ALPHAS, EXTREME_ALPHAS, edge_rows, finite_rows, shifted_rows
from hypothesis import given
from hypothesis import strategies as st
from lemmas import lemma
from profiles import examples

import entmax_ref
from entmax_ref import bounds, support, threshold
from entmax_ref.certify import certify
from entmax_ref.rows.exact_support import edge
from entmax_ref.rows.threshold import solve_rows

pytest.importorskip("flint", reason="ball arithmetic comes with the extra certify")

each_alpha = pytest.mark.parametrize("alpha", ALPHAS)
each_sign = pytest.mark.parametrize(
    "decide", [edge._in_float64, edge._in_exact_sums, edge._in_twofold, edge._in_decimals]
)


def rational_support(scores, alpha):
    """Return the support for a power that is an integer, in rationals."""
    power = 1 / (Fraction(alpha) - 1)
    assert power.denominator == 1
    values = [(Fraction(alpha) - 1) * Fraction(float(score)) for score in scores]
    return [sum((other - own) ** int(power) for other in values if other > own) < 1 for own in values]


def assert_exact(scores, alpha):
    """The support is what the certificate decides, probabilities agree with it, and sums and bounds hold."""
    scores = np.atleast_2d(scores)
    proof, found, probs = certify(scores, alpha), support(scores, alpha), entmax_ref.entmax(scores, alpha)
    assert not np.any(proof.in_support & ~found) and not np.any(proof.out_of_support & found)
    assert not probs[~found].any() and np.all(probs[found & (proof.probs_lo > 1e-300)] > 0.0)
    assert np.all(np.abs(probs.sum(axis=-1) - 1.0) <= 4 * 2.0**-52 * np.sqrt(scores.shape[1]))
    assert np.all(proof.probs_error(probs)[1] <= bounds.entmax(scores, alpha))
    assert np.all(proof.tau_error(threshold(scores, alpha))[1] <= bounds.threshold(scores, alpha))


@each_alpha
@lemma("threshold_unique")
@examples(60)
@given(data=st.data())
def test_a_key_within_rounding_of_tau(alpha, data):
    assert_exact(data.draw(edge_rows(alpha, threshold)), alpha)


@each_alpha
@examples(30)
@given(scores=shifted_rows())
def test_any_row(alpha, scores):
    assert_exact(scores, alpha)


@pytest.mark.parametrize("alpha", EXTREME_ALPHAS)
@examples(30)
@given(data=st.data())
def test_extreme_alpha(alpha, data):
    scores = data.draw(edge_rows(alpha, threshold))
    proof, found = certify(scores, alpha), support(scores, alpha)
    assert not np.any(proof.in_support & ~found) and not np.any(proof.out_of_support & found)


@pytest.mark.parametrize("alpha", [1.5, 2.0])
@pytest.mark.parametrize("unit", [1.0, 0.5, 0.125, 2.0**-20, 2.0**-40])
@lemma("threshold_unique")
@given(data=st.data())
def test_scores_on_a_grid_against_rationals(alpha, unit, data):
    """The mass at a key is often exactly 1 there, and that key is not supported."""
    whole = data.draw(st.lists(st.integers(-4, 4), min_size=1, max_size=12))
    fine = data.draw(st.lists(st.integers(-3, 3), min_size=len(whole), max_size=len(whole)))
    offset = data.draw(st.sampled_from([0.0, 0.0, 3.0, -(2.0**30)]))
    scores = (np.array(whole) + unit * np.array(fine)) / data.draw(st.sampled_from([1, 2, 4, 8])) + offset
    assert support(scores, alpha).tolist() == rational_support(scores, alpha)


@pytest.mark.parametrize("alpha", [1.25, 1.5, 2.0])
@examples(60)
@given(scores=finite_rows(max_size=6), nudge=st.integers(-3, 3))
def test_one_key_next_to_tau_against_rationals(alpha, scores, nudge):
    at = float(threshold(scores, alpha)) / (alpha - 1.0)
    scores = np.append(scores, at + nudge * np.spacing(at))
    assert support(scores, alpha).tolist() == rational_support(scores, alpha)


TIES = {  # alpha: rows whose last key lies exactly on tau
    1.0625: [[16.0, 0.0], [2.0**29, 2.0**29 - 16]],
    1.25: [[4.0, 0.0], [2.0] * 16 + [0.0], [1.0] * 256 + [0.0], [1e15 + 4, 1e15]],
    1.5: [[2.0, 0.0], [1.0] * 4 + [0.0], [0.5] * 16 + [0.0, 0.0], [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.0]],
    2.0: [[1.0, 0.0], [0.5, 0.5, 0.0], [0.25] * 4 + [0.0, 0.0], [0.75, 0.25, 0.0], [0.7, 0.7 - 0.5, 0.7 - 0.5 - 0.25]],
    3.0: [[0.5, 0.0], [0.28125, 0.03125, 0.0], [0.03125] * 4 + [0.0]],
    5.0: [[0.25, 0.0], [2.0**-6, 2.0**-6, 0.0]],
}


@pytest.mark.parametrize(("alpha", "row"), [(alpha, row) for alpha, rows in TIES.items() for row in rows])
def test_a_key_on_tau_is_outside_and_one_unit_higher_it_is_inside(alpha, row):
    row = np.array(row)
    mass = np.sum(((alpha - 1) * (row - row[-1])) ** (1 / (alpha - 1)))
    if mass == 1.0:
        assert not support(row, alpha)[-1]
        assert entmax_ref.entmax(row, alpha)[-1] == 0.0
    higher, lower = row.copy(), row.copy()
    higher[row == row[-1]] = np.nextafter(row[-1], np.inf)
    lower[row == row[-1]] = np.nextafter(row[-1], -np.inf)
    for moved in (row, higher, lower):
        assert_exact(moved, alpha)
    if mass == 1.0:
        assert support(higher, alpha).all() and not support(lower, alpha)[-1]
        many = np.tile(row, (3, 1)) + np.array([[0.0], [8.0], [-64.0]])
        np.testing.assert_array_equal(support(many, np.full(3, alpha)), support(many, alpha))


def test_a_subnormal_decides():
    for tiny in (5e-324, 1e-310, 1e-200, 1e-160):
        for alpha, top in ((1.25, 4.0), (1.5, 2.0), (2.0, 1.0), (3.0, 0.5)):
            np.testing.assert_array_equal(support([top, tiny, 0.0, -tiny], alpha), [True, True, False, False])


def test_scores_that_share_a_drop_are_told_apart():
    """Both lie 1 below the maximum as float64 rounds it."""
    scores = np.array([1.0, 2.0**-60, -(2.0**-60), -(2.0**-60), 2.0**-60])
    assert len(set(1.0 - scores[1:])) == 1
    wide = np.full((3, 400), -50.0)
    wide[:, ::100][:, :4] = scores[:4]
    wide[:, 399] = scores[4]
    np.testing.assert_array_equal(support(scores, 2.0), [True, True, False, False, True])
    for found in (entmax_ref.entmax(wide, 2.0), support(wide, 2.0)):
        np.testing.assert_array_equal(found > 0, np.isin(wide, [1.0, 2.0**-60]))
    order, tau = np.array([2.0, 1.5, 2.0]), threshold(wide, 2.0)
    np.testing.assert_array_equal(support(wide, order)[::2], support(wide, 2.0)[::2])
    np.testing.assert_array_equal(threshold(wide, order)[::2], tau[::2])


@each_alpha
def test_offsets_near_the_end_of_the_range(alpha):
    for offset in (1e300, -1e300, 1.7e308, -1.7e308):
        row = np.array([offset, np.nextafter(offset, np.inf), offset])
        np.testing.assert_array_equal(support(row, alpha), [False, True, False])


@each_alpha
@examples(30)
@given(data=st.data())
def test_what_a_changed_row_says_of_its_root(alpha, data):
    """theta, tau and the gaps of solved rows stay those of one root, whatever drops are counted from."""
    scores = data.draw(edge_rows(alpha, threshold))
    rows = threshold_rows(scores, alpha)
    theta = (1.0 + exact.relative_tau(scores, alpha)) / (exact.exact(alpha) - 1)
    slack = exact.tau_bound(len(scores), 0.0, alpha) / (alpha - 1.0)
    assert abs(exact.exact(float(rows.theta[0])) - theta) <= 2 * slack + 2.0**-50 * abs(theta)
    np.testing.assert_array_equal(rows.gap[0] > 0.0, support(scores, alpha))


def threshold_rows(scores, alpha):
    return solve_rows(scores[None], alpha, None)


@each_sign
@pytest.mark.parametrize("alpha", [1.001, *ALPHAS, 3.0, 9.0])
@examples(25)
@given(data=st.data())
def test_no_way_to_decide_is_ever_wrong(decide, alpha, data):
    """Each may leave a row open, the last but for masses of 1; none may say the wrong thing."""
    scores = np.sort(data.draw(edge_rows(alpha, threshold)))[::-1]
    at = data.draw(st.sampled_from(scores.tolist()))
    distance = edge.two_sum(np.where(scores > at, scores, at), -at)
    found = int(decide(edge.Twofold(distance.head[None], distance.rest[None]), alpha - 1.0)[0])
    relative = [(exact.exact(alpha) - 1) * exact.exact(Fraction(float(score)) - Fraction(at)) for score in scores]
    mass = exact.mass_at(relative, alpha, exact.exact(0.0))
    excess = mass - 1
    close = abs(excess) <= exact.CONTEXT.mpf(2) ** -280 * (1 + mass) / (alpha - 1.0)
    if close:
        assert found in (0, edge.OPEN) or decide is edge._in_decimals or decide is edge._in_exact_sums
    else:
        assert found in (int(np.sign(float(excess))), edge.OPEN)
        assert decide is not edge._in_decimals or found != edge.OPEN


@each_alpha
def test_a_row_needs_more_than_float64_only_next_to_tau(alpha, monkeypatch):
    """Gaussian rows are settled without a look at any mass."""

    def fail(*_):
        raise AssertionError("a mass was asked for")

    monkeypatch.setattr(edge, "sign_of_excess", fail)
    support(np.random.default_rng(0).normal(size=(50, 40)), alpha)


@pytest.mark.parametrize("alpha", [1.5, 2.0])
@pytest.mark.parametrize("n", [200, 1100])
@lemma("threshold_unique")
def test_long_rows_with_keys_on_and_next_to_tau(alpha, n):
    """Wide supports and narrow ones, packed and not, on grids and off them."""
    rng = np.random.default_rng(n)
    scale = 10.0 ** rng.uniform(-4, 1, size=(40, 1))
    scores = rng.normal(size=(40, n)) * scale
    scores[::2] = np.round(scores[::2] * 64) / 64
    scores[1::4] = np.round(scores[1::4] * 2.0**14) / 2.0**14
    at = threshold(scores, alpha) / (alpha - 1.0)
    for shift in range(-3, 4):
        scores[:, shift] = at + shift * np.spacing(at)
        assert_exact(scores, alpha)
    flat = np.zeros((3, n))  # n keys and then one exactly on tau, and next to it
    on_tau = -((1.0 / 1024.0) ** (alpha - 1.0)) / (alpha - 1.0)
    flat[:, 0] = [on_tau, np.nextafter(on_tau, 0.0), np.nextafter(on_tau, -1.0)]
    flat[:, 1025:] = -1.0
    assert_exact(flat, alpha)
    if n > 1024:
        assert support(flat, alpha)[:, 0].tolist() == [False, True, False]
