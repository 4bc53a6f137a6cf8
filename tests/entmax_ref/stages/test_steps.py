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
    straight = stages.active_set_step(mass, slope, 0.0 * count, 2.0)
    np.testing.assert_allclose(straight, (mass - 1.0) / slope, rtol=8 * ULP)


def test_the_step_of_alpha_two_is_exact_for_evenly_spread_scores():
    """By their density, counted between two points; Newton's step leaves most of a large excess."""
    n = 2**14
    z = -np.arange(n) / n
    before, t = np.array([-0.04]), np.array([-0.015])
    slope_before = stages.sums(z, before, 2.0)[1]
    mass, slope, _ = stages.sums(z, t, 2.0)
    density = stages.density(mass, slope, slope_before, t - before)
    np.testing.assert_allclose(density, n, rtol=1.0 / 400)  # one score more or less of 409
    exact = exact_tau(z, 2.0)
    left = abs(t + stages.active_set_step(mass, slope, density, 2.0) - exact)
    # the scores lie 1 / n apart, and one more or less in a slope of 180 bends the step by less
    assert left <= 1.0 / n < abs(t + stages.active_set_step(mass, slope, 0.0 * density, 2.0) - exact) / 4.0
    # without another point: evenly spread gaps have half of slope ** 2 / mass
    np.testing.assert_allclose(stages.density(mass, slope, 0.0 * slope, 0.0 * t), 1.5 * n, rtol=0.01)


def test_few_scores_do_not_bend_the_step_of_alpha_two():
    mass, slope = np.array([1.5, 1.5, 0.0]), np.array([10.0, 10.0, 0.0])
    density = np.array([159.0, 161.0, np.nan])  # 7.95 and 8.05 scores on the way of 1 / 20
    with np.errstate(divide="ignore"):
        straight = stages.norm_step(mass, slope, 2.0)
    step = stages.active_set_step(mass, slope, density, 2.0)
    assert step[0] == straight[0] and 1.6 * straight[1] < step[1] <= 1.7 * straight[1] and step[2] == -np.inf


def test_alpha_two_needs_four_passes_for_long_flat_rows():
    rng = np.random.default_rng(0)
    for n in (4096, 131072):
        z = rng.normal(size=(32, n)) * np.repeat([0.001, 0.02], 16)[:, None]
        refined = stages.refine(z, stages.histogram(z, 2.0), 2.0)
        assert refined.passes.max() <= 4 and refined.passes.mean() <= 3.0, (n, refined.passes)
