"""Which keys does a query see, and does nothing that it does not see leak?"""

import numpy as np
import pytest
from attention_problems import each_alpha, problem
from exact import U

import entmax_ref
from entmax_ref import attention, attention_scores, attention_vjp


def test_causal_is_aligned_at_the_bottom_right():
    zeros = np.zeros((1, 1, 1, 1))
    for n_queries, n_keys, sizes in ((2, 4, [3, 4]), (3, 3, [1, 2, 3]), (4, 2, [0, 0, 1, 2]), (1, 3, [3])):
        query, key = np.repeat(zeros, n_queries, axis=2), np.repeat(zeros, n_keys, axis=2)
        _, aux = attention(query, key, key, is_causal=True, return_aux=True)
        np.testing.assert_array_equal(aux.support_size[0, 0], sizes)


@each_alpha
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 1e308])
def test_a_hidden_key_leaks_nothing(alpha, poison):
    """Bitwise the results of a clean hidden key, in the output and in all gradients."""
    query, key, value, d_out, _ = problem("default options, square")
    mask = np.array([True, False, True, True])
    dirty = key.copy()
    dirty[:, :, 1, 2] = poison
    clean_out, clean_aux = attention(query, key, value, alpha=alpha, mask=mask, return_aux=True)
    dirty_out, dirty_aux = attention(query, dirty, value, alpha=alpha, mask=mask, return_aux=True)
    np.testing.assert_array_equal(dirty_out, clean_out)
    np.testing.assert_array_equal(dirty_aux.tau, clean_aux.tau)
    clean = attention_vjp(query, key, value, d_out, alpha=alpha, mask=mask)
    for ours, theirs in zip(attention_vjp(query, dirty, value, d_out, alpha=alpha, mask=mask), clean, strict=True):
        assert np.all(np.isfinite(theirs))
        np.testing.assert_array_equal(ours, theirs)
    assert not clean[1][:, :, 1].any() and not clean[2][:, :, 1].any()


@each_alpha
def test_nan_reaches_the_queries_that_see_it_and_no_other(alpha):
    query, key, value, d_out, _ = problem("default options, square")
    dirty = key.copy()
    dirty[1, 0, 3] = np.nan  # causal: seen by the last query of this head alone
    options = {"alpha": alpha, "is_causal": True}
    clean_out, (out, aux) = (
        attention(query, key, value, **options),
        attention(query, dirty, value, **options, return_aux=True),
    )
    seen = np.zeros(out.shape[:3], dtype=bool)
    seen[1, 0, 3] = True
    assert np.isnan(out[seen]).all() and np.isnan(aux.tau[seen]).all() and not aux.support_size[seen].any()
    np.testing.assert_array_equal(out[~seen], clean_out[~seen])
    clean, found = (attention_vjp(query, k, value, d_out, **options) for k in (key, dirty))
    assert np.isnan(found[0][seen]).all()
    np.testing.assert_array_equal(found[0][~seen], clean[0][~seen])
    for ours, theirs in zip(found[1:], clean[1:], strict=True):
        assert np.isnan(ours[1, 0]).all()  # the last query sees every key
        ours[1, 0] = theirs[1, 0]
        np.testing.assert_array_equal(ours, theirs)


@each_alpha
def test_a_query_that_scores_infinity(alpha):
    query, key, value, d_out, _ = problem("plain")
    key[..., 0] = [1.0, 2.0, 1.0, 3.0]
    dirty = query.copy()
    dirty[0, 0, 1] = [np.inf, 0.0, 0.0, 0.0]
    key[..., 1:] = 1.0
    out = attention(dirty, key, value, alpha=alpha)
    assert np.isnan(out[0, 0, 1]).all()  # inf * 0 and inf are both undefined rows
    np.testing.assert_array_equal(out[0, 0, [0, 2]], attention(query, key, value, alpha=alpha)[0, 0, [0, 2]])
    dirty[0, 0, 1, 0], key[0, 0, :, 0] = -np.inf, np.abs(key[0, 0, :, 0])
    dirty[0, 0, 1, 1:] = 1.0
    out, aux = attention(dirty, key, value, alpha=alpha, return_aux=True)  # now every score of the row is -inf
    assert not out[0, 0, 1].any() and aux.tau[0, 0, 1] == np.inf
    for found in attention_vjp(dirty, key, value, d_out, alpha=alpha):
        assert np.isfinite(found).all()


