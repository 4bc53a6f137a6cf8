"""Are the steps of the refinement what they say: their order, and where they are exact?"""

import hard
import numpy as np
import pytest
from lemmas import lemma
from specified import ULP, each_alpha, exact_tau

from entmax_ref import stages


@lemma("newton_norm_left")
@each_alpha
def test_the_active_set_step_is_exact_for_equal_gaps(alpha):
    z = np.zeros((5, 64))
    t = np.array([-1.0, -0.7, -0.3, -0.1, -1e-3])
    at = stages.sums(z, t, alpha)
    exact = -(64.0 ** (1.0 - alpha))
    for step in (stages.active_set_step(*at, alpha), stages.norm_step(*at[:2], alpha)):
        if alpha == 2.0:
            np.testing.assert_allclose(t + step, exact, rtol=0.0, atol=16 * ULP)
        else:
            # the mass carries (power + 8) ulp, and mass ** (alpha - 1) divides that by power again
            ratio = np.maximum(1.0, exact / t)
            assert (abs(t + step - exact) <= 64 * ULP * ratio ** (1.0 / (alpha - 1.0))).all()


@pytest.mark.parametrize("alpha", [1.1, 1.25, 4 / 3, 1.4, 1.6])
def test_the_active_set_step_is_of_third_order(alpha):
    """Halving the distance on a fixed support divides what is left by 8; Newton's steps divide it by 4."""
    z = np.array([0.0, -0.02, -0.05, -0.07, -0.1])
    exact = exact_tau(z, alpha)
    left = []
    for distance in (2.0**-6, 2.0**-7, 2.0**-8):
        t = exact - distance
        left.append(abs(t + stages.active_set_step(*stages.sums(z, t, alpha), alpha) - exact))
    ratios = np.array(left[:-1]) / np.array(left[1:])
    assert (ratios > 6.0).all() and (ratios < 10.0).all(), ratios


@pytest.mark.parametrize("alpha", [1.499999999, 1.500000001])
def test_the_general_step_meets_that_of_three_halves(alpha):
    _, z = hard.rows(100)
    t = np.full(len(z), -0.2)
    mass, slope, count = stages.sums(z, t, 1.5)
    general = stages.active_set_step(*stages.sums(z, t, alpha), alpha)
    special = stages.active_set_step(mass, slope, count, 1.5)
    both = np.isfinite(general) & np.isfinite(special)
    assert (np.isfinite(general) == np.isfinite(special)).mean() > 0.9 and both.any()
    # to first order in alpha, and a root next to zero turns an error e into its square root
    assert (abs(general - special)[both] <= 1e-3 * (1.0 + abs(special[both]))).all()
    np.testing.assert_allclose(stages.active_set_step(mass, slope, count, 2.0), (mass - 1.0) / slope, rtol=8 * ULP)
