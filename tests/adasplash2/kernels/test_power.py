"""Are powers, steps and roots right for every alpha, those that kernels are compiled for and those that they load?"""

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from hypothesis import given
from hypothesis import strategies as st
from lemmas import lemma
from profiles import examples
from staged import ALPHAS, DEVICE, U

import entmax_ref
from adasplash2.kernels.alpha_weight import alpha_weight, gap_weight
from adasplash2.kernels.power import (
    active_set_step,
    bend_of,
    counted_root,
    gap_curve,
    gap_powers,
    gap_probs,
    gap_sensitivity,
    load_order,
    norm_step,
    norm_step_slack,
    unit_scale,
)
from adasplash2.orders import POWERS
from entmax_ref import stages
from entmax_ref.stages.histogram import histogram_root

each_alpha = pytest.mark.parametrize("alpha", (*ALPHAS, 1.5 + 2.0**-10, 1.9375, 1.0078125))
N = 64


def loaded(alpha):
    """Return what a kernel gets of an alpha: the power that it is compiled for, and where it loads alpha from."""
    power = POWERS.get(alpha, 0)
    return {"POWER": power, "alphas_ptr": None if power else torch.tensor([alpha], device=DEVICE)}


@triton.jit
def powers_kernel(gap_ptr, out_ptr, alphas_ptr, POWER: tl.constexpr, N: tl.constexpr):
    keys = tl.arange(0, N)
    order = load_order(alphas_ptr, 0, POWER)
    gap = tl.load(gap_ptr + keys)
    tl.store(out_ptr + keys, gap_probs(gap, order, POWER))
    tl.store(out_ptr + N + keys, gap_sensitivity(gap, order, POWER))
    tl.store(out_ptr + 2 * N + keys, gap_curve(gap, order, POWER))
    tl.store(out_ptr + 3 * N + keys, keys * 0.0 + unit_scale(2.0, order, POWER))
    powers = gap_powers(gap, order, POWER)
    for row in tl.static_range(3):
        tl.store(out_ptr + (4 + row) * N + keys, powers[row])


@each_alpha
def test_powers_of_gaps_are_right_to_their_roundings(alpha):
    rng = np.random.default_rng(0)
    gap = np.concatenate([rng.uniform(0, 1, 30), 1.0 - 2.0 ** -rng.uniform(1, 24, 16), 2.0 ** -rng.uniform(1, 40, 15)])
    gap = np.append(gap, [0.0, np.nan, 1.0]).astype(np.float32)
    out = torch.empty(7, N, device=DEVICE)
    powers_kernel[(1,)](torch.from_numpy(gap).to(DEVICE), out, N=N, **loaded(alpha))
    found = out.double().cpu().numpy()
    power = 1.0 / (alpha - 1.0)
    wide = gap.astype(np.float64)
    live = wide > 0.0
    safe = np.where(live, wide, 1.0)
    # The logarithm's 2 units, the power's rounding and two products, the exponential; products of gaps have fewer.
    exponents = (power, power - 1.0, power - 2.0)
    for row, exponent in [*enumerate(exponents), *enumerate(exponents, start=4)]:
        exact = np.where(live, safe**exponent, wide if row % 4 < 2 else 0.0)
        if exponent < 0.0 and power == 1.0:
            exact = np.zeros_like(exact)  # no share in the second derivative
        size = np.abs(exponent * np.log(safe)) + np.abs(np.log(safe) * power)
        np.testing.assert_array_less(
            abs(found[row] - exact)[:-2], 2.0**-126 + (12.0 + 8.0 * size)[:-2] * U * abs(exact[:-2])
        )
        assert found[row][-1] == exact[-1]
    assert np.isnan(found[[0, 1, 4, 5], -2]).all() and (found[[0, 1, 2, 4, 5, 6], -3] == 0.0).all()
    assert (found[3] == 2.0 * (1.0 if alpha in POWERS else alpha - 1.0)).all()


def test_alpha_outside_of_its_range_is_nan():
    for alpha in (1.0, 0.5, 2.5, float("nan"), float("inf")):
        out = torch.zeros(7, N, device=DEVICE)
        powers_kernel[(1,)](torch.full((N,), 0.5, device=DEVICE), out, torch.tensor([alpha], device=DEVICE), 0, N)
        assert out[3].isnan().all()