@each_alpha
def test_queries_that_see_no_key(alpha):
    query, key, value, d_out, options = problem("causal, more queries")
    out, aux = attention(query, key, value, alpha=alpha, return_aux=True, **options)
    blind = np.arange(5) < 2
    assert not out[:, :, blind].any() and np.all(aux.tau[:, :, blind] == np.inf)
    assert not aux.support_size[:, :, blind].any() and np.all(np.isfinite(aux.tau[:, :, ~blind]))
    d_query, d_key, d_value = attention_vjp(query, key, value, d_out, alpha=alpha, **options)
    assert not d_query[:, :, blind].any()
    others = attention_vjp(query[:, :, ~blind], key, value, d_out[:, :, ~blind], alpha=alpha, **options)
    size = 8 * U * 5  # the zeros of the blind rows may change how the products are summed
    assert np.all(np.abs(d_key - others[1]) <= size * np.abs(others[1]).max())
    assert np.all(np.abs(d_value - others[2]) <= size * np.abs(others[2]).max())


@pytest.mark.parametrize(("n_queries", "n_keys"), [(5, 5), (3, 6), (6, 3), (1, 4)])
@pytest.mark.parametrize("window", [(0, 0), (2, 1), (None, 1), (2, None), (0, None), (None, None), (9, 9), None])
@pytest.mark.parametrize("is_causal", [False, True])
def test_window_is_counted_from_the_bottom_right_diagonal(n_queries, n_keys, window, is_causal):
    query, key = np.zeros((1, 1, n_queries, 2)), np.zeros((1, 1, n_keys, 2))
    seen = attention_scores(query, key, window=window, is_causal=is_causal)[0, 0] == 0.0
    left, right = window or (None, None)
    for i, j in np.ndindex(n_queries, n_keys):
        diagonal = i + n_keys - n_queries
        wanted = (left is None or j >= diagonal - left) and (right is None or j <= diagonal + right)
        assert seen[i, j] == (wanted and (not is_causal or j <= diagonal))
    _, aux = attention(query, key, key, window=window, is_causal=is_causal, return_aux=True)
    np.testing.assert_array_equal(aux.support_size[0, 0], seen.sum(axis=-1))


BIASES = {
    "full": (2, 2, 4, 4),
    "per head": (2, 1, 1),
    "of keys": (2, 1, 1, 4),
    "per query": (4, 1),
    "one": (),
    "row": (4,),
}


@pytest.mark.parametrize("kind", BIASES)
@each_alpha
def test_a_bias_is_added_and_its_gradient_is_that_of_the_scores(kind, alpha):
    query, key, value, d_out, _ = problem("default options, square")
    rng = np.random.default_rng(3)
    bias = rng.integers(-8, 9, BIASES[kind]) / 4
    if bias.ndim:
        bias[rng.random(bias.shape) < 0.3] = -np.inf
    scores = attention_scores(query, key, bias=bias)
    np.testing.assert_array_equal(scores, attention_scores(query, key) + bias)  # every sum is exact
    out = attention(query, key, value, alpha=alpha, bias=bias)
    np.testing.assert_array_equal(out, entmax_ref.entmax(scores, alpha) @ value)
    d_bias = attention_vjp(query, key, value, d_out, alpha=alpha, bias=bias, return_d_bias=True)[-1]
    d_scores = entmax_ref.entmax_vjp(scores, d_out @ np.swapaxes(value, -1, -2), alpha)
    along = tuple(axis for axis in range(4) if ((1,) * (4 - bias.ndim) + bias.shape)[axis] == 1)
    assert d_bias.shape == bias.shape and d_bias.dtype == np.float64
    wanted = d_scores.sum(axis=along, keepdims=True).reshape(bias.shape)
    size = np.abs(d_scores).sum(axis=along, keepdims=True).reshape(bias.shape)
    assert np.all(np.abs(d_bias - wanted) <= 2 * d_scores.size * U * size)
    assert not d_bias[np.broadcast_to(bias == -np.inf, bias.shape)].any()


def test_a_bias_of_minus_infinity_hides_what_a_mask_hides():
    query, key, value, d_out, options = problem("mask")
    mask = options["mask"]
    key = key.copy()
    key[0, 0, 1] = np.nan
    mask[0, 0, :, 1] = False  # NaN that is hidden stays hidden
    masked = attention_vjp(query, key, value, d_out, mask=mask)
    biased = attention_vjp(query, key, value, d_out, bias=np.where(mask, 0.0, -np.inf))
    for ours, theirs in zip(biased, masked, strict=True):
        assert np.isfinite(theirs).all()
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_poisoned_bias_reaches_its_rows_and_no_other(poison):
    query, key, value, d_out, _ = problem("default options, square")
    bias = np.zeros((4, 4))
    bias[2, 1] = poison
    out, aux = attention(query, key, value, bias=bias, return_aux=True)
    others = [0, 1, 3]
    assert np.isnan(out[:, :, 2]).all() and np.isnan(aux.tau[:, :, 2]).all()
    np.testing.assert_array_equal(out[:, :, others], attention(query, key, value)[:, :, others])
    found = attention_vjp(query, key, value, d_out, bias=bias, return_d_alpha=True, return_d_bias=True)
    assert np.isnan(found[3]) and np.isnan(found[4][2]).all() and np.isfinite(found[4][others]).all()
