"""What are the scores of a workload, dense, and how large is the support of each row, in float64?"""

import numpy as np


def dense_scores(w):
    """Return float64 scores, (batch, heads, n_queries, n_keys), and the visible pairs, by the definition."""
    query, key = w.query.double().numpy(), w.key.double().numpy()
    key = np.repeat(key, query.shape[1] // key.shape[1], axis=1)
    with np.errstate(invalid="ignore"):
        scores = np.einsum("bhid,bhjd->bhij", query, key) * query.shape[-1] ** -0.5
    n_queries, n_keys = scores.shape[-2:]
    visible = np.ones((n_queries, n_keys), dtype=bool)
    if w.is_causal:
        visible = np.arange(n_keys)[None, :] <= np.arange(n_queries)[:, None] + n_keys - n_queries
    return scores, visible


def squared_excess(scores, visible, level):
    """Return the sum over visible keys of max(z - level, 0) ** 2: below 1 exactly if level is above tau."""
    return np.sum(np.where(visible, np.maximum(0.5 * scores - level, 0.0), 0.0) ** 2, axis=-1)


def support(scores, visible):
    """Return the support of entmax of order 1.5, by bisection in float64: independent of entmax_ref."""
    hi = np.where(visible, 0.5 * scores, -np.inf).max(-1)
    lo = hi - 1.0
    for _ in range(60):
        middle = 0.5 * (lo + hi)
        above = squared_excess(scores, visible, middle[..., None]) < 1.0
        lo, hi = np.where(above, lo, middle), np.where(above, middle, hi)
    return visible & (0.5 * scores > hi[..., None])
