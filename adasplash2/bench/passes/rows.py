"""On which rows are passes counted?  Flat ones, peaked ones, ties, clusters and real structure, of any length.

Rows are float32 and seeded. Those that a number tells apart by their standard deviation, and those of topics, are
scores; the others are z, the unit of tau, so that alpha does not move them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from adasplash2.workloads import workload

Rows = NDArray[np.float32]
Build = Callable[[np.random.Generator, int, int], Rows]


def _gauss(deviation: float) -> Build:
    def build(rng: np.random.Generator, count: int, n: int) -> Rows:
        return rng.standard_normal((count, n), dtype=np.float32) * np.float32(deviation)

    return build


def _topic(rng: np.random.Generator, count: int, n: int) -> Rows:
    seed = int(rng.integers(2**31))
    sizes = {"batch": 1, "heads": 1, "n_queries": count, "n_keys": n, "head_dim": 64}
    load = workload("topic16", dtype=torch.float32, seed=seed, is_causal=False, **sizes)  # type: ignore[arg-type]
    scores: Rows = (load.query[0, 0] @ load.key[0, 0].T * 64**-0.5).numpy()
    return scores


def _equal(rng: np.random.Generator, count: int, n: int) -> Rows:
    return np.repeat(rng.standard_normal((count, 1), dtype=np.float32), n, axis=1)


def _one_by_one(row: Callable[[np.random.Generator, int], NDArray[np.float64]]) -> Build:
    def build(rng: np.random.Generator, count: int, n: int) -> Rows:
        return np.stack([row(rng, n).astype(np.float32) for _ in range(count)])

    return build


def _ties(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Return the maximum and 2 to 5 levels below it, in drawn shares."""
    levels = np.append(0.0, -(10.0 ** rng.uniform(-4.0, 0.0, rng.integers(2, 6))))
    return rng.choice(levels, n, p=rng.dirichlet(np.full(len(levels), 0.3)))


def _uniform(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Return a support of any size, of scores spread evenly over a width from 1e-4 to 1; the rest is far below."""
    count, width = rng.integers(1, n + 1), 10.0 ** rng.uniform(-4.0, 0.0)
    return np.where(np.arange(n) < count, rng.uniform(-width, 0.0, n), -3.0)


def _clusters(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Return scores round 1 to 5 centres, with noise of 1e-6 to 1e-3."""
    centres = rng.uniform(-0.3, 0.0, rng.integers(1, 6))
    return rng.choice(centres, n) + 10.0 ** rng.uniform(-6.0, -3.0) * rng.standard_normal(n)


_OF_SCORES: dict[str, Build] = {
    **{f"gauss{deviation:g}": _gauss(deviation) for deviation in (0.001, 0.02, 0.2, 1.0, 4.0)},
    "topic16": _topic,
}
_OF_Z: dict[str, Build] = {
    "equal": _equal,
    "ties": _one_by_one(_ties),
    "uniform": _one_by_one(_uniform),
    "clusters": _one_by_one(_clusters),
}
NAMES = (*_OF_SCORES, *_OF_Z)
NOTES = {
    "gauss": "scores N(0, S^2), S the number in the name",
    "topic16": "rows of the attention workload of that name",
    "equal": "all scores of a row are the same number",
    "ties": "3 to 6 levels, in drawn shares",
    "uniform": "a support of any size, even over a width of 1e-4 to 1",
    "clusters": "1 to 5 clusters of nearly equal scores",
}


def draw(name: str, count: int, n: int, seed: int = 0) -> Rows:
    """Return seeded rows.

    Parameters
    ----------
    name : str
        One of ``NAMES``.
    count, n : int
        How many rows, and their length.
    seed : int

    Returns
    -------
    rows : ndarray of float32, shape (count, n)
        Scores or z, see `as_z`.
    """
    rng = np.random.default_rng([seed, NAMES.index(name), n])
    return {**_OF_SCORES, **_OF_Z}[name](rng, count, n)


def as_z(name: str, rows: Rows, alpha: float) -> Rows:
    """Return drawn rows in the unit of tau for an alpha."""
    return rows * np.float32(alpha - 1.0) if name in _OF_SCORES else rows
