"""Are the row-wise maps the oracle's answer, for any alpha, dtype, dimension and strides, and their gradients too?"""

import exact
import numpy as np
import pytest
import torch
from drawn import finite_rows, shifted_rows
from hypothesis import assume, given
from hypothesis import strategies as st
from lemmas import lemma
from profiles import examples

import entmax_ref
from adasplash2 import entmax, entmax15, sparsemax
from entmax_ref import bounds

ALPHAS = (1.0 + 1e-9, 1.0001, 1.01, 1.25, 1.5, 2.0, 3.0, 8.0)
each_alpha = pytest.mark.parametrize("alpha", ALPHAS)
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def kinds(n, seed=0):
    """Return rows (m, n) that are hard for a threshold, hidden keys among them."""
    rng = np.random.default_rng([seed, n])
    normal = rng.normal(size=(4, n))
    hidden = np.where(rng.random(size=(4, n)) < 0.5, -np.inf, normal)
    hidden[:, -1] = 0.0
    ties = rng.integers(-8, 9, size=(4, n)) / 8.0
    clusters = rng.choice(rng.normal(size=3), size=(4, n)) + 1e-4 * normal
    return np.concatenate(
        [normal, 10.0 * normal, 0.01 * normal, 1e4 + normal, np.zeros((1, n)), ties, clusters, hidden]
    )


def allowed(given_rows, wanted, alpha, dtype):
    """Return the bound of the error: the oracle's and ours, by the same method, and one rounding to the dtype."""
    info = torch.finfo(dtype)
    tiny = info.smallest_normal * info.eps  # the spacing of subnormal numbers
    return 2.0 * bounds.entmax(given_rows, alpha) + 0.5 * info.eps * wanted + tiny


@each_alpha
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@lemma("threshold_unique", "threshold_shift", "threshold_subset")
def test_it_is_the_oracle_s_answer(alpha, dtype):
    for n in (1, 2, 31, 700):
        rows = torch.from_numpy(kinds(n)).to(dtype)
        given_rows = rows.double().numpy()
        found, wanted = entmax(rows, alpha), entmax_ref.entmax(given_rows, alpha)
        assert found.dtype == dtype and found.shape == rows.shape
        assert (np.abs(found.double().numpy() - wanted) <= allowed(given_rows, wanted, alpha, dtype)).all()


@pytest.mark.parametrize("k", range(1, 14))
def test_as_many_keys_as_the_closed_form_just_covers(k):
    """2 ** k keys at alpha 1 + 1 / k: whether theta or the lift is searched for hangs on a rounding."""
    alpha, rows = 1.0 + 1.0 / k, draw(4, 2**k, seed=k) * 0.1
    wanted = entmax_ref.entmax(rows.numpy(), alpha)
    limit = allowed(rows.numpy(), wanted, alpha, torch.float64)
    for order in (alpha, torch.full((4, 1), alpha, dtype=torch.float64)):
        assert (np.abs(entmax(rows, order).numpy() - wanted) <= limit).all()


@each_alpha
@examples(40)
@given(scores=shifted_rows(max_size=12))
def test_drawn_rows(alpha, scores):
    assume(np.abs(scores).max() < 1e299)  # there bounds of tau are infinite
    found, wanted = entmax(torch.from_numpy(scores), alpha).numpy(), entmax_ref.entmax(scores, alpha)
    assert (np.abs(found - wanted) <= allowed(scores, wanted, alpha, torch.float64)).all()


def test_the_named_maps_are_those_of_their_alpha():
    rows = draw(5, 40)
    assert torch.equal(entmax(rows), entmax(rows, 1.5)) and torch.equal(entmax15(rows), entmax(rows, 1.5))
    assert torch.equal(sparsemax(rows), entmax(rows, 2))
    assert torch.equal(sparsemax(rows, dim=0), entmax(rows, np.float32(2.0), dim=0))


@pytest.mark.parametrize("dim", [0, 1, 2, -1, -3])
def test_any_dimension_and_strides(dim):
    base = draw(6, 5, 7, seed=3)
    for scores in (base, base.transpose(0, 2), base[::2, 1:, ::3], base[:, :1].expand(6, 4, 7)):
        wanted = entmax_ref.entmax(scores.numpy(), 1.5, axis=dim)
        found = entmax(scores, dim=dim)
        assert found.shape == scores.shape
        assert np.abs(found.numpy() - wanted).max() <= 2.0 * bounds.entmax(scores.numpy().reshape(1, -1), 1.5).max()


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 4), (2, 0, 5)])
def test_nothing_to_map(shape):
    scores = torch.zeros(shape, requires_grad=True)
    probs = entmax(scores)
    (d_scores,) = torch.autograd.grad(probs.sum(), scores)
    assert probs.shape == d_scores.shape == scores.shape


