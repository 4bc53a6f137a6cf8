"""Is attention what its docstring states, with the gradients that follow, and does nothing hidden leak?

Operands are multiples of 1/4 in [-2, 2] and head_dim is 4, so that scale is 1/2, every score is exact in
float64, and the only errors are those of the rows and of the last products.
"""

import re
import sys
import tracemalloc
from dataclasses import FrozenInstanceError

import exact
import numpy as np
import pytest
from exact import U
from lemmas import lemma

import entmax_ref
from entmax_ref import AttentionAux, attention, attention_scores, attention_vjp
from entmax_ref.packed import attention_varlen, attention_varlen_vjp

HEAD_DIM = 4
MODULE = sys.modules["entmax_ref.attention_problem"]
SHAPES = {  # batch, heads, kv_heads, n_queries, n_keys, value_dim, options
    "plain": (1, 1, 1, 3, 4, 4, {}),
    "default options, square": (2, 2, 2, 4, 4, 4, {}),
    "causal": (1, 2, 2, 4, 4, 3, {"is_causal": True}),
    "causal, more keys": (1, 1, 1, 2, 5, 2, {"is_causal": True}),
    "causal, more queries": (1, 2, 2, 5, 3, 2, {"is_causal": True}),
    "groups": (2, 4, 2, 3, 4, 2, {"enable_gqa": True}),
    "one key head": (1, 3, 1, 3, 3, 5, {"enable_gqa": True, "is_causal": True}),
    "one query": (1, 1, 1, 1, 6, 1, {}),
    "scale": (1, 2, 2, 3, 4, 4, {"scale": 0.25}),
    "negative scale": (1, 1, 1, 3, 4, 4, {"scale": -1}),
    "mask": (2, 2, 2, 3, 4, 4, {"mask": "per head"}),
    "mask of keys": (2, 2, 1, 3, 4, 4, {"mask": "of keys", "enable_gqa": True}),
    "mask and causal": (1, 2, 2, 4, 5, 3, {"mask": "per query", "is_causal": True}),
}
each_shape = pytest.mark.parametrize("shape", SHAPES)
each_alpha = pytest.mark.parametrize("alpha", [1.25, 1.5, 1.75, 2.0, 2.5])


def problem(shape, seed=0):
    """Return query, key, value, d_out and the options of a named shape."""
    batch, heads, kv_heads, n_queries, n_keys, value_dim, options = SHAPES[shape]
    rng = np.random.default_rng([seed, *shape.encode()])
    query, key, value, d_out = (
        rng.integers(-8, 9, size) / 4
        for size in (
            (batch, heads, n_queries, HEAD_DIM),
            (batch, kv_heads, n_keys, HEAD_DIM),
            (batch, kv_heads, n_keys, value_dim),
            (batch, heads, n_queries, value_dim),
        )
    )
    options = dict(options)
    if "mask" in options:
        size = {
            "per head": (batch, heads, n_queries, n_keys),
            "of keys": (batch, 1, 1, n_keys),
            "per query": (n_queries, n_keys),
        }[options["mask"]]
        options["mask"] = rng.random(size) < 0.6
    return query, key, value, d_out, options


