"""Which queries are worked on at a time, which keys do they see, and what are their scores?

A chunk is a range of queries of one key head, with all query heads that share it, or as many whole heads as fit. Its
matrices have at most `SCORES_AT_ONCE` entries, or one query per head of a group.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from .support import FIRST_WIDTH, Group, Supported, supported
from .weights import Layout

# Queries and keys of a cell of the block mask; the fused kernels report their own tile.
BLOCK = 64
SCORES_AT_ONCE = 2**18  # 2 MiB a matrix; a pass holds up to 32 of them at a time, 64 MiB


@dataclass(frozen=True)
class Chunk:
    """Where a chunk lies in tensors of shape (batch, kv_heads, group, n_queries, ...), and how many keys it sees."""

    batch: slice
    heads: slice
    queries: slice
    n_keys: int


@dataclass
class Operands:
    """query, key, value in float64, heads split into (kv_heads, group); the query times the scale."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    mask: torch.Tensor | None
    alpha: float
    is_causal: bool
    scale: float
    width: int = FIRST_WIDTH

    @classmethod
    def of(
        cls,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        alpha: float,
        is_causal: bool,
        scale: float,
    ) -> Operands:
        """Raise the operands; ``mask`` has four dimensions."""
        if mask is not None:
            mask = mask.expand(*query.shape[:3], key.shape[2])
            mask = split_heads(mask, key.shape[1])
        wide = split_heads(query.double(), key.shape[1]) * scale
        return cls(wide, key.double(), value.double(), mask, alpha, is_causal, scale)

    @property
    def offset(self) -> int:
        """The last query sees every key: query i sees the keys up to i plus this."""
        return self.key.shape[2] - self.query.shape[3]

    def chunks(self, *, causal: bool | None = None) -> Iterator[Chunk]:
        """Yield the chunks that see a key, in order; all chunks with all keys, if there are any, unless ``causal``."""
        causal = self.is_causal if causal is None else causal
        batch, kv_heads, group, n_queries, _ = self.query.shape
        n_keys = self.key.shape[2]
        fit = SCORES_AT_ONCE // max(group * n_keys, 1)
        if fit >= BLOCK:
            length = fit // BLOCK * BLOCK
        else:
            length = 2 ** (max(fit, 1).bit_length() - 1)  # divides BLOCK, so that no chunk straddles two blocks
        heads = max(fit // max(n_queries, 1), 1) if length >= n_queries else 1
        items = max(heads // max(kv_heads, 1), 1) if heads >= kv_heads else 1
        heads = min(heads, max(kv_heads, 1))
        for b in range(0, batch, items):
            for h in range(0, kv_heads, heads):
                for i in range(0, n_queries, length):
                    end = min(i + length, n_queries)
                    seen = max(min(end + self.offset, n_keys), 0) if causal else n_keys
                    if seen:
                        items_end, heads_end = min(b + items, batch), min(h + heads, kv_heads)
                        yield Chunk(slice(b, items_end), slice(h, heads_end), slice(i, end), seen)

    def of_queries(self, tensor: torch.Tensor, chunk: Chunk) -> torch.Tensor:
        """Return the rows of a chunk, (batch, kv_heads, group * queries, width)."""
        return tensor[chunk.batch, chunk.heads, :, chunk.queries].flatten(2, 3)

    def of_keys(self, tensor: torch.Tensor, chunk: Chunk) -> torch.Tensor:
        """Return the keys that a chunk sees, (batch, kv_heads, n_keys, width)."""
        return tensor[chunk.batch, chunk.heads, : chunk.n_keys]

    def scores(self, chunk: Chunk) -> torch.Tensor:
        """Return the scores of a chunk, (batch, kv_heads, group, queries, n_keys); -inf where a key is hidden."""
        query = self.of_queries(self.query, chunk)
        found = query @ self.of_keys(self.key, chunk).mT
        scores = found.unflatten(2, (self.query.shape[2], -1))
        if self.mask is not None:
            mask = self.mask[chunk.batch, chunk.heads, :, chunk.queries, : chunk.n_keys]
            hidden = ~mask if mask.dtype == torch.bool else mask == -torch.inf
            scores = scores if mask.dtype == torch.bool else scores + mask
            scores = scores.masked_fill(hidden, -torch.inf)
        if self.is_causal:
            rows = torch.arange(chunk.queries.start, chunk.queries.stop, device=scores.device) + self.offset
            hidden = torch.arange(chunk.n_keys, device=scores.device) > rows[:, None]
            scores = scores.masked_fill(hidden, -torch.inf)
        return scores

    def supported(self, chunk: Chunk) -> tuple[Supported, Layout]:
        """Return what the scores of a chunk come to."""
        scores = self.scores(chunk).flatten(2, 3)
        found = supported(scores.view(-1, chunk.n_keys), self.alpha - 1.0, self.width)
        self.width = found.width
        batch, heads, rows, n_keys = scores.shape
        return found, Layout(found.groups, (batch, heads, rows, n_keys), scores.device)


def split_heads(tensor: torch.Tensor, kv_heads: int) -> torch.Tensor:
    """Return a view of (batch, heads, ...) as (batch, kv_heads, group, ...)."""
    return tensor.unflatten(1, (kv_heads, tensor.shape[1] // kv_heads) if kv_heads else (0, 1))


def live_blocks(groups: list[Group], rows: int, n_keys: int, device: torch.device) -> torch.Tensor:
    """Return which key blocks of each row hold a probability that is not zero, (rows, n_key_blocks)."""
    found = torch.zeros(rows, -(-n_keys // BLOCK), dtype=torch.bool, device=device)
    for group in groups:
        blocks = (group.columns // BLOCK)[group.probs != 0.0]
        found[group.rows[:, None].expand_as(group.columns)[group.probs != 0.0], blocks] = True
    return found
