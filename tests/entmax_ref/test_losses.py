"""Are the losses those of their definition, never negative, zero only at the target, and finite for huge scores?"""

import re

import exact
import numpy as np
import pytest
from drawn import finite_rows, shifted_rows
from exact import Fraction, U
from hypothesis import assume, given
from hypothesis import strategies as st
from profiles import examples

import entmax_ref
from entmax_ref import entmax, entmax15_loss, entmax_loss, entmax_loss_grad, softmax, sparsemax_loss

FROM_ONE = (1.0, 1.0 + 1e-8, 1.001, 1.1, 1.5, 1.8, 2.0, 3.0)
from_one = pytest.mark.parametrize("alpha", FROM_ONE)
STEP = Fraction(1, 2**60)


@st.composite
def distributions(draw, n):
    """Return multiples of 2**-10 that sum to 1, so exactly a distribution, often with zeros."""
    cuts = sorted(draw(st.lists(st.integers(0, 1024), min_size=n - 1, max_size=n - 1)))
    return np.diff([0, *cuts, 1024]) / 1024


def loss_bound(scores, target, alpha):
    """Bound the error of `entmax_loss`, or None where first order will not do.

    The gradient of a term p ** alpha * f(y / p) / alpha for log(p) is (p - y) * p ** (alpha - 1), so the relative
    errors of the probabilities enter as sum(abs(p - y) * gap * error). Outside the support y * depth errs by y times
    that of depth, tau_bound / (alpha - 1), and 3 U of itself. Each term has some 50 roundings of its parts, and n more
    in the sum. Parts: for y / p <= 16 they are at most 16 ** max(1, alpha) times p; else y * (depth + log(y)) and p.
    """
    n, bounds = len(scores), exact.FirstOrder(scores, alpha)
    if not bounds.valid:
        return None
    wanted = float(exact.loss(scores, target, alpha))
    carried = np.sum(np.abs(bounds.probs - target) * bounds.gap * np.where(bounds.live, bounds.probs_error, 0.0))
    drop = np.max(scores) - scores
    depth = drop + np.log(n)  # theta <= log(n)
    logs = np.abs(np.log(np.where(target > 0, target, 1.0)))
    depth_error = 3 * U * depth + bounds.mass_error / (bounds.step if not bounds.near else 1.0)
    outside = np.sum(target * (depth_error + 50 * U * (depth + logs + 2)))
    return 1.01 * (carried + outside + 50 * U * np.sum(bounds.probs)) + (n + 50) * U * wanted


@from_one
@examples(40)
@given(scores=shifted_rows(max_size=8), data=st.data())
def test_loss_against_its_definition(alpha, scores, data):
    target = data.draw(distributions(len(scores)))
    bound = loss_bound(scores, target, alpha)
    assume(bound is not None)
    found = entmax_loss(scores, target, alpha)
    assert found >= 0.0
    assert exact.difference(found, exact.loss(scores, target, alpha)) <= bound


@from_one
@examples(40)
@given(scores=finite_rows(max_size=8), data=st.data())
def test_an_index_is_the_distribution_at_that_key(alpha, scores, data):
    right = data.draw(st.integers(0, len(scores) - 1))
    target = np.eye(len(scores))[right]
    np.testing.assert_array_equal(entmax_loss(scores, right, alpha), entmax_loss(scores, target, alpha))
    found, by_target = entmax_loss_grad(scores, right, alpha), entmax_loss_grad(scores, target, alpha)
    np.testing.assert_allclose(found, by_target, rtol=0, atol=4 * 2 * U * np.sqrt(len(scores)))
    assert found[right] <= 0.0 <= np.min(np.delete(found, right), initial=0.0)


@from_one
@examples(10)
@given(scores=finite_rows(max_size=5), data=st.data())
def test_gradient_is_the_slope_of_the_exact_loss(alpha, scores, data):
    target = data.draw(distributions(len(scores)))
    bounds = exact.FirstOrder(scores, alpha)
    gaps = [] if alpha == 1 else exact.gaps(scores, alpha)
    assume(bounds.valid and all(abs(gap) > 2.0**-6 for gap in gaps))
    found = entmax_loss_grad(scores, target, alpha)
    for key in range(len(scores)):

        def moved(t, key=key):
            row = [Fraction(float(s)) + (t if k == key else 0) for k, s in enumerate(scores)]
            return [exact.loss(row, target, alpha, bits=250)]

        (wanted,) = exact.slope(moved, STEP)
        assert exact.difference(found[key], wanted) <= 1.01 * bounds.probs_error[key] * bounds.probs[key] + 8 * U


