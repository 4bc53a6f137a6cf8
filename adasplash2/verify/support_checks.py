"""Is the support of the rows in the pool, and turned over to the keys, whole and in order?"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from numpy.typing import NDArray

from adasplash2.problem import Problem
from adasplash2.state import BackwardState, Support

from .truth import Booleans


@dataclasses.dataclass(frozen=True)
class Gathered:
    """What the stages that gather found in their pools, moved to NumPy.

    Attributes
    ----------
    rows : ndarray of bool, shape (batch, heads, n_queries, n_keys)
        Which keys the pool has for a row.
    has_rows : ndarray of bool, shape (batch, heads, n_queries)
        Which rows have theirs in the pool.
    columns : ndarray of bool, shape (batch, heads, n_keys, n_queries)
        Which rows the pool has for a key.
    has_columns : ndarray of bool, shape (batch, heads, n_keys)
        Which keys have theirs in the pool.
    unordered : ndarray of bool, shape (batch, heads, n_keys)
        Columns that do not ascend.
    """

    rows: Booleans
    has_rows: Booleans
    columns: Booleans
    has_columns: Booleans
    unordered: Booleans


def read_gathered(problem: Problem, support: Support, after: BackwardState) -> Gathered:
    """Return what the pools hold; where there are no stages by single keys, nothing."""
    heads, n_queries, n_keys = (problem.batch, problem.heads), problem.n_queries, problem.n_keys
    rows: Booleans = np.zeros((*heads, n_queries, n_keys), dtype=np.bool_)
    columns: Booleans = np.zeros((*heads, n_keys, n_queries), dtype=np.bool_)
    has_rows: Booleans = np.zeros((*heads, n_queries), dtype=np.bool_)
    has_columns: Booleans = np.zeros((*heads, n_keys), dtype=np.bool_)
    unordered: Booleans = np.zeros((*heads, n_keys), dtype=np.bool_)
    if not problem.by_keys:
        return Gathered(rows, has_rows, columns, has_columns, unordered)
    fits = (_numbers(support.used) <= problem.support_capacity)[..., None]
    counts, starts = _numbers(support.counts), _numbers(support.starts)
    has_rows = fits & (counts >= 0)
    paths = np.repeat(_numbers(after.column_paths), problem.group, axis=1)
    has_columns = np.repeat(paths > 0, problem.launch.block_n, axis=-1)[..., :n_keys]
    parts = _numbers(after.column_counts)
    lengths = parts.sum(axis=-1)
    begins = _numbers(after.column_ends)[..., -1] - lengths
    pool, turned = _numbers(support.pool) & _mask(support.pool), _numbers(after.sorted_columns)
    turned &= _mask(after.sorted_columns)
    for place in np.ndindex(*heads):
        for row in np.flatnonzero(has_rows[place]):
            first = starts[place][row]
            rows[place][row, pool[place][first : first + counts[place][row]]] = True
        for key in np.flatnonzero(has_columns[place]):
            held = turned[place][begins[place][key] : begins[place][key] + lengths[place][key]]
            columns[place][key, held] = True
            unordered[place][key] = bool((np.diff(held) <= 0).any())
    return Gathered(rows, has_rows, columns, has_columns, unordered)


def _numbers(tensor: torch.Tensor) -> NDArray[np.int64]:
    found: NDArray[np.int64] = tensor.long().cpu().numpy()
    return found


def _mask(pool: torch.Tensor) -> int:
    """Return what cuts the sign off an index of 16 bits."""
    return 0xFFFF if pool.dtype == torch.int16 else 0x7FFFFFFF
