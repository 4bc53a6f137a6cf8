"""Against what are the stages of the specification tested?  The exact threshold, its slack, and small problems."""

import numpy as np
import pytest

import entmax_ref

ALPHAS = (1.01, 1.1, 1.25, 4 / 3, 1.5, 1.75, 1.9, 2.0)
each_alpha = pytest.mark.parametrize("alpha", ALPHAS)
ULP = 2.0**-52


def exact_tau(z, alpha):
    return entmax_ref.threshold(z / (alpha - 1.0), alpha)


def slack(z):
    """Return more than what the sums of a row, the oracle and the histogram's 60 halvings can be off by."""
    return ULP * (64.0 + 8.0 * z.shape[-1])


def attention_problem(alpha, seed=0, n_queries=9, n_keys=40, head_dim=6, value_dim=5):
    """Return query, key, value, d_out, scale and z; one query sees no key."""
    rng = np.random.default_rng(seed)
    sizes = ((n_queries, head_dim), (n_keys, head_dim), (n_keys, value_dim), (n_queries, value_dim))
    query, key, value, d_out = (rng.normal(size=size) for size in sizes)
    mask = rng.random((n_queries, n_keys)) < 0.8
    mask[3] = False
    scale = head_dim**-0.5
    z = np.where(mask, (alpha - 1.0) * scale * (query @ key.T), -np.inf)
    return query, key, value, d_out, scale, mask, z
