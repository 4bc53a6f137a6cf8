"""Is the oracle within its published bound of certified values, and is each float32 stage within its own?"""

import math

import exact
import numpy as np
import pytest
from drawn import ALPHAS, EXTREME_ALPHAS, edge_rows, shifted_rows
from hypothesis import given
from hypothesis import strategies as st
from lemmas import lemma
from profiles import examples

import entmax_ref
from entmax_ref import bounds, stages, threshold
from entmax_ref.bounds.rows import POWERS
from entmax_ref.certify import certify

each_alpha = pytest.mark.parametrize("alpha", [1.001, *ALPHAS])
each_power = pytest.mark.parametrize("alpha", [1.5, 2.0, 1.25, 1.75, 1.0625])
each_dtype = pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])


def assert_within(scores, alpha):
    """The enclosures of the certificate are some 2**-90 wide, so an error beyond its bound would show."""
    pytest.importorskip("flint", reason="ball arithmetic comes with the extra certify")
    proof = certify(scores, alpha)
    assert (proof.tau_error(threshold(scores, alpha))[1] <= bounds.threshold(scores, alpha)).all()
    assert (proof.probs_error(entmax_ref.entmax(scores, alpha))[1] <= bounds.entmax(scores, alpha)).all()
    wrong = np.where(entmax_ref.support(scores, alpha), proof.out_of_support, proof.in_support)
    # Where the oracle decides otherwise, the exact probability is within the bound of the 0 that it may have returned.
    assert (
        np.maximum(proof.probs_hi, entmax_ref.entmax(scores, alpha))[wrong] <= 2 * bounds.entmax(scores, alpha)[wrong]
    ).all()


@each_alpha
@lemma("residual_bound")
@given(scores=shifted_rows(max_size=20))
def test_the_oracle_is_within_its_bounds(alpha, scores):
    assert_within(scores, alpha)


@each_alpha
@examples(50)
@given(data=st.data())
def test_the_oracle_is_within_its_bounds_at_the_edge_of_the_support(alpha, data):
    assert_within(data.draw(edge_rows(alpha, threshold)), alpha)


@pytest.mark.parametrize("alpha", EXTREME_ALPHAS)
@examples(50)
@given(scores=shifted_rows())
def test_the_oracle_is_within_its_bounds_for_extreme_alpha(alpha, scores):
    assert_within(scores, alpha)


@each_alpha
def test_the_oracle_is_within_its_bounds_on_long_rows(alpha):
    rng = np.random.default_rng(8)
    n = 700
    spike = np.append(np.zeros(n - 1), 9.0)
    near = 1.0 + rng.integers(0, 5, n) * 2.0**-50
    assert_within(np.stack([rng.normal(size=n), np.full(n, 0.7), rng.integers(-3, 3, n) / 4, near, spike]), alpha)


@each_alpha
@given(scores=shifted_rows())
def test_the_bound_of_tau_is_the_documented_one(alpha, scores):
    documented = exact.tau_bound(len(scores), (alpha - 1.0) * float(scores.max()), alpha)
    assert math.isclose(bounds.threshold(scores, alpha), documented, rel_tol=1e-12)


def test_bounds_of_the_oracle_keep_its_value_contract():
    scores = np.array([[0.0, 0.5, -1.0], [-np.inf] * 3, [np.nan, 0.5, -1.0], [0.0, np.inf, -np.inf]])
    for alpha in (1.1, 1.5, 4.0):
        tau, probs = bounds.threshold(scores, alpha), bounds.entmax(scores, alpha)
        assert 0.0 < tau[0] < 1e-14 and tau[1] == 0.0 and np.isnan(tau[2:]).all()
        assert (probs[0] < 1e-14).all() and not probs[1].any() and np.isnan(probs[2]).all()
        assert np.isnan(probs[3, :2]).all() and probs[3, 2] == 0.0
        across = bounds.entmax(scores.T, alpha, axis=0, where=np.array([True, True, False])[:, None])
        np.testing.assert_array_equal(across[:, 0], bounds.entmax([*scores[0, :2], -np.inf], alpha))
    with pytest.raises(ValueError, match=r"^threshold: alpha must be above 1"):
        bounds.threshold(scores, 1.0)


def rounded(array, dtype):
    """Return float32 numbers that the dtype holds, to nearest even."""
    array = np.asarray(array, dtype=np.float32)
    if dtype == "float16":
        return array.astype(np.float16).astype(np.float32)
    if dtype == "bfloat16":
        bits = array.view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)
    return array


