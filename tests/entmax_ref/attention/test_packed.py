"""Are packed sequences those sequences alone?"""

import re

import numpy as np
import pytest

from entmax_ref import attention, attention_varlen, attention_varlen_vjp, attention_vjp

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


@pytest.mark.parametrize("function", [attention_varlen, attention_varlen_vjp])
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"query": np.ones((2, 4, 3, 8))},
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
