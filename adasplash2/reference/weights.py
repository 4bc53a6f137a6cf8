"""How are weights of the supported keys multiplied with keys, and with queries?

Weights are one matrix per group of rows, (m, w), for the same keys: probabilities, or gradients of scores. Where w is a
small part of the keys, products gather just those keys; elsewhere the weights are written out and multiplied densely.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import embedding_bag

from .support import Group

# A gathered product takes about as long as a dense one with this many times the keys.
GATHERED = 16


class Layout:
    """Which keys the rows of a chunk keep, and products with weights that belong to them.

    Parameters
    ----------
    groups : list of Group
        Of the rows of a matrix of scores.
    shape : tuple of int
        (batch, heads, rows, n_keys): how that matrix divides into heads, of which each has keys of its own.
    device : torch.device
    """

    def __init__(self, groups: list[Group], shape: tuple[int, int, int, int], device: torch.device) -> None:
        self.groups, self.shape, self.device = groups, shape, device
        batch, heads, rows, n_keys = shape
        self.few = [GATHERED * group.columns.shape[1] <= n_keys for group in groups]
        self.index = [
            group.columns if batch * heads == 1 else group.columns + (group.rows // rows * n_keys)[:, None]
            for group in groups
        ]
        self._by_key: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None

    def at(self, matrix: torch.Tensor) -> list[torch.Tensor]:
        """Return what a matrix of the shape of the scores holds for the kept keys, 0 off the support."""
        flat = matrix.reshape(-1)
        return [torch.where(group.probs != 0.0, flat[self._place(group)], 0.0) for group in self.groups]

    def pairs(self, queries: torch.Tensor, keys: torch.Tensor) -> list[torch.Tensor]:
        """Return the inner products of queries, (batch, heads, rows, dim), and their kept keys, 0 off the support."""
        n_keys, dim = self.shape[3], keys.shape[-1]
        # What is gathered here takes no more room than two matrices of scores.
        if any(group.columns.shape[1] * max(dim, GATHERED) > 2 * n_keys for group in self.groups):
            return self.at(queries @ keys.mT)
        flat_keys, flat_queries = keys.reshape(-1, dim), queries.reshape(-1, dim)
        found = []
        for group, index in zip(self.groups, self.index, strict=True):
            products = torch.bmm(flat_keys[index], flat_queries[group.rows, :, None]).squeeze(-1)
            found.append(torch.where(group.probs != 0.0, products, 0.0))
        return found

    def times(self, weights: Sequence[torch.Tensor], keys: torch.Tensor) -> torch.Tensor:
        """Return weights times keys, (batch, heads, rows, dim), for keys (batch, heads, n_keys, dim)."""
        if all(self.few):
            found = keys.new_zeros((*self.shape[:3], keys.shape[-1]))
        else:
            found = self.matrix(weights, few=False) @ keys
        flat_keys, flat = keys.reshape(-1, keys.shape[-1]), found.view(-1, keys.shape[-1])
        for few, group, index, part in zip(self.few, self.groups, self.index, weights, strict=True):
            if few:
                flat[group.rows] = embedding_bag(index, flat_keys, mode="sum", per_sample_weights=part)
        return found

    def transposed_times(self, weights: Sequence[torch.Tensor], queries: torch.Tensor) -> torch.Tensor:
        """Return transposed weights times queries, (batch, heads, n_keys, dim), for queries (batch, heads, rows, dim).

        In the order of the rows for each key, so the same inputs give the same bits.
        """
        batch, heads, _, n_keys = self.shape
        dim = queries.shape[-1]
        found = None if all(self.few) else self.matrix(weights, few=False).mT @ queries
        if not any(self.few):
            return queries.new_zeros((batch, heads, n_keys, dim)) if found is None else found
        rows, order, starts = self._keys_first()
        values = torch.cat([part.reshape(-1) for few, part in zip(self.few, weights, strict=True) if few])
        gathered = embedding_bag(
            rows, queries.reshape(-1, dim), starts, mode="sum", per_sample_weights=values[order]
        ).view(batch, heads, n_keys, dim)
        return gathered if found is None else found.add_(gathered)

    def matrix(self, weights: Sequence[torch.Tensor], *, few: bool = True) -> torch.Tensor:
        """Return the weights written out, (batch, heads, rows, n_keys); without those of few keys if not ``few``."""
        matrix = torch.zeros(self.shape, dtype=torch.float64, device=self.device)
        for own, group, part in zip(self.few, self.groups, weights, strict=True):
            if few or not own:
                matrix.view(-1)[self._place(group)] = part
        return matrix

    def _place(self, group: Group) -> torch.Tensor:
        return group.columns + (group.rows * self.shape[3])[:, None]

    def _keys_first(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return row and place among the weights of each nonzero one, ordered by key, and where each key starts."""
        if self._by_key is None:
            batch, heads, _, n_keys = self.shape
            chosen = [(g, i) for few, g, i in zip(self.few, self.groups, self.index, strict=True) if few]
            live = torch.cat([(group.probs != 0.0).reshape(-1) for group, _ in chosen]).nonzero().squeeze(-1)
            keys = torch.cat([index.reshape(-1) for _, index in chosen])[live]
            rows = torch.cat([group.rows[:, None].expand_as(group.columns).reshape(-1) for group, _ in chosen])[live]
            keys, order = keys.sort(stable=True)
            starts = torch.searchsorted(keys, torch.arange(batch * heads * n_keys, device=keys.device))
            self._by_key = rows[order], live[order], starts
        return self._by_key
