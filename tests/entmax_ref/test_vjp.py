"""Are the gradients of the map those of the definition, to their stated bounds?"""

import re

import exact
import numpy as np
import pytest
from drawn import ALPHAS, finite_rows
from exact import U
from hypothesis import assume, given
from hypothesis import strategies as st
from lemmas import lemma
from profiles import examples

from entmax_ref import entmax, entmax_vjp, support

each_alpha = pytest.mark.parametrize("alpha", ALPHAS)
EXACT_EXAMPLES = 25


def gradients(n):
    """Return gradients for the probabilities of a row of n keys."""
    return st.lists(st.floats(-8.0, 8.0, width=32), min_size=n, max_size=n).map(np.array)


def jacobian(scores, alpha):
    """Return the Jacobian, one row of it for each unit vector."""
    n = len(scores)
    return entmax_vjp(np.broadcast_to(scores, (n, n)), np.eye(n), alpha)


@each_alpha
@lemma("jacobian_form")
@examples(EXACT_EXAMPLES)
@given(scores=finite_rows(max_size=8), data=st.data())
def test_vjp_against_the_jacobian_in_high_precision(alpha, scores, data):
    d_probs = data.draw(gradients(len(scores)))
    bound = exact.vjp_bound(scores, d_probs, alpha)
    assume(bound is not None)
    found, wanted = entmax_vjp(scores, d_probs, alpha), exact.vjp(scores, d_probs, alpha)
    for ours, theirs, allowed in zip(found, wanted, bound, strict=True):
        assert exact.difference(ours, theirs) <= allowed


STEP = exact.Fraction(1, 2**60)


@each_alpha
@lemma("jacobian_form")
@examples(15)
@given(scores=finite_rows(max_size=6), data=st.data())
def test_vjp_against_finite_differences(alpha, scores, data):
    """Central differences of the exact map in a drawn direction, step 2**-60, tau to 2**-210."""
    n = len(scores)
    d_probs, direction = data.draw(gradients(n)), data.draw(gradients(n))
    assume(np.ptp(direction) > 0.0)
    bound = exact.vjp_bound(scores, d_probs, alpha)
    nearest = min(abs(gap) for gap in exact.gaps(scores, alpha))
    assume(bound is not None and nearest > 2.0**-4)  # no key near the edge, so the map is smooth at this step
    ends = []
    for sign in (1, -1):
        moved = [
            exact.Fraction(float(s)) + sign * STEP * exact.Fraction(float(v))
            for s, v in zip(scores, direction, strict=True)
        ]
        ends.append(exact.CONTEXT.fdot(exact.probs(moved, alpha, bits=210), [exact.exact(float(d)) for d in d_probs]))
    quotient = (ends[0] - ends[1]) / (2 * exact.exact(STEP))
    # Third derivatives are below (4 * power / nearest) ** 3 <= 2**28 in each of the n terms, the entries of
    # d_probs and direction at most 8: n * 2**28 * 2**3 * 2**9 * 2**-120.
    truncation = n * 2.0**-80
    found = exact.CONTEXT.fdot(
        [exact.exact(float(d)) for d in entmax_vjp(scores, d_probs, alpha)],
        [exact.exact(float(v)) for v in direction],
    )
    assert float(abs(found - quotient)) <= float(np.dot(bound, np.abs(direction))) + truncation


@each_alpha
@lemma("jacobian_form")
@examples(15)
@given(scores=finite_rows(max_size=6))
def test_jacobian_is_symmetric_positive_and_zero_outside_the_support(alpha, scores):
    bounds = [exact.vjp_bound(scores, unit, alpha) for unit in np.eye(len(scores))]
    assume(all(bound is not None for bound in bounds))
    found, slack = jacobian(scores, alpha), np.array(bounds)
    assert np.all(np.abs(found - found.T) <= slack + slack.T)
    inside = support(scores, alpha)
    assert not found[~inside].any() and not found[:, ~inside].any()
    assert np.all(np.diag(found) >= -np.diag(slack))
    off_diagonal = found - np.diag(np.diag(found))
    assert np.all(off_diagonal <= slack)  # a key gains only at the expense of the others


@each_alpha
@lemma("jacobian_rows_zero")
@given(scores=finite_rows(max_size=8), data=st.data())
def test_jacobian_rows_sum_to_zero(alpha, scores, data):
    """So a gradient constant over the keys does nothing, and every gradient for the scores sums to zero."""
    n = len(scores)
    assert not entmax_vjp(scores, np.full(n, 3.0), alpha).any()
    d_probs = data.draw(gradients(n))
    d_scores = entmax_vjp(scores, d_probs, alpha)
    assert not d_scores[~support(scores, alpha)].any()
    # sum(s * (d - mean)): the mean's relative n + 5 roundings, the products' 5, on terms at most s * spread
    inside = support(scores, alpha)
    gap = entmax(scores, alpha)[inside] ** (alpha - 1)
    terms = np.sum(gap ** ((2 - alpha) / (alpha - 1))) * np.ptp(d_probs[inside])
    # U / (alpha - 1): the exponents alpha - 1 and 1 / (alpha - 1) above, where gap is formed from the output
    assert abs(d_scores.sum()) <= (3 * n + 20 + 4 * abs(2 - alpha) / (alpha - 1)) * U * terms


def test_a_key_at_the_edge_does_not_drown_the_gradient_of_the_others():
    """Gaps (1 - e)**2 and e**2 at alpha 3: sensitivities 1 / (1 - e), 1 / e; Jacobian [[1, -1], [-1, 1]]."""
    e = 2.0**-20
    scores = np.array([(1 - e) ** 2, e**2]) / 2  # exact, and tau = 0
    # The small sensitivity carries a few U; the large one, off by 2**-30 at most, weighs e in the result.
    np.testing.assert_allclose(jacobian(scores, 3.0), [[1, -1], [-1, 1]], rtol=8 * U, atol=0)


def test_nan_of_d_probs_matters_on_the_support_only():
    scores = [[0.0, 0.0, -9.0], [0.0, 0.0, -9.0]]
    d_scores = entmax_vjp(scores, [[1.0, 0.0, np.nan], [np.nan, 0.0, 1.0]], 2.0)
    np.testing.assert_array_equal(d_scores[0], [0.5, -0.5, 0.0])
    assert np.isnan(d_scores[1, :2]).all() and d_scores[1, 2] == 0.0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"alpha": 0.0}, ValueError, "alpha must be finite and at least 1; it is 0.0."),
        ({"scores": [1j, 0]}, TypeError, "scores must be real and numeric; its dtype is complex128."),
        ({"d_probs": [1j, 0]}, TypeError, "d_probs must be real and numeric; its dtype is complex128."),
        (
            {"d_probs": [1.0]},
            ValueError,
            "d_probs must have the shape of scores, (2,); its shape is (1,). Broadcast",
        ),
        (
            {"axis": 1},
            ValueError,
            "axis must name an axis of scores, of shape (2,); it is 1. Use a value from -1 to 0.",
        ),
        (
            {"where": [0.0, 1.0]},
            TypeError,
            "where must be boolean, True where the key is visible; its dtype is float64.",
        ),
        ({"where": [True] * 3}, ValueError, "where must broadcast to shape (2,); its shape is (3,)."),
    ],
)
def test_a_bad_argument_of_the_gradient_is_named(arguments, error, message):
    arguments = {"scores": [1.0, 2.0], "d_probs": [1.0, 0.0], **arguments}
    with pytest.raises(error, match="^entmax_vjp: " + re.escape(message)):
        entmax_vjp(**arguments)