@from_one
@examples(60)
@given(scores=finite_rows(max_size=8), data=st.data())
def test_zero_at_the_target_and_only_there(alpha, scores, data):
    probs = entmax(scores, alpha)
    assert entmax_loss(scores, probs, alpha) == 0.0
    assert not entmax_loss_grad(scores, probs, alpha).any()
    moved = probs.copy()
    here, there = data.draw(st.tuples(*[st.integers(0, len(scores) - 1)] * 2))
    size = data.draw(st.sampled_from([1e-3, 1e-6, 1e-9, 1e-12])) * moved[here]
    moved[here] -= size
    moved[there] += size
    assume(not np.array_equal(moved, probs) and np.max(probs) * size > 1e-100)
    assert entmax_loss(scores, moved, alpha) > 0.0


@pytest.mark.parametrize("alpha", FROM_ONE)
def test_loss_close_to_the_target_keeps_its_digits(alpha):
    """The loss of p * (1 + d * (1, -1)) is d ** 2 * (...): the definition in float64 would return noise."""
    scores = np.zeros(2)
    for d in (2.0**-4, 2.0**-20, 2.0**-40):
        p = entmax(scores, alpha)
        target = np.array([0.5 * (1 + d), 0.5 * (1 - d)])
        shift = np.max(np.abs(p - 0.5))  # U * a few: shifts d by as much, so the loss by twice that, relatively
        wanted = float(exact.loss(scores, target, alpha))
        error = 4 * shift / d + 8 * (shift / d) ** 2 + 200 * U
        np.testing.assert_allclose(entmax_loss(scores, target, alpha), wanted, rtol=error)


def test_special_cases():
    """Softmax: cross entropy less the entropy of the target. Sparsemax: the closed form of its paper."""
    rng = np.random.default_rng(0)
    scores, right = rng.normal(size=(20, 6)), rng.integers(0, 6, 20)
    np.testing.assert_allclose(
        entmax_loss(scores, right, 1.0), -np.log(softmax(scores)[np.arange(20), right]), rtol=1000 * U
    )
    np.testing.assert_array_equal(sparsemax_loss(scores, right), entmax_loss(scores, right, 2.0))
    np.testing.assert_array_equal(entmax15_loss(scores, right), entmax_loss(scores, right, 1.5))
    np.testing.assert_array_equal(entmax15_loss(scores, right), entmax_loss(scores, right))
    tau, inside = entmax_ref.threshold(scores, 2.0), entmax_ref.support(scores, 2.0)
    squares = np.sum(np.where(inside, scores**2 - tau[:, None] ** 2, 0.0), axis=-1)
    closed = -scores[np.arange(20), right] + 0.5 * squares + 0.5
    np.testing.assert_allclose(sparsemax_loss(scores, right), closed, rtol=0, atol=1000 * U)


@pytest.mark.parametrize("alpha", FROM_ONE)
@pytest.mark.filterwarnings("error")
def test_huge_scores_and_offsets(alpha):
    assert entmax_loss([1e300, -1e300], 0, alpha) == 0.0
    np.testing.assert_allclose(entmax_loss([1e300, -1e300], 1, alpha), 2e300, rtol=4 * U)
    np.testing.assert_allclose(entmax_loss([1e300, -1e300], [0.5, 0.5], alpha), 1e300, rtol=4 * U)
    np.testing.assert_array_equal(
        entmax_loss([3.0, 2.5, 0.0], 1, alpha), entmax_loss([2**50, 2**50 - 0.5, 2**50 - 3.0], 1, alpha)
    )
    np.testing.assert_array_equal(entmax_loss_grad([1e300, -1e300], 1, alpha), [1.0, -1.0])
    with np.errstate(over="ignore"):
        assert entmax_loss([1.7e308, -1.7e308], 0, alpha) == 0.0