@triton.jit
def steps_kernel(sums_ptr, out_ptr, alphas_ptr, POWER: tl.constexpr, N: tl.constexpr):
    rows = tl.arange(0, N)
    order = load_order(alphas_ptr, 0, POWER)
    mass, slope, curve = tl.load(sums_ptr + rows), tl.load(sums_ptr + N + rows), tl.load(sums_ptr + 2 * N + rows)
    tl.store(out_ptr + rows, norm_step(mass, slope, order, POWER))
    tl.store(out_ptr + N + rows, active_set_step(mass, slope, curve, order, POWER))


@lemma("newton_norm_left")
@each_alpha
def test_steps_are_the_specified_ones(alpha):
    rng = np.random.default_rng(1)
    rows = -rng.exponential(size=(N, 40)) * 10.0 ** rng.uniform(-3, 0, (N, 1))
    rows[:, 0] = 0.0
    exact = entmax_ref.threshold(rows / (alpha - 1.0), alpha)
    tau = np.maximum(exact + rng.choice([-1e-2, -1e-4, 1e-5, 1e-3], N), -1.0)
    sums = [part.astype(np.float32) for part in stages.sums(rows, np.minimum(tau, -1e-6), alpha)]
    out = torch.empty(2, N, device=DEVICE)
    steps_kernel[(1,)](torch.tensor(np.stack(sums), device=DEVICE), out, N=N, **loaded(alpha))
    mass, slope, curve = (part.astype(np.float64) for part in sums)
    wanted = stages.norm_step(mass, slope, alpha), stages.active_set_step(mass, slope, curve, alpha)
    for found, step in zip(out.double().cpu().numpy(), wanted, strict=True):
        there = np.isfinite(step)
        # Relative to the step, and near mass 1 to the rounding of the mass.
        allowed = 64 * U * abs(step) + 16 * U * (mass + 1.0) / slope
        assert (abs(found - step)[there] <= allowed[there]).all()


@triton.jit
def slack_kernel(sums_ptr, out_ptr, alphas_ptr, relative_error, POWER: tl.constexpr, N: tl.constexpr):
    rows = tl.arange(0, N)
    order = load_order(alphas_ptr, 0, POWER)
    mass, slope = tl.load(sums_ptr + rows), tl.load(sums_ptr + N + rows)
    tl.store(out_ptr + rows, norm_step(mass, slope, order, POWER))
    tl.store(out_ptr + N + rows, norm_step_slack(mass, slope, relative_error, order, POWER))


