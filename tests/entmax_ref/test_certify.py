"""Does a certificate hold what is true, does it decide what can be decided, and does it refuse a wrong tau?"""

import re
import sys
from fractions import Fraction

import exact
import numpy as np
import pytest
from drawn import ALPHAS, EXTREME_ALPHAS, edge_rows, finite_rows, shifted_rows
from hypothesis import given
from hypothesis import strategies as st
from lemmas import lemma
from profiles import examples

from entmax_ref import threshold
from entmax_ref.certify import certify, prove

pytest.importorskip("flint", reason="ball arithmetic comes with the extra certify")

each_alpha = pytest.mark.parametrize("alpha", ALPHAS)
TIGHT = 2.0**-60


def exact_tau(scores, alpha, bits=exact.BITS):
    """Return tau from tests/exact.py, which bisects in mpmath, and how far off it may be."""
    top = (exact.exact(alpha) - 1) * exact.exact(float(np.max(scores)))
    slack = exact.CONTEXT.mpf(2) ** -bits + abs(top) * exact.CONTEXT.mpf(2) ** -290
    return top + exact.relative_tau(scores, alpha, bits), slack


def enclosure(head, rest, radius):
    middle = exact.exact(float(head)) + exact.exact(float(rest))
    return middle - exact.exact(float(radius)), middle + exact.exact(float(radius))


@each_alpha
@examples(12)
@given(data=st.data())
def test_certificates_agree_with_bisection_in_high_precision(alpha, data):
    scores = data.draw(st.one_of(shifted_rows(max_size=8), edge_rows(alpha, threshold)))
    proof = certify(scores, alpha)
    tau, slack = exact_tau(scores, alpha)
    lo, hi = enclosure(proof.tau, proof.tau_rest, proof.tau_radius)
    assert lo - slack <= tau <= hi + slack
    assert exact.exact(float(proof.tau_lo)) - slack <= tau <= exact.exact(float(proof.tau_hi)) + slack
    power = 1 / (exact.exact(alpha) - 1)
    for key, gap in enumerate(exact.gaps(scores, alpha)):
        least, most = (max(gap + side * slack, exact.CONTEXT.mpf(0)) ** power for side in (-1, 1))
        lo, hi = enclosure(proof.probs[key], proof.probs_rest[key], proof.probs_radius[key])
        assert lo <= most and least <= hi
        assert float(proof.probs_lo[key]) <= most and least <= float(proof.probs_hi[key])
        if abs(gap) > slack:
            assert bool(proof.in_support[key]) == (gap > 0) and bool(proof.out_of_support[key]) == (gap < 0)


@each_alpha
@given(scores=shifted_rows(max_size=20))
def test_certificates_are_tight_and_decide_every_key(alpha, scores):
    proof = certify(scores, alpha)
    assert proof.tau_lo <= proof.tau <= proof.tau_hi
    assert proof.tau_radius <= TIGHT * max(1.0, abs(proof.tau))
    assert (proof.probs_lo <= proof.probs).all() and (proof.probs <= proof.probs_hi).all()
    live = proof.probs > 2.0**-60  # below, the digits of a gap are few and those of its power fewer
    assert (proof.probs_radius[live] <= TIGHT * proof.probs[live]).all()
    assert (proof.probs_radius <= TIGHT).all()
    assert not (proof.in_support & proof.out_of_support).any() and not proof.undecided.any()
    total = sum(
        (exact.exact(float(p)) + exact.exact(float(r)) for p, r in zip(proof.probs, proof.probs_rest, strict=True))
    )
    assert abs(total - 1) <= exact.exact(float(proof.probs_radius.sum())) * (1 + 2.0**-40)


@pytest.mark.parametrize("alpha", EXTREME_ALPHAS)
@examples(20)
@given(scores=shifted_rows())
def test_extreme_alpha(alpha, scores):
    proof = certify(scores, alpha)
    tau, slack = exact_tau(scores, alpha)
    lo, hi = enclosure(proof.tau, proof.tau_rest, proof.tau_radius)
    assert lo - slack <= tau <= hi + slack
    assert proof.tau_radius <= TIGHT * max(1.0, abs(proof.tau))


@given(scores=shifted_rows(max_size=30))
def test_rationals_are_exact_and_lie_in_the_balls(scores):
    proof, balls = certify(scores, 2.0), certify(scores, 2.0, method="ball")
    tau = Fraction(float(scores.max())) + exact.sparsemax_relative_tau(scores)
    assert abs(Fraction(float(proof.tau)) + Fraction(float(proof.tau_rest)) - tau) <= Fraction(float(proof.tau_radius))
    lo, hi = enclosure(balls.tau, balls.tau_rest, balls.tau_radius)
    assert lo <= exact.exact(tau) <= hi
    assert not proof.undecided.any()
    np.testing.assert_array_equal(proof.in_support, [Fraction(float(score)) > tau for score in scores])
    assert not (balls.in_support & ~proof.in_support).any() and not (balls.out_of_support & proof.in_support).any()
    assert (np.abs(proof.probs - balls.probs) <= 2.0**-52 * proof.probs).all()