@from_one
@pytest.mark.filterwarnings("error")
def test_value_contract(alpha):
    inf, nan = np.inf, np.nan
    scores = np.array([[0.0, 0.5, -1.0], [-inf] * 3, [nan, 0.5, -inf], [0.0, inf, -1.0], [0.0, 0.5, -inf]])
    right = np.array([1, 1, 1, 0, 2])
    for target in (right, np.eye(3)[right]):
        loss, gradient = entmax_loss(scores, target, alpha), entmax_loss_grad(scores, target, alpha)
        np.testing.assert_array_equal(np.isnan(loss), [False, False, True, True, False])
        assert loss[1] == 0.0 and loss[4] == inf and not gradient[1].any()
        assert np.isnan(gradient[2, :2]).all() and np.isnan(gradient[3]).all()
        np.testing.assert_array_equal(gradient[4], [*entmax([0.0, 0.5], alpha), -1.0])
        np.testing.assert_array_equal(loss[0], entmax_loss(scores[0], target[0], alpha))
        np.testing.assert_array_equal(gradient[0], entmax_loss_grad(scores[0], target[0], alpha))


def test_the_gradient_of_a_right_key_keeps_its_digits():
    gradient = entmax_loss_grad([0.0, -40.0], 0, 1.0)
    np.testing.assert_allclose(gradient, np.exp(-40.0) * np.array([-1.0, 1.0]), rtol=200 * U)


def test_axis_alpha_by_row_and_inputs():
    rng = np.random.default_rng(1)
    scores, right = rng.normal(size=(3, 5, 4)), rng.integers(0, 5, (3, 4))
    target = entmax(rng.normal(size=(3, 5, 4)), axis=1)
    for array in (scores, right, target):
        array.flags.writeable = False
    alpha = np.array([1.0, 1.5, 2.0])[:, None]
    for wanted in (right, target):
        copies = scores.copy(), wanted.copy()
        loss = entmax_loss(scores, wanted, alpha, axis=1)
        gradient = entmax_loss_grad(scores, wanted, alpha, axis=-2)
        assert loss.shape == (3, 4) and gradient.shape == scores.shape
        for i, one in enumerate((1.0, 1.5, 2.0)):
            last = wanted[i] if wanted is right else wanted[i].T
            np.testing.assert_allclose(loss[i], entmax_loss(scores[i].T, last, one), rtol=0, atol=100 * U)
            np.testing.assert_allclose(gradient[i].T, entmax_loss_grad(scores[i].T, last, one), rtol=0, atol=40 * U)
        np.testing.assert_array_equal(scores, copies[0])
        np.testing.assert_array_equal(wanted, copies[1])


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        ([1j, 0], TypeError, "target must be real and numeric; its dtype is complex128."),
        (
            [0, 1, 2],
            ValueError,
            "target, which is of integer dtype int64, must hold one index per row, shape (2,); its",
        ),
        (
            np.eye(2, 3, dtype=int),
            ValueError,
            "shape (2,); its shape is (2, 3). Convert probabilities with astype(float)",
        ),
        ([0, 3], ValueError, "target must index the 3 keys of a row, from 0 to 2; it holds 3."),
        ([-1, 0], ValueError, "target must index the 3 keys of a row, from 0 to 2; it holds -1."),
        ([0.0, 1.0], ValueError, "its shape is (2,). Convert class indices with astype(int)."),
        (np.ones((3, 2)), ValueError, "target, which is of floating dtype, must have the shape of scores, (2, 3); its"),
        ([[1.5, -0.5, 0.0]] * 2, ValueError, "target must hold probabilities, nonnegative; it holds"),
        ([[np.nan, 0.5, 0.5]] * 2, ValueError, "target must hold probabilities, nonnegative; it holds"),
        ([[0.5, 0.5, 0.5]] * 2, ValueError, "target must sum to 1 over axis 1, within 2**-16; a row sums to"),
    ],
)
@pytest.mark.parametrize("function", ["entmax_loss", "entmax_loss_grad", "sparsemax_loss", "entmax15_loss"])
def test_a_bad_target_is_named(function, target, error, message):
    with pytest.raises(error, match=f"^{function}: .*" + re.escape(message)):
        getattr(entmax_ref, function)(np.zeros((2, 3)), target)