@lemma("mask_bound_any_power")
@pytest.mark.parametrize("alpha", [1.01, 1.1, 1.25, 4.0 / 3.0, 1.4, 1.7, 1.99])
def test_a_step_is_as_near_as_its_slack_supposes(alpha):
    rng = np.random.default_rng(2)
    near = 1.0 + rng.choice([-1.0, 1.0], N // 2) * 10.0 ** rng.uniform(-6, -1, N // 2)
    mass = np.concatenate([near, 10.0 ** rng.uniform(-1, 4, N // 2)])
    sums = np.stack([mass, 10.0 ** rng.uniform(0, 4, N)]).astype(np.float32)
    out, eps = torch.empty(2, N, device=DEVICE), 72 * U
    slack_kernel[(1,)](torch.tensor(sums, device=DEVICE), out, relative_error=eps, N=N, **loaded(alpha))
    step, slack = out.double().cpu().numpy()
    mass, slope = sums.astype(np.float64)
    power = 1.0 / (alpha - 1.0)
    scale = (mass + mass ** (1.0 - 1.0 / power)) / slope
    k = power * 2.0**-22 + 2.0**-20 if alpha not in POWERS else round(power) * 2.0**-23
    assert (abs(step - stages.norm_step(mass, slope, alpha)) <= k * scale).all()
    assert (3.0 * (eps + k) * scale <= slack).all() and (slack <= 0.13 * scale).all()


@triton.jit
def root_kernel(counts_ptr, knots_ptr, out_ptr, alphas_ptr, POWER: tl.constexpr, ROWS: tl.constexpr, N: tl.constexpr):
    rows, bins = tl.arange(0, ROWS), tl.arange(0, N)
    counts, knots = tl.load(counts_ptr + rows[:, None] * N + bins[None, :]), tl.load(knots_ptr + bins)
    tl.store(out_ptr + rows, counted_root(counts, knots[None, :], load_order(alphas_ptr, 0, POWER), POWER))


@lemma("newton_norm_left", "newton_stops_at_tau")
@examples(60)
@given(alpha=st.sampled_from(ALPHAS), seed=st.integers(0, 2**32 - 1), most=st.integers(0, 20))
def test_the_root_of_counts_is_that_of_the_counted_row(alpha, seed, most):
    rng = np.random.default_rng(seed)
    knots = np.sort(rng.uniform(0, 1, 16)).astype(np.float32)
    counts = (rng.integers(0, 2**most + 1, (4, 16)) * rng.integers(0, 2, (4, 16))).astype(np.float32)
    out = torch.empty(4, device=DEVICE)
    root_kernel[(1,)](
        torch.from_numpy(counts).to(DEVICE), torch.from_numpy(knots).to(DEVICE), out, ROWS=4, N=16, **loaded(alpha)
    )
    exact = histogram_root(counts.astype(np.float64), np.tile(knots.astype(np.float64), (4, 1)), alpha)
    # kernels/histogram.py: ROOT_ERROR
    assert (abs(out.double().cpu().numpy() - exact) <= 2.0**-18 * exact).all()


@triton.jit
def weight_kernel(probs_ptr, gap_ptr, out_ptr, step, N: tl.constexpr):
    keys = tl.arange(0, N)
    tl.store(out_ptr + keys, alpha_weight(tl.load(probs_ptr + keys), step))
    tl.store(out_ptr + N + keys, gap_weight(tl.load(gap_ptr + keys), step))


@pytest.mark.parametrize("step", [1.0, 0.5, 0.25, 2.0**-7])
def test_alpha_moves_scores_by_these_weights(step):
    probs = np.geomspace(1e-6, 1.0, N).astype(np.float32)
    gap = (probs.astype(np.float64) ** step).astype(np.float32)
    probs[-2:] = gap[-2:] = [0.0, np.nan]
    out = torch.empty(2, N, device=DEVICE)
    weight_kernel[(1,)](torch.from_numpy(probs).to(DEVICE), torch.from_numpy(gap).to(DEVICE), out, step, N)
    for found, own in zip(out.double().cpu().numpy(), (probs.astype(np.float64) ** step, gap), strict=True):
        wide = own.astype(np.float64)[:-2]
        exact = -(1.0 - wide + wide * np.log(wide)) / step**2
        # The closed form begins where it has lost 8 times its rounding, of which it has 8.
        assert (abs(found[:-2] - exact) <= 64 * U * abs(exact)).all()
        assert found[-2] == 0.0 and np.isnan(found[-1])


@triton.jit
def bend_kernel(sums_ptr, out_ptr, POWER: tl.constexpr, N: tl.constexpr):
    rows = tl.arange(0, N)
    mass, slope, curve = tl.load(sums_ptr + rows), tl.load(sums_ptr + N + rows), tl.load(sums_ptr + 2 * N + rows)
    before, moved = tl.load(sums_ptr + 3 * N + rows), tl.load(sums_ptr + 4 * N + rows)
    tl.store(out_ptr + rows, bend_of(mass, slope, curve, before, moved, POWER))


def test_what_a_step_bends_by_is_specified():
    """For alpha 2 the density of the scores, between two points or supposed; for any other the curve."""
    rng = np.random.default_rng(2)
    mass, curve = rng.uniform(0.1, 9.0, N), rng.uniform(0.0, 9.0, N)
    slope, before = rng.integers(1, 999, (2, N)).astype(np.float64)
    moved = np.where(np.arange(N) % 3 > 0, rng.normal(size=N) * 0.01, 0.0)
    sums = np.stack([mass, slope, curve, before, moved]).astype(np.float32)
    out = torch.empty(2, N, device=DEVICE)
    for row, power in enumerate((1, 2)):
        bend_kernel[(1,)](torch.from_numpy(sums).to(DEVICE), out[row], power, N)
    mass, slope, curve, before, moved = sums.astype(np.float64)
    np.testing.assert_allclose(out[0].cpu().numpy(), stages.density(mass, slope, before, moved), rtol=8 * U)
    np.testing.assert_array_equal(out[1].cpu().numpy(), sums[2])
