"""Which problems of attention are small enough to solve by the definition, and what are their exact answers?

Operands are multiples of 1/4 in [-2, 2] and head_dim is 4, so that scale is 1/2, every score is exact in
float64, and the only errors are those of the rows and of the last products.
"""

import exact
import numpy as np
import pytest
from exact import U

HEAD_DIM = 4
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