def evaluate(problem, alpha, dtype, tau_step):
    """Return what the stages compute, evaluated densely in float32, every operand of a product rounded to the dtype.

    tau is that of the rounded row, moved by ``tau_step``: refinement leaves such a distance.
    """
    query, key, value, d_out, scale, visible = (
        part.astype(np.float32) if isinstance(part, np.ndarray) and part.dtype == np.float64 else part
        for part in problem
    )
    power = np.float32(1.0 / (alpha - 1.0))
    z = (query @ key.T) * np.float32(scale * (alpha - 1.0))
    row_max = np.max(np.where(visible, z, -np.inf), axis=-1).astype(np.float32)
    shifted = np.where(visible, z - row_max[:, None], -np.inf).astype(np.float32)
    tau = threshold(shifted.astype(np.float64) / (alpha - 1.0), alpha).astype(np.float32) + np.float32(tau_step)
    gap = np.maximum(shifted - tau[:, None], np.float32(0.0))
    probs = gap**power
    sensitivity = np.where(gap > 0.0, np.maximum(gap, np.float32(1e-30)) ** (power - np.float32(1.0)), 0).astype(
        np.float32
    )
    mass = probs.sum(axis=-1, dtype=np.float32)
    shares = rounded(probs, dtype)
    out = rounded((shares @ value) * (np.float32(1.0) / mass)[:, None], dtype)
    shared = np.sum(out * d_out, axis=-1, dtype=np.float32)
    lifted = np.where(sensitivity > 0, sensitivity * (d_out @ value.T - shared[:, None]), 0)
    apart = lifted.sum(axis=-1, dtype=np.float32) / sensitivity.sum(axis=-1, dtype=np.float32)
    delta = shared + apart
    d_scores = rounded(np.where(sensitivity > 0, sensitivity * (d_out @ value.T - delta[:, None]), 0), dtype)
    found = {"z": z, "row_max": row_max, "tau": tau, "mass": mass, "out": out}
    two = rounded(lifted, dtype) @ key - apart[:, None] * (rounded(sensitivity, dtype) @ key)
    found["d_query"] = rounded(two * np.float32(scale), dtype)
    found["d_key"] = rounded((d_scores.T @ query) * np.float32(scale), dtype)
    found["d_value"] = rounded(shares.T @ d_out, dtype)
    return {name: array.astype(np.float64) for name, array in found.items()}


def draw(seed, dtype, n_queries=12, n_keys=40, head_dim=24, spread=1.0):
    """Return operands that the dtype holds, raised to float64, and a causal mask."""
    rng = np.random.default_rng(seed)
    shapes = [(n_queries, head_dim), (n_keys, head_dim), (n_keys, head_dim), (n_queries, head_dim)]
    query, key, value, d_out = (rounded(rng.normal(size=shape), dtype).astype(np.float64) for shape in shapes)
    visible = np.arange(n_keys) <= np.arange(n_queries)[:, None] + n_keys - n_queries
    return rounded(spread * query, dtype).astype(np.float64), key, value, d_out, head_dim**-0.5, visible


def assert_stages_within(found, problem, alpha, dtype, block=64):
    """Compare what was found with the specification at the exact threshold; return error over bound by name."""
    query, key, value, d_out, scale, visible = problem
    residual = np.abs(found["mass"] - 1.0)
    at = bounds.exact_rows(
        query, key, scale=scale, alpha=alpha, visible=visible, dtype=dtype, block=block, residual=residual
    )
    tau = found["row_max"] + found["tau"]
    gap = np.maximum(at.z - tau[:, None], 0.0)
    out, _ = stages.output(at.z, at.tau, value, alpha)
    delta = stages.delta(at.z, at.tau, value, d_out, alpha)
    d_key, d_value = stages.backward_dkdv(at.z, at.tau, query, value, d_out, delta, scale, alpha)
    d_query = stages.backward_dq(at.z, at.tau, key, value, d_out, delta, scale, alpha)
    pairs = {
        "tau": (tau, at.tau, at.tau_error),
        "mass": (found["mass"], np.sum(gap ** (1 / (alpha - 1)), axis=-1), bounds.mass(at, tau)),
        "out": (found["out"], out, bounds.output(at, value)),
        "d_query": (found["d_query"], d_query, bounds.d_query(at, key, value, d_out, scale)),
        "d_key": (found["d_key"], d_key, bounds.d_key(at, query, value, d_out, scale)),
        "d_value": (found["d_value"], d_value, bounds.d_value(at, d_out)),
    }
    if "z" in found:
        z_bound = bounds.scores(query, key, scale * (alpha - 1.0), dtype=dtype)
        pairs["z"] = (found["z"], scale * (alpha - 1.0) * (query @ key.T), z_bound)
    for name, (one, other, bound) in pairs.items():
        assert one.shape == bound.shape, name
        assert (np.abs(one - other) <= bound).all(), name
    return {name: float(np.max(np.abs(one - other) / bound)) for name, (one, other, bound) in pairs.items()}


