"""Do chunks of queries change nothing but the memory?"""

import sys
import tracemalloc

import exact
import numpy as np
import pytest
from attention_problems import (
    HEAD_DIM,
    each_shape,
    problem,
)
from exact import U

from entmax_ref import attention, attention_vjp

MODULE = sys.modules["entmax_ref.attention.problem"]


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