@each_alpha
@lemma("threshold_unique")
def test_keys_that_tie_with_tau_are_decided_by_the_mass(alpha):
    """One key at 0 and one at -1 in the unit of z: tau is -1 exactly. A unit in the last place either way decides."""
    if not Fraction(1 / (alpha - 1)) * (Fraction(alpha) - 1) == 1:
        return  # the tie is not a float64
    edge = -1.0 / (alpha - 1.0)
    scores = np.array([[0.0, edge], [0.0, np.nextafter(edge, 0.0)], [0.0, np.nextafter(edge, -9.0)]])
    proof = certify(scores, alpha, method="ball")
    np.testing.assert_array_equal(proof.in_support[:, 1], [False, True, False])
    np.testing.assert_array_equal(proof.out_of_support[:, 1], [True, False, True])


def test_a_gap_far_below_the_working_precision_is_decided():
    """z is 1 and 5e-146 below 1: the second mass is (1 - 5e-146) ** 4."""
    proof = certify([4.0, 2.0e-145], 1.25)
    assert proof.in_support.tolist() == [True, True]
    assert certify([4.0, -2.0e-145], 1.25).out_of_support.tolist() == [False, True]


@each_alpha
@lemma("residual_bound")
@given(scores=finite_rows(), steps=st.integers(1, 2**40), up=st.booleans())
def test_a_wrong_tau_is_not_certified(alpha, scores, steps, up):
    right = certify(scores, alpha)
    end = float(right.tau_hi if up else right.tau_lo)
    wrong = end + (steps if up else -steps) * np.spacing(max(1.0, abs(end)))
    proof = certify(scores, alpha, tau=wrong)
    assert bool(proof.is_upper) is up and bool(proof.is_lower) is not up
    assert 0.0 < proof.error_lo <= proof.error_hi
    distance = abs(exact.exact(wrong) - exact.exact(float(right.tau)) - exact.exact(float(right.tau_rest)))
    radius = exact.exact(float(right.tau_radius))
    assert exact.exact(float(proof.error_lo)) - radius <= distance <= exact.exact(float(proof.error_hi)) + radius
    assert proof.error_hi - proof.error_lo <= 2.0**-50 * proof.error_hi + proof.tau_radius * 4
    # it says as much of the row as without a tau
    assert proof.tau_lo <= right.tau_hi and right.tau_lo <= proof.tau_hi
    np.testing.assert_array_equal(proof.in_support, right.in_support)


@each_alpha
def test_a_tau_between_the_bounds_is_neither_unless_it_is_exact(alpha):
    scores = [0.3, 0.2, -0.1]
    proof = certify(scores, alpha)
    found = certify(scores, alpha, tau=proof.tau)
    assert found.error_hi <= 2.0**-53
    if proof.tau_rest != 0.0:
        assert bool(found.is_lower) is bool(proof.tau_rest > 0.0)
        assert bool(found.is_upper) is bool(proof.tau_rest < 0.0)


def test_an_exact_tau_is_both_bounds():
    for method in ("rational", "ball"):
        proof = certify([[0.5, 0.25, -1.0], [3.0, 1.0, 1.0]], 2.0, tau=[-0.125, 2.0], method=method)
        np.testing.assert_array_equal(proof.is_lower | proof.is_upper | (proof.error_hi < 2.0**-80), True)
        assert (proof.error_hi <= 2.0**-80).all()
    assert certify([0.5, 0.25], 2.0, tau=-0.125).is_lower and certify([0.5, 0.25], 2.0, tau=-0.125).is_upper


@each_alpha
@pytest.mark.parametrize("lie", [0.0, 0.4, 3.0, np.nan, np.inf])
def test_a_wrong_start_costs_time_and_never_truth(alpha, lie, monkeypatch):
    scores = np.random.default_rng(1).normal(size=(6, 9))
    right = certify(scores, alpha, method="ball")
    monkeypatch.setattr(prove, "threshold", lambda rows, alpha: np.full(rows.shape[0], lie))
    found = certify(scores, alpha, method="ball")
    assert (found.tau_lo <= right.tau_hi).all() and (right.tau_lo <= found.tau_hi).all()
    assert (found.tau_radius <= TIGHT).all()
    np.testing.assert_array_equal(found.in_support, right.in_support)


