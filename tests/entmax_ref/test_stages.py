"""Is every stage of the specification what it says, for any alpha in (1, 2], and do they add up to the oracle?"""

import hard
import numpy as np
import pytest
from drawn import masked_rows
from hypothesis import given
from hypothesis import strategies as st
from lemmas import lemma
from profiles import examples

import entmax_ref
from entmax_ref import stages

ALPHAS = (1.01, 1.1, 1.25, 4 / 3, 1.5, 1.75, 1.9, 2.0)
each_alpha = pytest.mark.parametrize("alpha", ALPHAS)
ULP = 2.0**-52


def exact_tau(z, alpha):
    return entmax_ref.threshold(z / (alpha - 1.0), alpha)


def slack(z):
    """Return more than what the sums of a row, the oracle and the histogram's 60 halvings can be off by."""
    return ULP * (64.0 + 8.0 * z.shape[-1])


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


@pytest.mark.parametrize("alpha", [1.6, 1.75])
def test_more_bins_save_passes_where_the_last_bin_is_too_wide(alpha):
    _, z = hard.rows(65536)
    narrow, wide = (
        stages.refine(z, stages.histogram(z, alpha, bins=bins), alpha, tolerance=1e-5).passes for bins in (32, 16)
    )
    assert narrow.mean() < wide.mean() and narrow.max() <= 4


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


@lemma("histogram_bracket")
@each_alpha
@pytest.mark.parametrize("edges", [stages.linear_edges(8), stages.bin_edges(1), stages.bin_edges(24)])
def test_any_edges_give_a_bracket_no_wider_than_a_bin(alpha, edges):
    _, z = hard.rows(400)
    lo, hi, tau = stages.histogram(z, alpha, edges=edges)
    exact = exact_tau(z, alpha)
    assert (lo <= exact + slack(z)).all() and (exact <= hi + slack(z)).all()
    assert (lo <= tau).all() and (tau <= hi).all()
    assert (hi - lo <= np.max(-np.diff(edges)) + slack(z)).all()


@lemma("block_mask_superset")
@lemma("candidate_superset")
@each_alpha
@pytest.mark.parametrize("block", [1, 16, 64])
def test_masks_keep_the_support(alpha, block):
    _, z = hard.rows(300)
    refined = stages.refine(z, stages.histogram(z, alpha), alpha)
    # a key within rounding of tau may be on either side
    live = stages.block_mask(z, exact_tau(z, alpha) + slack(z), block)
    own = stages.block_mask(z, refined.tau + slack(z), block)
    found = stages.dense(z, alpha, block=block)
    assert (found.candidates | ~live).all() and (found.lo <= exact_tau(z, alpha) + slack(z)).all()
    assert (stages.block_mask(z, refined.lo, block) | ~(live | own)).all()


def attention_problem(alpha, seed=0, n_queries=9, n_keys=40, head_dim=6, value_dim=5):
    """Return query, key, value, d_out, scale and z; one query sees no key."""
    rng = np.random.default_rng(seed)
    sizes = ((n_queries, head_dim), (n_keys, head_dim), (n_keys, value_dim), (n_queries, value_dim))
    query, key, value, d_out = (rng.normal(size=size) for size in sizes)
    mask = rng.random((n_queries, n_keys)) < 0.8
    mask[3] = False
    scale = head_dim**-0.5
    z = np.where(mask, (alpha - 1.0) * scale * (query @ key.T), -np.inf)
    return query, key, value, d_out, scale, mask, z


@lemma("delta_is_centre")
@lemma("jacobian_form")
@lemma("normalised_output")
@each_alpha
def test_the_stages_in_their_order_are_attention_and_its_gradients(alpha):
    query, key, value, d_out, scale, mask, z = attention_problem(alpha)
    refined = stages.refine(z, stages.histogram(z, alpha), alpha, tolerance=2.0**-40)
    out, mass = stages.output(z, refined.tau, value, alpha)
    delta = stages.delta(z, refined.tau, value, d_out, alpha)
    d_query = stages.backward_dq(z, refined.tau, key, value, d_out, delta, scale, alpha)
    d_key, d_value = stages.backward_dkdv(z, refined.tau, query, value, d_out, delta, scale, alpha)
    operands = [array[None, None] for array in (query, key, value)]
    seen = refined.tau < np.inf
    assert (abs(mass[seen] - 1.0) <= 2.0**-38).all() and not seen[3]
    found = {"out": out, "d_query": d_query, "d_key": d_key, "d_value": d_value}
    wanted = [
        entmax_ref.attention(*operands, alpha=alpha, mask=mask),
        *entmax_ref.attention_vjp(*operands, d_out[None, None], alpha=alpha, mask=mask),
    ]
    # tau is off by 2**-40 at most, a sensitivity by power / gap of that; the output only by its square
    gap = stages.gaps(z, refined.tau)
    least = gap[gap > 0.0].min()
    steep = 2.0**-40 * max(1.0, abs(2.0 - alpha) / (alpha - 1.0) / least)
    size = n_terms = z.size
    for (name, ours), theirs in zip(found.items(), wanted, strict=True):
        limit = 2.0**-38 if name == "out" else n_terms * 8.0 * steep
        assert np.max(abs(ours - theirs[0, 0])) <= limit + size * ULP, name
        assert np.isfinite(ours).all()
    assert not out[3].any() and not d_query[3].any()


