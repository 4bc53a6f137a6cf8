"""Does refinement converge, certify what it found, and keep every block that holds support?"""

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from hypothesis import given
from hypothesis import strategies as st
from lemmas import lemma
from profiles import examples
from staged import ALPHAS, DEVICE, PATHS, TILE, U, score_matrices, staged, tile_any

import entmax_ref
from adasplash2.kernels.power import load_order
from adasplash2.kernels.refine import safeguarded_step
from adasplash2.orders import MAX_PASSES
from entmax_ref import stages

# A sum over a tile of TILE keys, three roundings a term, the compensated sum over tiles.
SUM_ERROR = (TILE + 8) * U


@lemma("residual_bound", "refine_loop_certifies", "computed_mass_certifies")
@lemma("pair_exact")
@examples(20)
@given(z=score_matrices(), alpha=st.sampled_from(ALPHAS), is_causal=st.booleans())
def test_tau_is_certified_and_near_the_exact_threshold(z, alpha, is_causal):
    run = staged(z, alpha, is_causal=is_causal, **PATHS["many"])
    top = run.row("dense", "row_max")
    seen = np.isfinite(top)
    residual, passes = run.row("refine", "residual"), run.row("refine", "passes")
    assert (residual <= run.problem.tolerance).all()
    assert passes.max() < MAX_PASSES
    exact = entmax_ref.threshold(run.z / (alpha - 1.0), alpha)[seen]
    # |t - tau| <= |mass(t) - 1| where it was evaluated, the sums' own error, and the roundings of a gap.
    bound = residual[seen] + 2 * SUM_ERROR + 2 * U + 2.0**-48 * abs(exact)
    assert (abs(run.tau("refine")[seen] - exact) <= bound).all()
    assert np.isposinf(run.tau("refine")[~seen]).all() and (passes[~seen] == 0).all()


@lemma("mask_bound_float")
@pytest.mark.parametrize("alpha", [1.5, 2.0])
def test_a_crowd_far_below_the_maximum_reaches_the_tolerance(alpha):
    """One unit in the last place of a single float32 would be worth more mass than the tolerance, and so would what lo
    passes the root by if the rounding of the first sums, at a mass of 100, is not taken off."""
    z = np.full((4, 1001), -0.5, dtype=np.float32)
    z[:, 0] = [0.0, 3000.0, -1e4, 7.0]
    z[:, 1:] += z[:, :1]
    run = staged(z, alpha, tile=64, dense=64, row_entries=0)
    assert (run.row("refine", "residual") <= run.problem.tolerance).all()
    assert (abs(run.row("output", "mass") - 1.0) <= run.problem.tolerance).all()
    assert run.row("refine", "passes").max() <= 4


def test_one_key_that_leads_by_far_converges():
    z = np.zeros((4, 40), dtype=np.float32)
    z[:, 7] = [3000.0, 1e5, 2.0**24, -1.0]
    for alpha in (1.5, 2.0):
        for fields in PATHS.values():
            run = staged(z, alpha, **fields)
            assert (run.row("output", "residual") <= run.problem.tolerance).all()


@lemma("block_mask_superset")
@examples(20)
@given(z=score_matrices(), alpha=st.sampled_from(ALPHAS), is_causal=st.booleans(), path=st.sampled_from(sorted(PATHS)))
def test_no_block_with_support_is_lost(z, alpha, is_causal, path):
    run = staged(z, alpha, is_causal=is_causal, **PATHS[path])
    kept = run.mask("output")
    # by the kernel's own tau, exactly: a dropped block has gap 0 in every later stage
    own = stages.block_mask(run.z, run.tau(), TILE)
    assert (kept | ~tile_any(own)).all()
    found, _ = run.lists("block_list", "kept")
    for row, listed in enumerate(found):
        np.testing.assert_array_equal(listed, np.flatnonzero(kept[row]))


@lemma("mask_bound_float")
@examples(60)
@given(z=score_matrices(), alpha=st.sampled_from(ALPHAS), at=st.floats(0.0, 1.0), seed=st.integers(0, 99))
def test_lower_bound_survives_the_error_of_its_sums(z, alpha, at, seed):
    """The bound of kernels/refine.py, from sums off by as much as float32 allows, lies at or left of tau."""
    wide = z.astype(np.float64) - z.max(axis=1, keepdims=True)
    exact = entmax_ref.threshold(wide / (alpha - 1.0), alpha)
    tau = -1.0 + at * (1.0 - 2.0**-20)
    mass, slope, _ = stages.sums(wide, np.full(len(wide), tau), alpha)
    rng = np.random.default_rng(seed)
    off_mass, off_slope = (value * (1.0 + SUM_ERROR * rng.choice([-1.0, 1.0], len(wide))) for value in (mass, slope))
    power = 1.0 / (alpha - 1.0)
    slack = 4.0 * SUM_ERROR * (off_mass + off_mass ** (1.0 - 1.0 / power)) / off_slope
    bound = tau + stages.norm_step(off_mass, off_slope, alpha) - slack
    assert (bound <= exact + 2.0**-50).all()


@triton.jit
def step_kernel(values_ptr, lo_ptr, relative_error, slope_error, ROWS: tl.constexpr, POWER: tl.constexpr):
    rows = tl.arange(0, ROWS)
    tau, mass = tl.load(values_ptr + rows), tl.load(values_ptr + ROWS + rows)
    slope, curve = tl.load(values_ptr + 2 * ROWS + rows), tl.load(values_ptr + 3 * ROWS + rows)
    lo, hi = tl.full([ROWS], -1.0, tl.float32), tl.zeros([ROWS], tl.float32)
    order = load_order(values_ptr, 0, POWER)
    _, lo, _, _ = safeguarded_step(
        tau, lo, hi, lo, mass, slope, curve, 2.0**-18, relative_error, slope_error, order, POWER
    )
    tl.store(lo_ptr + rows, lo)


