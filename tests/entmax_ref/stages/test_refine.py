"""Does refinement find the threshold in the passes that are stated, and end where it cannot?"""

import hard
import numpy as np
import pytest
from drawn import masked_rows
from hypothesis import given
from hypothesis import strategies as st
from lemmas import lemma
from profiles import examples
from specified import ALPHAS, each_alpha, exact_tau, slack

from entmax_ref import stages

# The greatest number of passes until abs(mass - 1) <= 1e-5, at lengths 1024, 16384 and 131072, as the docstring of
# `stages.refine` states it.
MOST_PASSES = {
    1.01: (1, 1, 1),
    1.1: (1, 2, 2),
    1.25: (2, 3, 2),
    4 / 3: (2, 3, 2),
    1.5: (2, 2, 2),
    1.75: (3, 4, 4),
    1.9: (3, 3, 3),
    2.0: (5, 3, 4),
}


@pytest.mark.parametrize("alpha", MOST_PASSES)
def test_specified_passes(alpha):
    for n, most in zip((1024, 16384), MOST_PASSES[alpha], strict=False):
        names, z = hard.rows(n)
        refined = stages.refine(z, stages.histogram(z, alpha), alpha, tolerance=1e-5)
        worst = int(np.argmax(refined.passes))
        assert refined.passes[worst] <= most, (n, names[worst])
        assert (refined.residual <= 1e-5).all()


@pytest.mark.slow
def test_specified_passes_of_long_rows():
    _, z = hard.rows(131072)
    for alpha, (_, _, most) in MOST_PASSES.items():
        refined = stages.refine(z, stages.histogram(z, alpha), alpha, tolerance=1e-5)
        assert refined.passes.max() <= most and (refined.residual <= 1e-5).all(), alpha


@lemma("threshold_unique")
@examples(100)
@given(drawn=masked_rows(max_size=40), alpha=st.sampled_from(ALPHAS))
def test_refinement_finds_the_threshold(drawn, alpha):
    row, visible = drawn
    z = np.where(visible, row - np.max(row, where=visible, initial=-np.inf), -np.inf)
    bracket = stages.histogram(z, alpha)
    refined = stages.refine(z, bracket, alpha)
    if not visible.any():
        assert refined.tau == np.inf and refined.residual == 0.0 and refined.passes == 0
        return
    exact = exact_tau(z, alpha)
    assert bracket.lo <= exact + slack(z) and exact <= bracket.hi + slack(z)
    assert refined.residual <= 2.0**-18 and refined.passes <= 12
    assert abs(refined.tau - exact) <= refined.residual + slack(z)
    assert refined.lo <= min(exact, refined.tau) + slack(z)


@each_alpha
def test_the_last_step_squares_the_error_at_least(alpha):
    """The step from a point that met 2**-18 is free, and leaves next to nothing unless a key enters on the way."""
    _, z = hard.rows(2000)
    refined = stages.refine(z, stages.histogram(z, alpha), alpha)
    error = abs(refined.tau - exact_tau(z, alpha))
    assert np.median(error) <= 2.0**-36
    assert (error <= refined.residual + slack(z)).all()


@lemma("step_keeps_bracket")
@pytest.mark.parametrize("alpha", [1.6, 1.9, 1.99])
def test_a_key_on_the_point_pins_no_row(alpha):
    """For alpha above 1.5 the curve is unbounded there: next to tau, at it, and at the smallest number above it."""
    others = np.array([0.0, -0.3, -0.31, -0.6, -0.9])
    for nearest in (1e-300, 5e-324, 1e-16, 0.0):
        z = np.append(others + 0.5, nearest)
        lo, hi = np.float64(-0.5), np.float64(0.5)
        refined = stages.refine(z, stages.Bracket(lo, hi, np.float64(0.0)), alpha)
        assert refined.residual <= 2.0**-18 and refined.passes <= 10
        assert abs(refined.tau - exact_tau(z, alpha)) <= refined.residual + slack(z)


@each_alpha
def test_a_row_that_cannot_converge_ends_and_says_so(alpha):
    z = 2.0**40 + 0.5 * np.random.default_rng(0).normal(size=300)
    refined = stages.refine(z, stages.histogram(z, alpha), alpha)
    assert refined.residual > 2.0**-18 or abs(refined.tau - exact_tau(z, alpha)) <= 2.0 * np.spacing(2.0**40)
    shifted = z - z.max()
    assert stages.refine(shifted, stages.histogram(shifted, alpha), alpha).residual <= 2.0**-18