@lemma("normalised_output")
@each_alpha
def test_the_output_is_off_by_no_more_than_the_mass(alpha):
    _, _, value, _, _, _, z = attention_problem(alpha, seed=1)
    seen = np.isfinite(z).any(axis=-1)
    exact = exact_tau(z[seen], alpha)
    truth = entmax_ref.entmax(z[seen] / (alpha - 1.0), alpha) @ value
    for off in (2.0**-6, 2.0**-12, -(2.0**-6), -(2.0**-12)):
        out, mass = stages.output(z[seen], exact + off, value, alpha)
        # D is half of the spread, from the middle.
        bound = np.ptp(value, axis=0).max() * abs(mass - 1.0)
        assert (abs(out - truth).max(axis=-1) <= bound + 2.0**-44).all()
        assert abs(out - truth).max() > 2.0**-30


@lemma("newton_norm_left")
@each_alpha
def test_the_threshold_of_the_live_keys_is_that_of_the_row(alpha):
    _, z = hard.rows(300)
    live = stages.collect(z, stages.dense(z, alpha, block=16).lo)
    assert (abs(stages.solve(z, live, alpha) - exact_tau(z, alpha)) <= slack(z)).all()
    hidden = np.full((2, 5), -np.inf)
    np.testing.assert_array_equal(stages.solve(hidden, hidden > 0.0, alpha), [np.inf, np.inf])


@lemma("merge_parts")
@each_alpha
@pytest.mark.parametrize("parts", [2, 7])
def test_parts_of_the_keys_add_up_to_the_row(alpha, parts):
    _, z = hard.rows(300)
    rng = np.random.default_rng(parts)
    value = rng.normal(size=(300, 3))
    exact, belongs = exact_tau(z, alpha), rng.integers(0, parts, 300)
    # A sum of terms of one sign errs by half an ULP of itself for each addition that a term goes through.
    additions = z.shape[-1] + parts + 8
    pieces = [(z[:, belongs == part], value[belongs == part]) for part in range(parts)]
    for t in (exact, exact - 0.125):
        own_sums = (stages.sums(own, t, alpha) for own, _ in pieces)
        for whole, added in zip(stages.sums(z, t, alpha), zip(*own_sums, strict=True), strict=True):
            np.testing.assert_allclose(np.sum(added, axis=0), whole, rtol=additions * ULP / 2.0)
        out, mass = stages.output(z, t, value, alpha)
        weighted = 0.0
        for own, own_value in pieces:
            own_out, own_mass = stages.output(own, t, own_value, alpha)
            weighted = weighted + own_out * own_mass[:, None]
        size, _ = stages.output(z, t, abs(value), alpha)
        assert (abs(weighted - out * mass[:, None]) <= additions * ULP * size * mass[:, None]).all()
    for own, _ in pieces:
        assert (exact_tau(own, alpha) <= exact + slack(z)).all()


@lemma("jacobian_rows_zero")
@each_alpha
def test_score_gradients_of_a_row_sum_to_zero(alpha):
    _, _, value, d_out, _, _, z = attention_problem(alpha, seed=2)
    tau = exact_tau(z, alpha)
    delta = stages.delta(z, tau, value, d_out, alpha)
    gradient = stages.score_gradient(z, tau, value, d_out, delta, alpha)
    assert (abs(gradient.sum(axis=-1)) <= 64 * ULP * (abs(gradient).sum(axis=-1) + 1.0)).all()
    assert not gradient[stages.gaps(z, tau) == 0.0].any()


def test_poison_stays_in_its_row():
    z = np.zeros((3, 8))
    z[1, 2], z[2] = np.nan, -np.inf
    bracket = stages.histogram(z)
    refined = stages.refine(z, bracket)
    out, _ = stages.output(z, refined.tau, np.ones((8, 2)))
    assert np.isnan(refined.tau[1]) and np.isnan(out[1]).all()
    assert refined.tau[2] == np.inf and not out[2].any()
    assert abs(out[0] - 1.0).max() <= 8 * ULP
    np.testing.assert_array_equal(stages.block_mask(z, refined.lo, 4), [[True, True], [True, True], [False, False]])


def test_leading_axes_are_free():
    _, z = hard.rows(60)
    deep = z[:24].reshape(2, 3, 4, 60)
    for alpha in (1.25, 1.5, 2.0):
        flat = stages.refine(z[:24], stages.histogram(z[:24], alpha), alpha)
        found = stages.refine(deep, stages.histogram(deep, alpha), alpha)
        for ours, theirs in zip(found, flat, strict=True):
            np.testing.assert_array_equal(ours.reshape(-1), theirs)