@each_alpha
def test_rows_by_the_contract(alpha):
    inf, nan = torch.inf, torch.nan
    scores = torch.tensor(
        [[-inf, -inf, -inf], [0.0, nan, -inf], [inf, 0.0, -inf], [0.0, 1.0, -inf]], dtype=torch.float64
    ).requires_grad_()
    order = torch.full((4, 1), alpha, dtype=torch.float64, requires_grad=True)
    probs = entmax(scores, order)
    d_scores, d_alpha = torch.autograd.grad(probs, (scores, order), torch.tensor([1.0, 2.0, nan]).expand(4, 3).double())
    for found in (probs.detach(), d_scores):
        assert (found[0] == 0.0).all()
        assert found[1:3, :2].isnan().all() and (found[:, 2] == 0.0).all()
        assert found[3].isfinite().all()
    assert d_alpha[0] == 0.0 and d_alpha[1:3].isnan().all() and d_alpha[3].isfinite()
    assert (probs[3].detach() - entmax(scores[3].detach(), alpha)).abs().max() == 0.0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_an_alpha_for_each_row(dtype):
    scores = torch.from_numpy(kinds(60)[:24]).to(dtype).reshape(2, 4, 3, 60)
    alpha = torch.tensor([1.1, 1.5, 2.0, 1.0625], dtype=dtype)[:, None, None]
    wanted = entmax_ref.entmax(scores.double().numpy(), alpha.double().numpy()[..., 0])
    found = entmax(scores, alpha)
    assert found.dtype == dtype
    for head in range(4):
        error = np.abs(found[:, head].double().numpy() - wanted[:, head])
        rows = scores[:, head].double().numpy().reshape(-1, 60)
        limit = allowed(rows, wanted[:, head].reshape(-1, 60), float(alpha[head]), dtype)
        assert (error.reshape(-1, 60) <= limit).all()
    moved = entmax(scores.movedim(-1, 1), alpha[None].movedim(-1, 1), dim=1)
    assert torch.equal(moved.movedim(1, -1), found)


