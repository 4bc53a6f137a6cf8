"""Rows on which a root search needs the most passes: flat and long ones, ties, clusters, heavy tails."""

import numpy as np


def rows(n, seed=0):
    """Return names and rows of z, (rows, n), counted from row_max; the kinds of FACTS, three or fewer of each."""
    rng = np.random.default_rng([seed, n])
    found = [("equal", np.zeros(n))]
    found += [(f"gaussian {s}", s * rng.normal(size=n)) for s in (0.0005, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 4.0)]
    for _ in range(3):
        count, width = rng.integers(1, n + 1), 10 ** rng.uniform(-4, 0)
        found.append(("uniform", np.where(np.arange(n) < count, rng.uniform(-width, 0, n), -3.0)))
        centres = rng.uniform(-0.3, 0, rng.integers(1, 6))
        noise = 10 ** rng.uniform(-6, -3) * rng.normal(size=n)
        found.append(("clusters", rng.choice(centres, n) + noise))
        levels = np.append(0, -(10 ** rng.uniform(-4, 0, rng.integers(2, 6))))
        found.append(("ties", rng.choice(levels, n, p=rng.dirichlet(np.full(len(levels), 0.3)))))
        found.append(("cauchy", rng.standard_cauchy(n) * 10 ** rng.uniform(-3, 0)))
        found.append(("exponential", -rng.exponential(size=n) * 10 ** rng.uniform(-3, 0)))
    found.append(("grid", np.round(4 * rng.normal(size=n)) / 8))
    found.append(("one above the rest", np.where(np.arange(n) == n // 2, 0.0, -rng.random())))
    names, z = zip(*found, strict=True)
    z = np.stack(z)
    return list(names), z - z.max(axis=-1, keepdims=True)


def long_rows(alpha, n, seed):
    """Return rows that are hard for a root search, at offsets, some keys hidden."""
    z = np.concatenate([rows(n, seed)[1], 0.01 * rows(n, seed + 1)[1], 1e-9 * rows(n, seed + 2)[1]])
    scores = z / (alpha - 1.0) + np.arange(len(z))[:, None] % 3
    scores[::5, ::7] = -np.inf
    return scores