@lemma("slope_slack")
@pytest.mark.parametrize("power", [1, 2])
def test_the_bound_survives_the_slope_of_many_tiles(power):
    """Equal scores, where the step on the norm leads to tau itself: then nothing but the slack is between them."""
    n, off = 4096, 2.0**-11
    tau = np.linspace(-0.99, -0.05, 16)
    gap = -tau
    mass, slope, curve = n * gap**power, n * gap ** (power - 1), np.full(16, n * 1.0)
    values = torch.tensor(np.stack([tau, mass, slope * (1.0 - off), curve]), dtype=torch.float32, device=DEVICE)
    exact = -(n ** (-1.0 / power))
    found = []
    for slope_error in (2.0 * off, 0.0):
        lo = torch.zeros(16, device=DEVICE)
        step_kernel[(1,)](values, lo, SUM_ERROR, slope_error, ROWS=16, POWER=power)
        found.append(lo.cpu().numpy())
    assert (found[0] <= exact).all() and (found[0] > -1.0).all()
    assert (found[1] > exact).any()  # without its share of the slack it would pass tau


@lemma("newton_norm_left")
@examples(100)
@given(z=score_matrices(), alpha=st.sampled_from([1.1, 1.25, 1.5, 2.0]), at=st.floats(0.0, 1.0))
def test_newton_on_the_norm_lands_left_of_tau_and_right_of_newton_on_the_mass(z, alpha, at):
    wide = z.astype(np.float64) - z.max(axis=1, keepdims=True)
    exact = entmax_ref.threshold(wide / (alpha - 1.0), alpha)
    tau = -1.0 + at * (1.0 - 2.0**-20)
    mass, slope, _ = stages.sums(wide, np.full(len(wide), tau), alpha)
    step = stages.norm_step(mass, slope, alpha)
    # float64: relative rounding of the step and of the sums of some hundred terms
    slack = 2.0**-44 * (abs(step) + (mass + 1.0) / slope)
    assert (tau + step <= exact + slack).all()
    on_mass = (mass - 1.0) * (alpha - 1.0) / slope
    assert (step >= on_mass - slack).all()


@lemma("step_keeps_bracket")
@examples(100)
@given(z=score_matrices(), alpha=st.sampled_from([1.25, 1.5, 2.0]), at=st.floats(0.0, 1.0))
def test_a_step_from_anywhere_keeps_the_bracket(z, alpha, at):
    wide = z.astype(np.float64) - z.max(axis=1, keepdims=True)
    exact = entmax_ref.threshold(wide / (alpha - 1.0), alpha)
    lo, hi, _ = stages.histogram(wide, alpha)
    tau = lo + at * (hi - lo)
    step = stages.safeguarded_step(tau, lo, hi, *stages.sums(wide, tau, alpha), 2.0**-18, alpha)
    slack = 2.0**-40
    assert (step.lo <= exact + slack).all() and (exact <= step.hi + slack).all()
    assert (step.lo <= step.tau).all() and (step.tau <= np.maximum(step.hi, step.lo)).all()


@lemma("threshold_unique")
@examples(40)
@given(z=score_matrices(), alpha=st.sampled_from([1.25, 1.5, 2.0]))
def test_specified_refinement_finds_the_threshold(z, alpha):
    wide = z.astype(np.float64)
    refined = stages.refine(wide, stages.histogram(wide, alpha), alpha)
    exact = entmax_ref.threshold(wide / (alpha - 1.0), alpha)
    slack = 2.0**-45 * np.maximum(1.0, abs(wide).max(axis=-1))
    assert (abs(refined.tau - exact) <= refined.residual + slack).all()
    assert (refined.lo <= exact + slack).all()


def test_specified_passes_of_hard_rows():
    """alpha 1.5: two passes at most for every row but clusters, from length 1 to 131072."""
    rng = np.random.default_rng(0)
    for n in (1, 2, 64, 1024, 16384, 131072):
        rows = [np.zeros(n)]
        rows += [rng.normal(size=n) * 0.5 * s for s in (0.001, 0.02, 0.2, 1.0, 4.0)]
        rows += [np.round(rng.normal(size=n) * 4) / 8, rng.uniform(-0.1, 0.0, n), -rng.exponential(size=n) * 0.01]
        z = np.stack(rows)
        refined = stages.refine(z, stages.histogram(z), tolerance=1e-5)
        assert refined.passes.max() <= 2, (n, refined.passes)


@lemma("block_mask_unsound_above")
def test_a_mask_from_above_tau_drops_support():
    z = np.array([1.0, 0.5])
    tau = entmax_ref.threshold(z / 0.5)
    assert tau < 0.5 < 0.6
    assert not stages.block_mask(z, np.float64(0.6), 1)[1]
    assert entmax_ref.entmax(z / 0.5)[1] > 0.0
    np.testing.assert_array_equal(stages.block_mask(z, tau, 1), [True, True])


@lemma("halley_overshoots")
def test_halley_from_the_left_can_overshoot():
    z = np.array([1.0] * 4 + [0.53] + [0.1] * 20)
    tau = entmax_ref.threshold(z / 0.5)
    gap = np.maximum(z, 0.0)
    f, slope, curve = np.sum(gap**2) - 1.0, -2.0 * np.sum(gap), 2.0 * np.sum(gap > 0)
    halley = -2.0 * f * slope / (2.0 * slope**2 - f * curve)
    assert tau < 0.51 < 0.53 < halley