@each_power
@each_dtype
@lemma("normalised_output")
@lemma("delta_is_centre")
def test_stages_in_float32_are_within_their_bounds(alpha, dtype):
    for seed in range(40):
        spread = (0.0, 0.1, 1.0, 8.0)[seed % 4]
        n_queries, n_keys = ((1, 1), (12, 12), (12, 40), (12, 130))[seed // 4 % 4]
        problem = draw(seed, dtype, n_queries, n_keys, spread=spread)
        assert_stages_within(evaluate(problem, alpha, dtype, (seed % 3 - 1) * 2.0**-18), problem, alpha, dtype)


@each_power
@each_dtype
def test_the_bounds_are_of_the_size_of_the_rounding(alpha, dtype):
    """Far from vacuous: for peaked and for flat rows they stay below a few percent of the result (1e-3 for float32)."""
    for spread in (0.3, 2.0):
        problem = draw(3, dtype, spread=spread)
        query, key, value, _, scale, visible = problem
        at = bounds.exact_rows(query, key, scale=scale, alpha=alpha, visible=visible, dtype=dtype, residual=2.0**-20)
        limit = {"float32": 1e-3, "bfloat16": 3e-2, "float16": 5e-3}[dtype]
        assert np.max(bounds.output(at, value)) <= limit * np.max(np.abs(value))
        assert np.max(at.tau_error) <= 1e-4


@each_power
def test_the_bound_without_a_residual_covers_the_last_step(alpha):
    problem = draw(5, "float32")
    query, key, _, _, scale, visible = problem
    with_residual, without = (
        bounds.exact_rows(query, key, scale=scale, alpha=alpha, visible=visible, dtype="float32", residual=residual)
        for residual in (2.0**-18, None)
    )
    # Where alpha is loaded, each of the roundings of the last step has those of a logarithm besides.
    assert (without.tau_error > with_residual.tau_error).all()
    assert (without.tau_error < (1e-4 if alpha in (1.25, 1.5, 2.0) else 2e-4)).all()


@each_power
@each_dtype
def test_rows_without_a_key_have_no_error_but_underflow(alpha, dtype):
    query, key, value, d_out, scale, visible = draw(6, dtype)
    visible = visible & (np.arange(12) != 2)[:, None]
    at = bounds.exact_rows(query, key, scale=scale, alpha=alpha, visible=visible, dtype=dtype)
    assert at.tau_error[2] == 0.0
    for bound in (bounds.output(at, value), bounds.centre(at, value), bounds.d_query(at, key, value, d_out, scale)):
        assert (bound[2] <= 2.0**-24).all() and np.isfinite(bound).all()


@each_power
@each_dtype
@lemma("block_mask_superset")
@lemma("compensated_sum")
def test_the_kernels_are_within_their_bounds(alpha, dtype):
    torch = pytest.importorskip("torch")
    launch = pytest.importorskip("adasplash2.launch")
    if not launch.INTERPRETED:
        pytest.skip("the kernels are compiled in this process; the tests marked gpu judge them")
    from adasplash2.orders import alphas_of

    problem = draw(9, dtype, n_queries=70, n_keys=150, head_dim=16)
    tensors = [torch.from_numpy(part)[None, None].to(getattr(torch, dtype)) for part in problem[:4]]
    query, key, value, d_out = tensors
    alphas = alphas_of(alpha, query)
    state = launch.forward(query, key, value, None, alphas, alpha=alpha, is_causal=True, scale=problem[4])
    left = (state.out, state.base, state.rest, state.block_mask, state.support)
    after = launch.backward(
        d_out, query, key, value, *left, None, alphas, alpha=alpha, is_causal=True, scale=problem[4]
    )
    found = {name: getattr(state, name) for name in ("base", "rest", "mass", "out")}
    found |= {name: getattr(after, name) for name in ("d_query", "d_key", "d_value")}
    found = {name: tensor.double().numpy()[0, 0] for name, tensor in found.items()}
    found |= {"row_max": found.pop("base"), "tau": found.pop("rest")}
    assert_stages_within(found, problem, alpha, dtype)


def test_gammas():
    assert bounds.gamma(0) == 0.0 and bounds.gamma(2**24) == np.inf
    np.testing.assert_allclose(bounds.gamma([1, 10]), [2.0**-24, 10 * 2.0**-24], rtol=1e-6)
    for dtype in ("bfloat16", "float16"):
        assert (bounds.product_gamma([1, 64], dtype) >= bounds.product_gamma([1, 64], "float32")).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"alpha": 2.75}, "alpha must be at most 2"), ({"dtype": "float64"}, "dtype must be one of float32, bfloat16")],
)
def test_a_bad_argument_of_exact_rows_is_named(arguments, message):
    with pytest.raises(ValueError, match=f"^exact_rows: {message}"):
        bounds.exact_rows(np.ones((2, 3)), np.ones((4, 3)), scale=1.0, **arguments)


def test_powers_that_are_multiplied_out_are_those_that_kernels_are_compiled_for():
    pytest.importorskip("torch")
    from adasplash2 import orders

    assert orders.POWERS == POWERS