@pytest.mark.parametrize("n", [1, 5, 60, 700])
@pytest.mark.parametrize("least", [1.0 + 1e-9, 1.2])
def test_many_alphas_at_once(n, least):
    """More than are solved one after the other, some of them with a closed form, some above 2, on every kind of row."""
    rows = kinds(n)
    rows[3, : n // 2], rows[7] = np.nan, -np.inf
    alpha = np.concatenate([np.linspace(least, 1.999, len(rows) - 5), [1.5, 2.0, 2.5, 1.5, 2.0]])
    alpha = np.random.default_rng(0).permutation(alpha)
    found = entmax(torch.from_numpy(rows), torch.from_numpy(alpha[:, None])).numpy()
    for row, probs, order in zip(rows, found, alpha, strict=True):
        wanted = entmax_ref.entmax(row, order)
        if np.isnan(wanted).any():
            np.testing.assert_array_equal(probs, wanted)
        elif row.max() == -np.inf:
            assert not probs.any()
        else:
            assert (np.abs(probs - wanted) <= allowed(row, wanted, order, torch.float64)).all()


@each_alpha
@lemma("jacobian_form", "jacobian_rows_zero")
@examples(15)
@given(scores=finite_rows(max_size=7), data=st.data())
def test_gradients_against_high_precision(alpha, scores, data):
    n = len(scores)
    vector = np.array(data.draw(st.lists(st.floats(-8.0, 8.0, width=32), min_size=n, max_size=n)))
    first = exact.FirstOrder(scores, alpha)
    assume(first.valid and all(abs(gap) > 2.0**-6 for gap in exact.gaps(scores, alpha)))
    leaf = torch.from_numpy(scores).requires_grad_()
    (d_scores,) = torch.autograd.grad(entmax(leaf, alpha), leaf, torch.from_numpy(vector))
    # The high precision ends too: a row of one key has the gradient 0, and it finds the rounding of its own mean.
    own = (n + 8) * 2.0**-exact.CONTEXT.prec * np.abs(vector).max()
    wanted = exact.vjp(scores, vector, alpha)
    for found, truth, limit in zip(d_scores.tolist(), wanted, first.product(vector), strict=True):
        assert exact.difference(found, truth) <= limit + own


@pytest.mark.parametrize("alpha", [1.0 + 1e-9, 1.0001, 1.01, 1.25, 1.5, 1.75, 2.0])
def test_the_gradient_of_alpha_keeps_its_digits_next_to_1(alpha):
    rows, vector = kinds(50), np.random.default_rng(1).normal(size=50)
    order = torch.full((len(rows), 1), alpha, dtype=torch.float64, requires_grad=True)
    probs = entmax(torch.from_numpy(rows), order)
    (found,) = torch.autograd.grad(probs, order, torch.from_numpy(vector).expand_as(probs))
    wanted = entmax_ref.entmax_alpha_grad(rows, alpha)
    # Both sum 50 products, with weights up to log(p)**2 / 2 of probabilities that count, 200; the rounding of scores at
    # 1e4 moves a gap by 2**-40 relative to the smallest one that is likely, 1e-3.
    limit = 2.0**-53 * 256 * 200 * np.abs(vector).max() + np.where(rows.max(-1) > 1e3, 2.0**-28, 0.0)
    assert (np.abs(found[:, 0].numpy() - wanted @ vector) <= limit).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_gradients_in_low_precision_cost_one_rounding(dtype):
    leaf, vector = draw(8, 100, dtype=dtype).requires_grad_(), draw(8, 100, seed=1, dtype=dtype)
    order = torch.tensor(1.375, dtype=dtype, requires_grad=True)
    probs = entmax(leaf, order)
    d_scores, d_alpha = torch.autograd.grad(probs, (leaf, order), vector)
    assert d_scores.dtype == d_alpha.dtype == dtype and d_alpha.shape == ()
    arrays = leaf.detach().double().numpy(), vector.double().numpy()
    wanted = entmax_ref.entmax_vjp(*arrays, 1.375)
    tiny = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    half = torch.finfo(dtype).eps / 2.0 * (1.0 + 2.0**-20)
    assert (np.abs(d_scores.double().numpy() - wanted) <= half * np.abs(wanted) + tiny + 2.0**-40).all()
    by_alpha = (entmax_ref.entmax_alpha_grad(arrays[0], 1.375) * arrays[1]).sum()
    assert abs(float(d_alpha) - by_alpha) <= half * abs(by_alpha) + 2.0**-40


def test_autocast_raises_16_bits_as_for_softmax_on_a_gpu():
    scores = draw(4, 30, dtype=torch.bfloat16).requires_grad_()
    wide = scores.detach().float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        probs = entmax(scores)
        assert entmax(wide.double()).dtype == torch.float64
    assert probs.dtype == torch.float32 and torch.equal(probs, entmax(wide))
    vector = draw(4, 30, seed=1, dtype=torch.float32)
    (found,), (wanted,) = torch.autograd.grad(probs, scores, vector), torch.autograd.grad(entmax(wide), wide, vector)
    assert torch.equal(found, wanted.bfloat16())


@pytest.mark.parametrize(
    ("error", "words", "arguments"),
    [
        (TypeError, "input must be a torch.Tensor, got list", ([0.0, 1.0],)),
        (TypeError, "input has dtype torch.int64", (torch.arange(3),)),
        (TypeError, "input has dtype torch.bool", (torch.ones(3, dtype=torch.bool),)),
        (TypeError, "input has dtype torch.complex64", (torch.ones(3, dtype=torch.complex64),)),
        (TypeError, "input has layout", (torch.ones(3).to_sparse(),)),
        (ValueError, "input has no dimension", (torch.tensor(1.0),)),
        (TypeError, "dim must be one integer", (torch.ones(2, 3), 1.5, 0.0)),
        (TypeError, "dim must be one integer", (torch.ones(2, 3), 1.5, None)),
        (ValueError, "dim is 2; input has 2 dimensions", (torch.ones(2, 3), 1.5, 2)),
        (ValueError, "dim is -3", (torch.ones(2, 3), 1.5, -3)),
        (ValueError, "alpha is 1, which is softmax", (torch.ones(3), 1)),
        (ValueError, "alpha must be a finite number above 1, got 0.5", (torch.ones(3), 0.5)),
        (ValueError, "got nan", (torch.ones(3), float("nan"))),
        (ValueError, "got inf", (torch.ones(3), 10**400)),
        (TypeError, "alpha must be a real number or a tensor, got str", (torch.ones(3), "1.5")),
        (TypeError, "alpha must be a real number or a tensor, got bool", (torch.ones(3), True)),
        (TypeError, "alpha has dtype torch.bool", (torch.ones(3), torch.tensor(True))),
        (ValueError, "alpha has shape \\(3,\\); it must broadcast", (torch.ones(2, 3), torch.full((3,), 1.5))),
        (ValueError, "alpha has shape \\(1, 1, 1\\)", (torch.ones(2, 3), torch.full((1, 1, 1), 1.5))),
        (ValueError, "alpha has shape \\(2, 1\\)", (torch.ones(2, 3), torch.full((2, 1), 1.5), 0)),
        (ValueError, "alpha holds 1.0", (torch.ones(2, 3), torch.tensor([[1.5], [1.0]]))),
        (ValueError, "alpha holds nan", (torch.ones(2, 3), torch.tensor(torch.nan))),
        (ValueError, "alpha holds inf", (torch.ones(2, 3), torch.tensor(torch.inf))),
    ],
)
def test_bad_arguments(error, words, arguments):
    with pytest.raises(error, match=f"^entmax: .*{words}"):
        entmax(*arguments)


@pytest.mark.parametrize("function", [sparsemax, entmax15])
def test_errors_name_the_function_that_was_called(function):
    with pytest.raises(ValueError, match=f"^{function.__name__}: dim is 7"):
        function(torch.ones(3), dim=7)