@each_alpha
def test_value_contract_masks_and_shapes(alpha):
    inf, nan = np.inf, np.nan
    scores = np.array([[0.0, 0.5, -1.0], [-inf] * 3, [nan, 0.5, -1.0], [0.0, inf, -inf], [0.0, 0.5, -inf]])
    scores.flags.writeable = False
    proof = certify(scores, alpha, tau=[0.0, inf, 0.0, 0.0, nan])
    assert (proof.tau_lo[1], proof.tau_hi[1], proof.error_hi[1]) == (inf, inf, 0.0)
    assert proof.is_lower[1] and proof.is_upper[1] and proof.out_of_support[1].all() and not proof.probs_hi[1].any()
    assert np.isnan(proof.tau_lo[2:4]).all() and np.isnan(proof.error_hi[2:]).all()
    assert np.isnan(proof.probs_lo[2]).all() and np.isnan(proof.probs_hi[3, :2]).all() and proof.probs_hi[3, 2] == 0.0
    assert proof.undecided[2].all() and proof.undecided[3].tolist() == [True, True, False]
    assert not (proof.is_lower | proof.is_upper)[2:].any()
    assert certify([[-inf]], alpha, tau=[0.0]).error_lo == inf
    for place, keys in ((0, 3), (4, 2)):
        alone = certify(scores[place, :keys], alpha)
        assert alone.tau_lo.shape == () and alone.tau_lo == proof.tau_lo[place]
        np.testing.assert_array_equal(alone.probs_hi, proof.probs_hi[place, :keys])
    masked = certify(scores, alpha, where=[True, True, False])
    np.testing.assert_array_equal(masked.tau_hi[0], certify(scores[0, :2], alpha).tau_hi)
    assert certify(scores.reshape(5, 1, 3), alpha).in_support.shape == (5, 1, 3)
    assert certify(np.empty((0, 3)), alpha).tau_lo.shape == (0,)
    assert certify([-inf, 1.0], alpha, tau=-inf).is_lower and certify([1.0], alpha, tau=inf).is_upper


@each_alpha
@pytest.mark.parametrize("offset", [1e300, -1e300, 1.7e308, 5e-324])
def test_offsets_near_the_end_of_the_range(alpha, offset):
    proof = certify([offset, np.nextafter(offset, np.inf), -offset], alpha)
    assert proof.tau_lo <= proof.tau_hi and proof.in_support.any()
    assert proof.tau_hi - proof.tau_lo <= 2.0**-51 * abs(proof.tau_hi) or not np.isfinite(proof.tau_hi)
    assert (np.abs(proof.probs.sum() - 1.0) <= 2.0**-52).all()


def test_long_rows_and_errors_of_found_values():
    rng = np.random.default_rng(4)
    scores = np.stack([rng.normal(size=1500), np.zeros(1500), rng.integers(-3, 3, 1500) / 4])
    for alpha in (1.001, 1.5, 3.0):
        proof = certify(scores, alpha)
        assert (proof.tau_radius <= TIGHT).all()
        low, high = proof.tau_error(proof.tau + 2.0**-30)
        assert (np.abs(low - 2.0**-30) <= 2.0**-50).all() and (low <= high).all()
        low, high = proof.probs_error(proof.probs)
        assert (high <= 2.0**-53 * proof.probs + 2.0**-90).all() and (low <= high).all()


def test_without_flint_only_rationals_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "flint", None)
    assert certify([1.0, 0.0], 2.0).in_support.tolist() == [True, False]
    with pytest.raises(ImportError, match=re.escape("pip install 'adasplash2[certify]'")):
        certify([1.0, 0.0], 1.5)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"alpha": 1.0}, ValueError, "alpha must be above 1; it is 1.0"),
        ({"alpha": "2"}, TypeError, "alpha must be one real number above 1"),
        ({"scores": [1j]}, TypeError, "scores must be real and numeric"),
        ({"where": [1, 0]}, TypeError, "where must be boolean"),
        ({"where": [True] * 3}, ValueError, "where must broadcast to shape (2,)"),
        ({"tau": [1.0, 2.0]}, ValueError, "tau must broadcast to one value per row, shape (); its shape is (2,)."),
        ({"tau": "low"}, TypeError, "tau must be real and numeric"),
        ({"method": "float"}, ValueError, "method must be 'ball', 'rational' or None; it is 'float'."),
        ({"method": "rational"}, ValueError, "method 'rational' is for alpha 2 only"),
    ],
)
def test_a_bad_argument_is_named_with_its_rule_its_value_and_a_way_out(arguments, error, message):
    arguments = {"scores": [1.0, 2.0], **arguments}
    with pytest.raises(error, match="^certify: " + re.escape(message)):
        certify(**arguments)
