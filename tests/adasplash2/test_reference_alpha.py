"""Is the eager path exact for every alpha above 1, at any offset: probabilities, mass, tau and gradients?"""

import exact
import numpy as np
import pytest
import torch
from drawn import finite_rows, shifted_rows
from exact import U
from hypothesis import assume, given
from hypothesis import strategies as st
from lemmas import lemma
from profiles import examples

import entmax_ref
from adasplash2 import entmax_attention
from adasplash2.reference import reference_attention, support
from entmax_ref import bounds

ALPHAS = (1.0 + 1e-9, 1.0001, 1.01, 1.25, 1.5, 2.0, 3.0, 8.0, 30.0)
each_alpha = pytest.mark.parametrize("alpha", ALPHAS)


def kinds(n, seed=0):
    """Yield rows of scores, (m, n), by name."""
    rng = np.random.default_rng(seed)
    normal = rng.normal(size=(12, n))
    yield "normal", normal
    yield "wide", 10.0 * normal
    yield "narrow", 0.1 * normal
    yield "offset", 1e6 + normal
    yield "far offset", -1e15 + 8.0 * normal
    yield "flat", np.full((2, n), 3.7)
    yield "ties", rng.integers(-8, 9, size=(12, n)) / 8.0
    yield "near ties", rng.integers(-4, 5, size=(12, n)) * 2.0**-50
    leading = np.zeros((12, n))
    leading[:, n // 2] = rng.uniform(0.0, 1.0, size=12)
    yield "one key leads", leading
    spike = normal.copy()
    spike[:, 0] = 1000.0
    yield "spike", spike
    yield "heavy tails", rng.standard_cauchy(size=(12, n))
    hidden = normal.copy()
    hidden[:, : n // 2] = -np.inf
    hidden[:, -1] = 0.0
    yield "hidden keys", hidden


def mass_error(n):
    """Bound the error of the sum of n probabilities: that of the mass in the solve, as in `bounds.threshold`.

    2 U of the power and log(n) of its exponent, and the summation, which is pairwise from 128 or so terms on; this for
    the last Newton step and for the probabilities themselves, and 6 U for the roundings of the root.
    """
    return U * (6.0 + 2.0 * (2.0 + np.log(n) + min(n - 1, 19.0 + np.log2(n))))


def assert_solved(rows, alpha, width=32):
    """Check the probabilities, masses and thresholds of float64 rows."""
    scores = torch.from_numpy(rows)
    found = support.supported(scores, alpha - 1.0, width)
    probs = torch.zeros_like(scores)
    for group in found.groups:
        probs[group.rows[:, None].expand_as(group.columns), group.columns] = group.probs
    # the oracle's error and ours, each within the bound of the same method
    error = np.abs(probs.numpy() - entmax_ref.entmax(rows, alpha))
    assert (error <= 2.0 * bounds.entmax(rows, alpha)).all()
    error = np.abs(found.tau.numpy() - entmax_ref.threshold(rows, alpha))
    assert (error <= 2.0 * bounds.threshold(rows, alpha)).all()
    assert (np.abs(probs.sum(-1).numpy() - 1.0) <= mass_error(rows.shape[1])).all()
    assert (np.abs(found.mass.numpy() - 1.0) <= mass_error(rows.shape[1])).all()


@each_alpha
@pytest.mark.parametrize("n", [1, 2, 5, 33, 200, 700])
@lemma("threshold_unique", "threshold_shift", "threshold_subset", "newton_norm_left")
def test_rows_of_every_kind(alpha, n):
    for _, rows in kinds(n):
        assert_solved(rows, alpha)


@each_alpha
def test_long_rows(alpha):
    for _, rows in kinds(6000):
        assert_solved(rows[:3], alpha)


@each_alpha
@examples(60)
@given(scores=shifted_rows(max_size=12), width=st.integers(1, 4))
def test_drawn_rows_from_any_first_width(alpha, scores, width):
    assume(np.abs(scores).max() < 1e299)  # there bounds of tau are infinite
    assert_solved(scores[None], alpha, width)


def as_operands(rows, dtype):
    """Return query, key and value whose scores are the rows, exactly, and whose output is the probabilities."""
    m, n = rows.shape
    query = torch.ones(m, 1, 1, 1, dtype=dtype)
    key = torch.from_numpy(rows).to(dtype)[:, None, :, None]
    value = torch.eye(n, dtype=dtype).expand(m, 1, n, n)
    return query, key, value


@each_alpha
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_what_the_public_call_returns(alpha, dtype):
    """The output errs by its own rounding and float64's error; so do mass and tau."""
    unit = torch.finfo(dtype).eps / 2.0
    for name, rows in kinds(50):
        query, key, value = as_operands(np.where(rows == -np.inf, -1e30, rows), dtype)
        given = key[:, 0, :, 0].double().numpy()
        out, tau, mass, *_ = reference_attention(query, key, value, alpha=alpha, is_causal=False, scale=1.0)
        wanted = entmax_ref.entmax(given, alpha)
        allowed = 2.0 * bounds.entmax(given, alpha) + unit * wanted + torch.finfo(dtype).smallest_normal
        assert (np.abs(out[:, 0, 0].double().numpy() - wanted) <= allowed).all(), name
        assert (np.abs(mass.double().numpy() - 1.0) <= mass_error(50) + unit).all(), name
        assert (np.abs(out.double().sum(-1).numpy() - 1.0) <= mass_error(50) + unit).all(), name
        wanted = entmax_ref.threshold(given, alpha)[:, None, None]
        allowed = 2.0 * bounds.threshold(given, alpha)[:, None, None] + unit * np.abs(wanted)
        assert (np.abs(tau.double().numpy() - wanted) <= allowed).all(), name


@each_alpha
@lemma("threshold_shift")
def test_an_offset_in_float32_costs_nothing_but_the_digits_of_tau(alpha):
    """query and key are float32, their products are not: an offset of 1e6 leaves probabilities and gradients alone."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, 20, 8, generator=generator).unbind()
    query, key = query.clone(), key.clone()
    query[..., 0], key[..., 0] = 1.0, 0.0
    leaves = [part.requires_grad_() for part in (query, key, value)]
    far = key.detach().clone()
    far[..., 0] = 1e6
    moved = [query, far.requires_grad_(), value]
    options = {"alpha": alpha, "scale": 1.0, "impl": "reference"}
    plain, shifted = (entmax_attention(*parts, **options) for parts in (leaves, moved))
    # float64 rounds scores near 1e6 by 2**-34, which a key at the edge feels as `bounds.entmax` says
    assert (plain - shifted).norm() <= (2.0**-24 + (2.0**-34 * alpha) ** min(1.0, 1.0 / (alpha - 1.0))) * plain.norm()


@each_alpha
@lemma("jacobian_form", "jacobian_rows_zero")
@examples(15)
@given(scores=finite_rows(max_size=7), data=st.data())
def test_gradients_against_high_precision(alpha, scores, data):
    n = len(scores)
    vector = np.array(data.draw(st.lists(st.floats(-8.0, 8.0, width=32), min_size=n, max_size=n)))
    allowed = exact.FirstOrder(scores, alpha)
    assume(allowed.valid and all(abs(gap) > 2.0**-6 for gap in exact.gaps(scores, alpha)))
    query, key, value = as_operands(scores[None], torch.float64)
    key.requires_grad_(), value.requires_grad_()
    out, *_ = reference_attention(query, key, value, alpha=alpha, is_causal=False, scale=1.0)
    d_key, d_value = torch.autograd.grad(out, (key, value), torch.from_numpy(vector)[None, None, None])
    wanted = exact.vjp(scores, vector, alpha)
    # The high precision ends too: a row of one key has the gradient 0, and it finds the rounding of its own mean.
    own = (n + 8) * 2.0**-exact.CONTEXT.prec * np.abs(vector).max()
    for found, truth, limit in zip(d_key[0, 0, :, 0].tolist(), wanted, allowed.product(vector), strict=True):
        assert exact.difference(found, truth) <= limit + own
    wanted = entmax_ref.entmax(scores, alpha)[:, None] * vector
    assert (np.abs(d_value[0, 0].numpy() - wanted) <= 2 * bounds.entmax(scores, alpha)[:, None] * np.abs(vector)).all()


@each_alpha
@pytest.mark.parametrize("n", [200, 1500])
def test_gradients_of_long_rows_are_the_oracle_s(alpha, n):
    """Chunks of few keys gather, of many multiply densely, and find the same."""
    rng = np.random.default_rng(n)
    for spread in (0.05, 3.0):
        rows, vector = spread * rng.normal(size=(6, n)), rng.normal(size=n)
        query, key, value = as_operands(rows, torch.float64)
        key.requires_grad_()
        value = torch.from_numpy(vector)[:, None].expand(6, 1, n, 1)
        out, *_ = reference_attention(query, key, value, alpha=alpha, is_causal=False, scale=1.0)
        (d_key,) = torch.autograd.grad(out.sum(), key)
        wanted = entmax_ref.entmax_vjp(rows, np.broadcast_to(vector, rows.shape), alpha)
        # Above alpha 2 the key at the edge holds the largest sensitivity; its relative error is that of 1 / gap.
        gap = np.where(wanted != 0.0, entmax_ref.entmax(rows, alpha) ** (alpha - 1.0), 1.0).min(-1)
        lost = abs(2.0 - alpha) * (mass_error(n) * max(1.0, alpha - 1.0) / (alpha - 1.0)) / gap
        near = n ** (alpha - 1.0) < 2.0
        relative = mass_error(n) * (4.0 + 16.0 * (1.0 + abs(2.0 - alpha))) if near else 4.0 * lost + 4.0 * mass_error(n)
        error = np.linalg.norm(d_key[:, 0, :, 0].numpy() - wanted, axis=-1)
        assert (error <= relative * np.linalg.norm(wanted, axis=-1)).all()


@each_alpha
def test_value_contract(alpha):
    inf, nan = np.inf, np.nan
    rows = np.array([[0.0, 0.5, -1.0], [-inf] * 3, [nan, 0.5, -inf], [0.0, inf, -1.0], [0.0, 0.5, -inf]])
    query, key, value = as_operands(rows, torch.float64)
    key.requires_grad_()
    out, tau, mass, *_ = reference_attention(query, key, value, alpha=alpha, is_causal=False, scale=1.0)
    weights = torch.tensor([1.0, -2.0, 4.0], dtype=torch.float64)
    (d_key,) = torch.autograd.grad((out * weights).sum(), key)
    clean, dirty = [0, 1, 4], [2, 3]
    wanted = entmax_ref.entmax(rows, alpha)
    assert (np.abs(out[clean, 0, 0].detach().numpy() - wanted[clean]) <= 2 * bounds.entmax(rows[clean], alpha)).all()
    assert out[dirty].isnan().all() and tau[dirty].isnan().all() and mass[dirty].isnan().all()
    assert tau[1].item() == inf and mass[1].item() == 0.0
    gradients = d_key[:, 0, :, 0].numpy()
    np.testing.assert_array_equal(np.isnan(gradients), np.isnan(wanted))
    assert not gradients[rows == -inf].any()


def test_probabilities_outlive_gaps_that_underflow():
    """A thousand equal keys at alpha 120 have gaps below any float64; their probabilities are 1/1000 all the same."""
    found = support.supported(torch.zeros(1, 1000, dtype=torch.float64), 119.0, 32)
    assert (found.groups[0].probs * 1000.0 - 1.0).abs().max() <= mass_error(1000)


@pytest.mark.parametrize("alpha", [60.0, 120.0, 1000.0])
def test_gradients_outlive_a_sensitivity_that_overflows(alpha):
    """The second key has the probability p = 1 - above ** (1 / (alpha - 1)), and p ** (2 - alpha) is beyond float64."""
    above = 1.0 - 2.0**-20
    query, key, value = as_operands(np.array([[0.0, -above / (alpha - 1.0), -1.0]]), torch.float64)
    key.requires_grad_()
    out = reference_attention(query, key, value, alpha=alpha, is_causal=False, scale=1.0).out
    first, second, third = out[0, 0, 0].tolist()
    assert 0.0 < second < 2.0**-25 and third == 0.0
    assert (2.0 - alpha) * np.log(second) > np.log(np.finfo(float).max)
    vector = torch.tensor([3.0, 1.0, 7.0], dtype=torch.float64)
    (d_key,) = torch.autograd.grad((out * vector).sum(), key)
    # with the weight of the mean on the second key: s * (3 - 1), and minus that
    wanted = 2.0 * first ** (2.0 - alpha)
    assert np.allclose(d_key[0, 0, :, 0], [wanted, -wanted, 0.0], rtol=alpha * 64 * U, atol=0.0)
