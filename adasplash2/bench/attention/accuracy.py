"""How wrong is a result, where rows are too many to check all?  Some windows of rows, held to the float64 oracle."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

import entmax_ref
from adasplash2.verify.judge import relative_error
from adasplash2.verify.naive import naive_attention
from adasplash2.verify.truth import as_floats
from adasplash2.workloads import Workload

ROWS = 64  # of a window
WINDOWS = 4  # of a head

Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Window:
    """Rows ``start`` to ``stop`` of one head, and the number of keys that the last of them sees."""

    item: int
    head: int
    kv_head: int
    start: int
    stop: int
    n_keys: int


@dataclasses.dataclass(frozen=True)
class Sample:
    """What is right in the sampled rows.

    Attributes
    ----------
    windows : tuple of Window
        Of the first and of the last head.
    out, d_query : ndarray of float64, shape (rows, head_dim)
        The oracle's, window after window.
    tau : ndarray of float64, shape (rows,)
    naive : dict of float
        Relative errors of a plain dense evaluation in the same dtype: out, d_query.
    """

    windows: tuple[Window, ...]
    out: Floats
    d_query: Floats
    tau: Floats
    naive: dict[str, float]

    def errors(self, out: torch.Tensor, d_query: torch.Tensor) -> dict[str, float]:
        """Return relative errors (Frobenius, over the sampled rows); NaN where a result is not finite."""
        return {
            "out": relative_error(_rows(out, self.windows), self.out),
            "d_query": relative_error(_rows(d_query, self.windows), self.d_query),
        }

    def tau_error(self, tau: torch.Tensor) -> float:
        """Return the largest distance of a sampled row's tau from the oracle's; NaN if one is not finite."""
        found = np.concatenate([as_floats(tau[w.item, w.head, w.start : w.stop]) for w in self.windows])
        distance = np.abs(found - self.tau)
        return float(distance.max()) if np.isfinite(distance).all() else math.nan


def choose_windows(load: Workload, seed: int = 0) -> tuple[Window, ...]:
    """Return windows of rows of the first and the last head; one of each holds the last rows."""
    batch, heads, n_queries, _ = load.query.shape
    kv_heads, n_keys = load.key.shape[1:3]
    rng = np.random.default_rng(seed)
    found = []
    for item, head in dict.fromkeys([(0, 0), (batch - 1, heads - 1)]):
        last = max(n_queries - ROWS, 0)
        starts = {last, *rng.integers(0, last + 1, size=WINDOWS - 1).tolist()}
        for start in sorted(starts):
            stop = min(start + ROWS, n_queries)
            seen = stop + n_keys - n_queries if load.is_causal else n_keys
            found.append(Window(item, head, head // (heads // kv_heads), start, stop, seen))
    return tuple(window for window in found if window.n_keys > 0)


def sample_of(load: Workload, d_out: torch.Tensor, alpha: float, seed: int = 0) -> Sample:
    """Return the oracle's output and d_query, and the error of a naive evaluation, in some rows.

    Parameters
    ----------
    load : Workload
    d_out : Tensor, shape of query
    alpha : float
        1.5 or 2.
    seed : int
        Chooses the rows.

    Returns
    -------
    Sample
    """
    windows = choose_windows(load, seed)
    exact: dict[str, list[Floats]] = {"out": [], "d_query": [], "tau": []}
    naive: dict[str, list[Floats]] = {"out": [], "d_query": []}
    for window in windows:
        # The keys that the last row sees: under a causal mask aligned to the bottom right, nothing else changes.
        place, rows = window.item, slice(window.start, window.stop)
        query, grad = (x[place, window.head, rows][None, None] for x in (load.query, d_out))
        key, value = (x[place, window.kv_head, : window.n_keys][None, None] for x in (load.key, load.value))
        q, k, v, g = (as_floats(x) for x in (query, key, value, grad))
        scale, is_causal = load.query.shape[-1] ** -0.5, load.is_causal
        out, aux = entmax_ref.attention(q, k, v, alpha=alpha, is_causal=is_causal, scale=scale, return_aux=True)
        d_query, _, _ = entmax_ref.attention_vjp(q, k, v, g, alpha=alpha, is_causal=is_causal, scale=scale)
        plain = naive_attention(
            query, key, value, grad, alpha=alpha, is_causal=is_causal, scale=scale, multiply=torch.matmul
        )
        for name, found in (("out", out), ("d_query", d_query), ("tau", aux.tau)):
            exact[name].append(found[0, 0])
        for name, tensor in (("out", plain.out), ("d_query", plain.d_query)):
            naive[name].append(tensor[0, 0].numpy())
    truth = {name: np.concatenate(parts) for name, parts in exact.items()}
    errors = {name: relative_error(np.concatenate(parts), truth[name]) for name, parts in naive.items()}
    return Sample(windows, truth["out"], truth["d_query"], truth["tau"], errors)


def _rows(tensor: torch.Tensor, windows: Sequence[Window]) -> Floats:
    return np.concatenate([as_floats(tensor[w.item, w.head, w.start : w.stop]) for w in windows])