def scores_by_the_definition(query, key, is_causal=False, scale=None, enable_gqa=False, mask=None):
    """Return the scores of `attention`, one at a time."""
    batch, heads, n_queries, head_dim = query.shape
    n_keys = key.shape[2]
    group = heads // key.shape[1]
    assert enable_gqa or group == 1
    scale = 1 / np.sqrt(head_dim) if scale is None else scale
    mask = np.broadcast_to(True if mask is None else mask, (batch, heads, n_queries, n_keys))
    scores = np.full((batch, heads, n_queries, n_keys), -np.inf)
    for b, h, i, j in np.ndindex(scores.shape):
        last_seen = i + n_keys - n_queries if is_causal else n_keys - 1
        if j <= last_seen and mask[b, h, i, j]:
            scores[b, h, i, j] = scale * sum(query[b, h, i, c] * key[b, h // group, j, c] for c in range(head_dim))
    return scores


def per_query_head(array, heads):
    """Return keys or values repeated so that each query head has its own."""
    return np.repeat(array, heads // array.shape[1], axis=1)


def summed_over_groups(array, kv_heads):
    """Return the sum over the query heads that share a key head."""
    batch, heads, *rest = array.shape
    return array.reshape(batch, kv_heads, heads // kv_heads, *rest).sum(axis=2)


def exact_rows(scores, d_probs, alpha):
    """Return probabilities, d_scores and bounds of both, by high precision; None if a gap is too small."""
    found = [np.zeros(scores.shape) for _ in range(4)]
    for row in np.ndindex(scores.shape[:-1]):
        if np.all(scores[row] == -np.inf):
            continue
        d_bound = exact.vjp_bound(scores[row], d_probs[row], alpha)
        if d_bound is None:
            return None
        ends = [exact.probs_range(gap, scores.shape[-1], alpha) for gap in exact.gaps(scores[row], alpha)]
        found[0][row] = [float(p) for p in exact.probs(scores[row], alpha)]
        found[1][row] = [float(d) for d in exact.vjp(scores[row], d_probs[row], alpha)]
        found[2][row] = [float(hi - lo) for lo, hi in ends]
        found[3][row] = d_bound
    return found


def assert_close(found, wanted, carried, magnitude, terms):
    """Check an array of sums against what their inputs carry and (2 * terms + 3) U of the magnitudes.

    A sum of products errs by terms U in any order, the reference by the same and one rounding of its factors.
    """
    assert found.shape == wanted.shape and found.dtype == np.float64
    assert np.all(np.abs(found - wanted) <= carried + (2 * terms + 3) * U * magnitude)


def seed_away_from_edges(shape, alpha):
    """Return the first problem of a shape in which no key lies within rounding of the edge of the support."""
    for seed in range(50):
        query, key, value, d_out, options = problem(shape, seed)
        scores = scores_by_the_definition(query, key, **options)
        d_probs = d_out @ np.swapaxes(per_query_head(value, query.shape[1]), -1, -2)  # exact
        rows = exact_rows(scores, d_probs, alpha)
        if rows is not None:
            return query, key, value, d_out, options, scores, rows
    raise AssertionError("no seed will do")


@each_shape
def test_scores_are_those_of_the_definition(shape):
    query, key, _, _, options = problem(shape)
    np.testing.assert_array_equal(
        attention_scores(query, key, **options), scores_by_the_definition(query, key, **options)
    )


@each_shape
@each_alpha
@lemma("jacobian_form")
def test_output_and_gradients_against_high_precision(shape, alpha):
    query, key, value, d_out, options, scores, rows = seed_away_from_edges(shape, alpha)
    probs, d_scores, probs_error, d_scores_error = rows
    heads, kv_heads = query.shape[1], key.shape[1]
    n_queries, n_keys = scores.shape[2:]
    keys, values = per_query_head(key, heads), per_query_head(value, heads)
    scale = abs(options.get("scale", 0.5))
    sign = np.sign(options.get("scale", 0.5))

    out, aux = attention(query, key, value, alpha=alpha, return_aux=True, **options)
    np.testing.assert_array_equal(out, attention(query, key, value, alpha=alpha, **options))
    assert_close(out, probs @ values, probs_error @ np.abs(values), probs @ np.abs(values), n_keys)
    np.testing.assert_array_equal(aux.support_size, np.count_nonzero(probs > 0, axis=-1))
    np.testing.assert_array_equal(aux.tau, entmax_ref.threshold(scores, alpha))

    d_query, d_key, d_value = attention_vjp(query, key, value, d_out, alpha=alpha, **options)
    assert_close(
        d_query,
        sign * scale * d_scores @ keys,
        scale * d_scores_error @ np.abs(keys),
        scale * np.abs(d_scores) @ np.abs(keys),
        n_keys,
    )

    def gathered(weights, array):
        return summed_over_groups(np.swapaxes(weights, -1, -2) @ array, kv_heads)

    terms = n_queries * heads // kv_heads
    assert_close(
        d_key,
        sign * scale * gathered(d_scores, query),
        scale * gathered(d_scores_error, np.abs(query)),
        scale * gathered(np.abs(d_scores), np.abs(query)),
        terms,
    )
    assert_close(
        d_value,
        gathered(probs, d_out),
        gathered(probs_error, np.abs(d_out)),
        gathered(probs, np.abs(d_out)),
        terms,
    )


def exact_loss(query, key, value, d_out, alpha, options):
    """Return sum(out * d_out) in high precision, for object arrays of Fractions."""
    scores = scores_by_the_definition_in_fractions(query, key, options)
    values = per_query_head(value, query.shape[1])
    loss = exact.CONTEXT.mpf(0)
    for b, h, i in np.ndindex(query.shape[:3]):
        row = scores[b, h, i]
        if all(score == -np.inf for score in row):
            continue
        d_probs = [exact.exact(sum(d_out[b, h, i] * values[b, h, j])) for j in range(len(row))]
        loss += exact.CONTEXT.fdot(exact.probs(row, alpha, bits=210), d_probs)
    return loss


def scores_by_the_definition_in_fractions(query, key, options):
    """Return the scores as Fractions, and -inf where not visible, which the float scores decide."""
    hidden = scores_by_the_definition(query.astype(float), key.astype(float), **options) == -np.inf
    keys = per_query_head(key, query.shape[1])
    scale = exact.Fraction(options.get("scale", 0.5))
    scores = np.empty(hidden.shape, dtype=object)
    for b, h, i, j in np.ndindex(hidden.shape):
        scores[b, h, i, j] = -np.inf if hidden[b, h, i, j] else scale * sum(query[b, h, i] * keys[b, h, j])
    return scores


@pytest.mark.parametrize("shape", ["causal", "groups", "mask and causal", "scale"])
@pytest.mark.parametrize("alpha", [1.25, 1.5, 2.0])
@lemma("jacobian_form", "query_gradient", "key_gradient", "value_gradient")
def test_gradients_against_finite_differences(shape, alpha):
    """The derivative of the exact loss along one direction of all operands at once, with a step of 2**-60."""
    query, key, value, d_out, options, _, rows = seed_away_from_edges(shape, alpha)
    operands = query, key, value
    rng = np.random.default_rng(9)
    directions = [rng.integers(-8, 9, array.shape) / 8 for array in operands]
    step = exact.Fraction(1, 2**60)
    to_fractions = np.vectorize(exact.Fraction, otypes=[object])
    ends = []
    for sign in (1, -1):
        moved = [
            to_fractions(array) + sign * step * to_fractions(direction)
            for array, direction in zip(operands, directions, strict=True)
        ]
        ends.append(exact_loss(*moved, to_fractions(d_out), alpha, options))
    quotient = (ends[0] - ends[1]) / (2 * exact.exact(step))

    gradients = attention_vjp(*operands, d_out, alpha=alpha, **options)
    found = exact.CONTEXT.fsum(
        exact.exact(float(g)) * exact.exact(float(d))
        for gradient, direction in zip(gradients, directions, strict=True)
        for g, d in zip(gradient.flat, direction.flat, strict=True)
    )
    # The bounds of the test above, with operands at most 2 and directions at most 1 in every entry; the
    # quotient itself is off by a third derivative times 2**-120, which is nothing beside them.
    probs, d_scores, probs_error, d_scores_error = rows
    terms = query.shape[1] * (query.shape[2] + key.shape[2])
    carried = 2 * 2 * HEAD_DIM * 2 * d_scores_error.sum() + 2 * value.shape[3] * probs_error.sum()
    rounded = (2 * terms + 3) * U * (2 * 2 * HEAD_DIM * 2 * np.abs(d_scores).sum() + 2 * value.shape[3] * probs.sum())
    assert float(abs(found - quotient)) <= carried + rounded


@each_shape
@pytest.mark.parametrize("alpha", [1.5, 1.75, 2.0])
@lemma("delta_is_centre")
def test_the_mean_that_the_gradient_subtracts_is_centre_times_d_out(shape, alpha):
    """What lets a kernel save one vector per row: delta = centre . d_out, with centre known in the forward."""
    query, key, value, d_out, options, _, (probs, _, _, d_scores_error) = seed_away_from_edges(shape, alpha)
    heads, n_keys = query.shape[1], key.shape[2]
    keys, values = per_query_head(key, heads), per_query_head(value, heads)
    sensitivity = np.where(probs > 0, np.where(probs > 0, probs, 1.0) ** (2 - alpha), 0.0)
    total = sensitivity.sum(axis=-1, keepdims=True)
    centre = sensitivity @ values / np.where(total > 0, total, 1.0)
    delta = np.sum(centre * d_out, axis=-1, keepdims=True)
    d_scores = sensitivity * (d_out @ np.swapaxes(values, -1, -2) - delta)
    size = sensitivity * 2 * np.max(np.abs(d_out) @ np.swapaxes(np.abs(values), -1, -2), axis=-1, keepdims=True)
    scale = options.get("scale", 0.5)
    d_query = attention_vjp(query, key, value, d_out, alpha=alpha, **options)[0]
    carried, magnitude = (abs(scale) * part @ np.abs(keys) for part in (d_scores_error, size))
    # sums over the keys for total and centre, over value_dim for delta, 4 U for each sensitivity in all of them
    terms = 3 * n_keys + value.shape[3] + 4 * 4
    assert_close(d_query, scale * d_scores @ keys, carried, magnitude, terms)


def test_default_options_are_dense_entmax_with_the_usual_scale():
    rng = np.random.default_rng(4)
    query, key, value = rng.normal(size=(3, 2, 3, 7, 6))
    scores = np.einsum("bhic,bhjc->bhij", query, key) / np.sqrt(6)
    out = attention(query, key, value)
    # The roundings of a sum of 6 products and of the scale, in both evaluations, move z by half as much, tau by
    # as much as z, and gap ** 2 by twice as much as both, for each of 7 keys.
    size = np.einsum("bhic,bhjc->bhij", np.abs(query), np.abs(key)).max() / np.sqrt(6)
    z_error = 0.5 * 2 * (6 + 3) * U * size
    slack = 7 * np.abs(value).max() * (2 * (2 * z_error + exact.gap_bound(7, 1.5)) + 2 * 7 * U)
    assert np.all(np.abs(out - entmax_ref.entmax(scores) @ value) <= slack)


def test_causal_is_aligned_at_the_bottom_right():
    zeros = np.zeros((1, 1, 1, 1))
    for n_queries, n_keys, sizes in ((2, 4, [3, 4]), (3, 3, [1, 2, 3]), (4, 2, [0, 0, 1, 2]), (1, 3, [3])):
        query, key = np.repeat(zeros, n_queries, axis=2), np.repeat(zeros, n_keys, axis=2)
        _, aux = attention(query, key, key, is_causal=True, return_aux=True)
        np.testing.assert_array_equal(aux.support_size[0, 0], sizes)


def test_query_head_uses_the_key_head_of_its_group():
    query, key = np.zeros((1, 6, 1, 1)), np.zeros((1, 3, 1, 1))
    value = np.arange(3.0).reshape(1, 3, 1, 1)
    out = attention(query, key, value, enable_gqa=True)
    np.testing.assert_array_equal(out[0, :, 0, 0], [0, 0, 1, 1, 2, 2])


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


@each_shape
@pytest.mark.parametrize("scores_per_chunk", [1, 20])
def test_chunks_change_nothing_but_the_order_of_sums(shape, scores_per_chunk, monkeypatch):
    query, key, value, d_out, options = problem(shape)
    whole, aux = attention(query, key, value, return_aux=True, **options)
    gradients = attention_vjp(query, key, value, d_out, **options)
    monkeypatch.setattr(MODULE, "SCORES_PER_CHUNK", scores_per_chunk)
    out, chunk_aux = attention(query, key, value, return_aux=True, **options)
    n = query.shape[1] * (query.shape[2] + key.shape[2])  # more than the terms of any sum
    limit = np.abs(value).sum(axis=2, keepdims=True).max()
    assert np.all(np.abs(out - whole) <= 2 * n * U * limit)
    row_max = np.max(np.where(np.isfinite(aux.tau), np.abs(aux.tau), 0.0)) + 1
    np.testing.assert_array_equal(aux.support_size, chunk_aux.support_size)
    finite = np.isfinite(aux.tau)
    np.testing.assert_array_equal(aux.tau[~finite], chunk_aux.tau[~finite])
    moved = np.abs(aux.tau[finite] - chunk_aux.tau[finite])
    assert np.all(moved <= 2 * exact.tau_bound(key.shape[2], row_max, 1.5))
    # Sensitivities are at most 1, operands at most 2: no term of a gradient exceeds 2 * value_dim * 4 * 2.
    largest = 16 * value.shape[3]
    for ours, theirs in zip(attention_vjp(query, key, value, d_out, **options), gradients, strict=True):
        assert np.all(np.abs(ours - theirs) <= n * largest * (n * U + 4 * exact.gap_bound(key.shape[2], 1.5)))


def test_long_inputs_need_no_dense_score_matrix(monkeypatch):
    n = 2048
    monkeypatch.setattr(MODULE, "SCORES_PER_CHUNK", 2**16)
    query, key, value, d_out = np.random.default_rng(0).normal(size=(4, 1, 1, n, HEAD_DIM))
    tracemalloc.start()
    try:
        attention(query, key, value, is_causal=True)
        attention_vjp(query, key, value, d_out, is_causal=True)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # about ten arrays of a chunk, as the constant says, twice that for the gradients, and a few of length n
    assert peak <= 20 * 8 * 2**16 + 20 * query.nbytes < n * n * 8


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int32])
def test_every_real_dtype_is_raised_and_nothing_is_modified(dtype):
    query, key, value, d_out, options = problem("groups")
    low = [(4 * array).astype(dtype) for array in (query, key, value, d_out)]
    for array in low:
        array.flags.writeable = False
    high = [array.astype(np.float64) for array in low]
    np.testing.assert_array_equal(attention(*low[:3], **options), attention(*high[:3], **options))
    for ours, theirs in zip(attention_vjp(*low, **options), attention_vjp(*high, **options), strict=True):
        assert ours.dtype == np.float64
        np.testing.assert_array_equal(ours, theirs)


def test_operands_need_not_be_contiguous():
    query, key, value, d_out, options = problem("groups")
    spaced = [
        np.repeat(array, 2, axis=3)[..., ::2].transpose(0, 2, 1, 3).copy() for array in (query, key, value, d_out)
    ]
    turned = [array.transpose(0, 2, 1, 3) for array in spaced]
    np.testing.assert_array_equal(attention_scores(*turned[:2], **options), attention_scores(query, key, **options))
    assert attention(*turned[:3], **options).shape == d_out.shape
    for ours, array in zip(attention_vjp(*turned, **options), (query, key, value), strict=True):
        assert ours.shape == array.shape


def test_nothing_to_do_is_no_error():
    query, key = np.empty((0, 2, 3, 4)), np.empty((0, 2, 5, 4))
    assert attention(query, key, key).shape == (0, 2, 3, 4)
    assert [array.shape for array in attention_vjp(query, key, key, query)] == [
        query.shape,
        key.shape,
        key.shape,
    ]
    no_queries, keys = np.empty((1, 2, 0, 4)), np.ones((1, 2, 5, 4))
    out, aux = attention(no_queries, keys, keys, return_aux=True)
    assert out.shape == (1, 2, 0, 4) and aux.tau.shape == (1, 2, 0)
    assert not attention_vjp(no_queries, keys, keys, no_queries)[1].any()


def test_aux_is_frozen():
    aux = AttentionAux(np.zeros(1), np.ones(1, dtype=np.int64))
    with pytest.raises(FrozenInstanceError):
        aux.tau = np.ones(1)


ONES = np.ones((2, 4, 3, 8))
BAD_OPERANDS = [
    (
        {"query": ONES[0]},
        ValueError,
        "query must have the four axes (batch, heads, length, head_dim); its shape is (4, 3",
    ),
    (
        {"key": ONES * 1j},
        TypeError,
        "key must be real and numeric; its dtype is complex128. Pass its real part",
    ),
    (
        {"query": ONES[..., :4]},
        ValueError,
        "query and key must share a head_dim of at least 1; their shapes are (2, 4, 3",
    ),
    (
        {"query": ONES[..., :0], "key": ONES[..., :0]},
        ValueError,
        "query and key must share a head_dim of at least 1;",
    ),
    (
        {"key": ONES[:1]},
        ValueError,
        "key must have the batch of query, 2; its shape is (1, 4, 3, 8). Repeat the smaller",
    ),
    (
        {"key": ONES[:, :2]},
        ValueError,
        "query and key must have the same number of heads; they have 4 and 2. Pass enable_",
    ),
    (
        {"key": ONES[:, :3], "enable_gqa": True},
        ValueError,
        "must be a multiple of those of key; they are 4 and 3. Repeat",
    ),
    (
        {"key": ONES[:, :0], "enable_gqa": True},
        ValueError,
        "must be a multiple of those of key; they are 4 and 0. Repeat",
    ),
    (
        {"enable_gqa": 1},
        TypeError,
        "enable_gqa must be True or False; it is 1 of type int. Pass enable_gqa=True or",
    ),
    (
        {"is_causal": ONES},
        TypeError,
        "is_causal must be True or False; it is array(",
    ),
    (
        {"scale": "1"},
        TypeError,
        "scale must be one real number or None; it is '1' of type str. Pass None for head_dim",
    ),
    ({"scale": True}, TypeError, "scale must be one real number or None; it is True of type bool."),
    (
        {"scale": np.inf},
        ValueError,
        "scale must be finite; it is inf. Pass None for head_dim ** -0.5 = 0.35355",
    ),
    (
        {"mask": np.ones((3, 3))},
        TypeError,
        "mask must be boolean, True where the key is visible; its dtype is float64.",
    ),
    (
        {"mask": np.ones(2, bool)},
        ValueError,
        "mask must broadcast to shape (2, 4, 3, 3); its shape is (2,). Insert axes",
    ),
]
BAD_VALUES = [
    (
        {"value": ONES[:, :, :2]},
        ValueError,
        "value must have the heads and the length of key, (4, 3); its shape is (2, 4, 2",
    ),
    (
        {"value": ONES[:, :2]},
        ValueError,
        "value must have the heads and the length of key, (4, 3); its shape is (2, 2, 3",
    ),
    ({"value": ONES[:1]}, ValueError, "value must have the batch of query, 2; its shape is (1, 4, 3, 8)."),
    ({"value": ["a"]}, TypeError, "value must be real and numeric; its dtype is <U1."),
    ({"alpha": 1.0}, ValueError, "alpha must be above 1; it is 1.0, and alpha=1 is softmax"),
    ({"alpha": np.nan}, ValueError, "alpha must be finite and above 1; it is nan."),
]


def assert_refused(function, arguments, error, message):
    with pytest.raises(error, match=f"^{function}: .*{re.escape(message)}"):
        getattr(entmax_ref, function)(**arguments)


@pytest.mark.parametrize("function", ["attention", "attention_vjp", "attention_scores"])
@pytest.mark.parametrize(("arguments", "error", "message"), BAD_OPERANDS)
def test_a_bad_operand_or_option_is_named_with_its_rule_its_value_and_a_way_out(function, arguments, error, message):
    rest = {"attention": ["value"], "attention_vjp": ["value", "d_out"], "attention_scores": []}[function]
    assert_refused(function, {**dict.fromkeys(["query", "key", *rest], ONES), **arguments}, error, message)


@pytest.mark.parametrize("function", ["attention", "attention_vjp"])
@pytest.mark.parametrize(("arguments", "error", "message"), BAD_VALUES)
def test_a_bad_value_or_alpha_is_named(function, arguments, error, message):
    rest = ["d_out"] if function == "attention_vjp" else []
    assert_refused(function, {**dict.fromkeys(["query", "key", "value", *rest], ONES), **arguments}, error, message)


def test_a_bad_d_out_or_return_aux_is_named():
    operands = dict.fromkeys(["query", "key", "value"], ONES)
    message = "d_out must have the shape of the output, (batch, heads, n_queries, value_dim), (2, 4, 3, 8); "
    assert_refused("attention_vjp", {**operands, "d_out": ONES[0]}, ValueError, message)
    assert_refused("attention_vjp", {**operands, "d_out": ONES * 1j}, TypeError, "d_out must be real and numeric;")
    assert_refused(
        "attention",
        {**operands, "return_aux": 1},
        TypeError,
        "return_aux must be True or False; it is 1 of type int",
    )


# Options beyond those above: windows, an additive bias, one alpha per head, gradients for both, and packed sequences.


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


MIXED_ALPHAS = np.array([1.25, 1.5, 2.0, 2.5])


def test_one_alpha_per_head():
    """Head by head the results of that alpha alone; a power computed for an array may round otherwise."""
    query, key, value, d_out, options = problem("groups")
    out, aux = attention(query, key, value, alpha=MIXED_ALPHAS, return_aux=True, **options)
    found = attention_vjp(query, key, value, d_out, alpha=MIXED_ALPHAS, return_d_alpha=True, **options)
    assert found[3].shape == (4,)
    d_key, d_value = np.zeros_like(key), np.zeros_like(value)
    limit = 64 * U
    for head, alpha in enumerate(MIXED_ALPHAS):
        of_key = slice(head // 2, head // 2 + 1)
        alone = query[:, head : head + 1], key[:, of_key], value[:, of_key]
        one, one_aux = attention(*alone, alpha=alpha, return_aux=True)
        np.testing.assert_array_equal(aux.tau[:, head], one_aux.tau[:, 0])
        assert np.max(np.abs(out[:, head] - one[:, 0])) <= limit
        gradients = attention_vjp(*alone, d_out[:, head : head + 1], alpha=alpha, return_d_alpha=True)
        assert gradients[3].shape == () and isinstance(gradients[3], np.ndarray)
        assert np.max(np.abs(found[0][:, head] - gradients[0][:, 0])) <= 64 * limit
        assert abs(found[3][head] - gradients[3]) <= 256 * limit * (1.0 + abs(gradients[3]))
        d_key[:, of_key] += gradients[1]
        d_value[:, of_key] += gradients[2]
    assert np.max(np.abs(found[1] - d_key)) <= 64 * limit and np.max(np.abs(found[2] - d_value)) <= 64 * limit
    same = attention_vjp(query, key, value, d_out, alpha=np.full(4, 1.5), return_d_alpha=True, **options)
    scalar = attention_vjp(query, key, value, d_out, alpha=1.5, return_d_alpha=True, **options)
    assert abs(same[3].sum() - scalar[3]) <= 64 * U * np.abs(same[3]).sum()


@pytest.mark.parametrize("shape", ["causal", "mask and causal", "plain"])
@pytest.mark.parametrize("alpha", [1.0625, 1.25, 1.5, 1.75, 2.0, 2.5])
def test_d_alpha_against_high_precision_differences(shape, alpha):
    """The exact loss at alpha +- 2**-60, with scores held fixed: the quotient is off by 2**-120 times a derivative."""
    query, key, value, d_out, options, scores, rows = seed_away_from_edges(shape, alpha)
    step = exact.Fraction(1, 2**60)
    values = per_query_head(value, query.shape[1])
    d_probs = d_out @ np.swapaxes(values, -1, -2)  # exact
    ends, bound = [], 0.0
    for sign in (1, -1):
        order = exact.Fraction(alpha) + sign * step
        loss = exact.CONTEXT.mpf(0)
        for row in np.ndindex(scores.shape[:-1]):
            if np.all(scores[row] == -np.inf):
                continue
            probs = exact.probs(scores[row], order, bits=210)
            loss += exact.CONTEXT.fdot(probs, [exact.exact(float(d)) for d in d_probs[row]])
        ends.append(loss)
    quotient = (ends[0] - ends[1]) / (2 * exact.exact(step))
    # d_alpha = -sum(d_scores * w) with w = (1 - gap * (1 - log(gap))) / (alpha - 1) ** 2, whose derivative for the gap
    # is log(gap) / (alpha - 1) ** 2: what the bounds of d_scores and of the gap carry into it, and n roundings a sum.
    n = scores.shape[-1]
    for row in np.ndindex(scores.shape[:-1]):
        if np.all(scores[row] == -np.inf):
            continue
        gap = np.array([max(float(g), 0.0) for g in exact.gaps(scores[row], alpha)])
        live = gap > 0.0
        log = np.log(np.where(live, gap, 1.0))
        w = np.where(live, (1.0 - gap * (1.0 - log)) / (alpha - 1.0) ** 2, 0.0)
        w_error = np.abs(log) * exact.gap_bound(n, alpha) / (alpha - 1.0) ** 2 + 16 * U * w
        bound += np.sum(rows[3][row] * w.max() + np.abs(rows[1][row]) * w_error)
        spread = np.ptp(d_probs[row][live])
        # the other order of summation, d_probs times d probs / d alpha, has terms of this size
        sensitivity = np.where(live, np.where(live, gap, 1.0) ** ((2.0 - alpha) / (alpha - 1.0)), 0.0)
        relative = np.abs(2.0 - alpha) / (alpha - 1.0) * exact.gap_bound(n, alpha) / np.where(live, gap, 1.0)
        bound += 2.0 * spread * np.sum(sensitivity * (w_error.max() + (relative + 4 * n * U) * w.max()))
    found = attention_vjp(query, key, value, d_out, alpha=alpha, return_d_alpha=True, **options)[3]
    assert found.shape == ()
    assert float(abs(exact.exact(float(found)) - quotient)) <= 2.0 * bound + 2.0**-100


@pytest.mark.parametrize("alpha", [1.0 + 2.0**-10, 1.0 + 2.0**-20, 1.0 + 2.0**-30])
def test_d_alpha_keeps_its_digits_near_softmax(alpha):
    """It tends to -sum(d_scores * log(p) ** 2) / 2, off by a multiple of alpha - 1; naive forms lose it altogether."""
    query, key, value, d_out, _ = problem("default options, square")
    scores = attention_scores(query, key)
    p = np.exp(scores - scores.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    d_probs = d_out @ np.swapaxes(value, -1, -2)
    d_scores = p * (d_probs - np.sum(p * d_probs, axis=-1, keepdims=True))
    limit = -0.5 * np.sum(d_scores * np.log(p) ** 2)
    found = attention_vjp(query, key, value, d_out, alpha=alpha, return_d_alpha=True)[3]
    cubes = np.sum(np.abs(d_scores) * (1.0 + np.abs(np.log(p))) ** 4) + np.sum(p * (1.0 + np.log(p) ** 4)) * 64
    assert abs(found - limit) <= (alpha - 1.0) * cubes + 1e-12 * cubes


PACKED = {
    "usual": ([0, 3, 4, 9], [0, 2, 7, 12]),
    "no queries, no keys": ([0, 3, 3, 5, 9], [0, 4, 6, 6, 12]),
    "one": ([0, 9], [0, 12]),
    "nothing first and last": ([0, 0, 9, 9], [0, 0, 12, 12]),
}


@pytest.mark.parametrize("lengths", PACKED)
@pytest.mark.parametrize(
    "options", [{}, {"is_causal": True}, {"window": (1, 1)}, {"alpha": np.array([1.25, 1.5, 1.75, 2.0])}]
)
def test_packed_sequences_are_those_sequences_alone(lengths, options):
    rng = np.random.default_rng(0)
    sizes = ((9, 4, 6), (12, 2, 6), (12, 2, 3), (9, 4, 3))
    query, key, value, d_out = (rng.integers(-8, 9, size) / 4 for size in sizes)
    key[11] = np.nan  # the last sequence is poisoned, and no other
    of_queries, of_keys = PACKED[lengths]
    out, aux = attention_varlen(query, key, value, of_queries, of_keys, enable_gqa=True, return_aux=True, **options)
    plain = attention_varlen(query, key, value, of_queries, of_keys, enable_gqa=True, **options)
    np.testing.assert_array_equal(out, plain)
    gradients = attention_varlen_vjp(
        query, key, value, d_out, of_queries, of_keys, enable_gqa=True, return_d_alpha=True, **options
    )
    three = attention_varlen_vjp(query, key, value, d_out, of_queries, of_keys, enable_gqa=True, **options)
    for ours, theirs in zip(gradients[:3], three, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    d_alpha = np.zeros(np.shape(options.get("alpha", 1.5)))
    for s in range(len(of_queries) - 1):
        q, k = slice(*of_queries[s : s + 2]), slice(*of_keys[s : s + 2])
        if q.start == q.stop or k.start == k.stop:
            assert not out[q].any() and np.all(aux.tau[:, q] == np.inf) and not aux.support_size[:, q].any()
            assert not gradients[0][q].any() and not gradients[1][k].any() and not gradients[2][k].any()
            continue
        alone = [array.swapaxes(0, 1)[None] for array in (query[q], key[k], value[k])]
        wanted, wanted_aux = attention(*alone, enable_gqa=True, return_aux=True, **options)
        np.testing.assert_array_equal(out[q], wanted[0].swapaxes(0, 1))
        np.testing.assert_array_equal(aux.tau[:, q], wanted_aux.tau[0])
        np.testing.assert_array_equal(aux.support_size[:, q], wanted_aux.support_size[0])
        d_alone = d_out[q].swapaxes(0, 1)[None]
        parts = attention_vjp(*alone, d_alone, enable_gqa=True, return_d_alpha=True, **options)
        for packed, part, place in zip(gradients, parts[:3], (q, k, k), strict=False):
            np.testing.assert_array_equal(packed[place], part[0].swapaxes(0, 1))
        d_alpha = d_alpha + parts[3]
    assert gradients[3].shape == d_alpha.shape
    np.testing.assert_array_equal(np.isnan(gradients[3]), np.isnan(d_alpha))


def test_packed_with_nothing_in_it():
    none, some = np.empty((0, 2, 4)), np.ones((3, 2, 4))
    assert attention_varlen(none, some, some, [0, 0], [0, 3]).shape == (0, 2, 4)
    assert not attention_varlen(some, none, none, [0, 3], [0, 0]).any()
    found = attention_varlen_vjp(some, none, none, some, [0, 3], [0, 0], return_d_alpha=True)
    assert [array.shape for array in found] == [(3, 2, 4), (0, 2, 4), (0, 2, 4), ()] and not found[0].any()
    assert attention_varlen(none, none, none, [0], [0]).shape == (0, 2, 4)


@pytest.mark.slow
def test_length_8192_needs_no_dense_score_matrix():
    """One head of 8192 x 8192 scores is 512 MiB; the peak stays below a third of that."""
    n = 8192
    query, key, value, d_out = np.random.default_rng(0).normal(size=(4, 1, 1, n, HEAD_DIM))
    tracemalloc.start()
    try:
        out = attention(query, key, value, is_causal=True)
        few = np.s_[:, :, -512:]
        part = attention_vjp(query[few], key, value, d_out[few], is_causal=True, return_d_alpha=True)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert np.isfinite(out).all() and np.isfinite(part[3])
    assert 3 * peak <= 8 * n * n


BAD_OPTIONS = [
    (
        {"bias": np.ones((3, 3), bool)},
        TypeError,
        "bias must hold numbers to add to the scores; its dtype is bool. Pass",
    ),
    ({"bias": np.ones((3, 3)) * 1j}, TypeError, "bias must be real and numeric; its dtype is complex128."),
    ({"bias": np.ones(2)}, ValueError, "bias must broadcast to shape (2, 4, 3, 3); its shape is (2,). Insert axes"),
    ({"window": 3}, TypeError, "window must be None or a pair (left, right); it is 3. Pass for example"),
    ({"window": (1, 2, 3)}, TypeError, "window must be None or a pair (left, right); it is (1, 2, 3)."),
    ({"window": (1.0, 2)}, TypeError, "window must hold integers or None; it is (1.0, 2)."),
    ({"window": (True, 2)}, TypeError, "window must hold integers or None; it is (True, 2)."),
    ({"window": (-1, 0)}, ValueError, "window must not be negative; it is (-1, 0). Pass None for a side without"),
]


@pytest.mark.parametrize("function", ["attention", "attention_vjp", "attention_scores"])
@pytest.mark.parametrize(("arguments", "error", "message"), BAD_OPTIONS)
def test_a_bad_bias_or_window_is_named(function, arguments, error, message):
    rest = {"attention": ["value"], "attention_vjp": ["value", "d_out"], "attention_scores": []}[function]
    assert_refused(function, {**dict.fromkeys(["query", "key", *rest], ONES), **arguments}, error, message)


@pytest.mark.parametrize(
    ("alpha", "error", "message"),
    [
        (np.full(3, 1.5), ValueError, "alpha must be one number or have one entry per head of query, shape (4,); its"),
        (np.full((1, 4), 1.5), ValueError, "alpha must be one number or have one entry per head of query, shape (4,)"),
        ([1.5, 1.5, 1.5, 1.0], ValueError, "head 3: alpha must be above 1; it is 1.0, and alpha=1 is softmax"),
        ([1.5, np.nan, 1.5, 1.5], ValueError, "head 1: alpha must be finite and above 1; it is nan."),
        (["a"] * 4, TypeError, "alpha must be real and numeric; its dtype is <U1."),
    ],
)
@pytest.mark.parametrize("function", ["attention", "attention_vjp"])
def test_a_bad_alpha_of_heads_is_named(function, alpha, error, message):
    rest = ["d_out"] if function == "attention_vjp" else []
    assert_refused(function, {**dict.fromkeys(["query", "key", "value", *rest], ONES), "alpha": alpha}, error, message)


def test_a_bad_flag_of_the_gradient_is_named():
    operands = dict.fromkeys(["query", "key", "value", "d_out"], ONES)
    message = "return_d_bias needs a bias; it is None. Pass that of the forward, or zeros."
    assert_refused("attention_vjp", {**operands, "return_d_bias": True}, ValueError, message)
    message = "return_d_alpha must be True or False; it is 1 of type int"
    assert_refused("attention_vjp", {**operands, "return_d_alpha": 1}, TypeError, message)


@pytest.mark.parametrize("function", [attention_varlen, attention_varlen_vjp])
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"query": ONES},
            ValueError,
            "query must have the three axes (total, heads, head_dim); its shape is (2, 4, 3, 8)",
        ),
        ({"cu_seqlens_q": [0, 1.5]}, TypeError, "cu_seqlens_q must hold integers; its dtype is float64. Convert with"),
        (
            {"cu_seqlens_q": [0, 2, 1, 4]},
            ValueError,
            "cu_seqlens_q must be one row of offsets that rise from 0 to 4; it",
        ),
        ({"cu_seqlens_k": [0, 3]}, ValueError, "cu_seqlens_k must be one row of offsets that rise from 0 to 4; it is"),
        ({"cu_seqlens_k": [1, 4]}, ValueError, "cu_seqlens_k must be one row of offsets that rise from 0 to 4; it is"),
        ({"cu_seqlens_k": [0, 1, 4]}, ValueError, "cu_seqlens_q and cu_seqlens_k must describe as many sequences;"),
        (
            {"key": np.ones((4, 2, 8))},
            ValueError,
            "query and key must have the same number of heads; they have 3 and 2.",
        ),
        ({"window": 3}, TypeError, "window must be None or a pair (left, right); it is 3."),
        ({"alpha": np.ones(2)}, ValueError, "alpha must be one number or have one entry per head of query, shape (3,)"),
    ],
)
def test_bad_arguments_of_packed_sequences_are_named(function, arguments, error, message):
    rest = {"d_out": np.ones((4, 3, 8))} if function is attention_varlen_vjp else {}
    whole = dict.fromkeys(["query", "key", "value"], np.ones((4, 3, 8)))
    offsets = {"cu_seqlens_q": [0, 4], "cu_seqlens_k": [0, 4]}
    with pytest.raises(error, match=f"^{function.__name__}: .*{re.escape(message)}"):
        function(**{**whole, **rest, **offsets, **arguments})
