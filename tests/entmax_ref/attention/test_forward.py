"""Are output and gradients of attention what the docstring states, to the last products?"""

from dataclasses import FrozenInstanceError

import exact
import numpy as np
import pytest
from attention_problems import (
    assert_close,
    each_alpha,
    each_shape,
    per_query_head,
    problem,
    scores_by_the_definition,
    seed_away_from_edges,
    summed_over_groups,
)
from exact import U
from lemmas import lemma

import entmax_ref
from entmax_ref import AttentionAux, attention, attention_scores, attention_vjp


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


def test_query_head_uses_the_key_head_of_its_group():
    query, key = np.zeros((1, 6, 1, 1)), np.zeros((1, 3, 1, 1))
    value = np.arange(3.0).reshape(1, 3, 1, 1)
    out = attention(query, key, value, enable_gqa=True)
    np.testing.assert_array_equal(out[0, :, 0, 0], [0, 0, 1, 1, 2, 2])


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
