"""Which weights are not zero, and what are they?  Chunk by chunk, so that no matrix of all scores is ever held."""

from __future__ import annotations

import torch

from .alphas import Work
from .chunks import Chunk, Operands

Entries = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def sparse_weights(
    query: torch.Tensor,
    key: torch.Tensor,
    *,
    alpha: float | torch.Tensor,
    is_causal: bool,
    scale: float,
    attn_mask: torch.Tensor | None = None,
) -> Entries:
    """Return the rows, columns and values, float64, of the weights that are not zero, in the order of both.

    Rows are counted over batch, heads and queries.  Arguments are those of `reference_attention`, alpha also those of
    `output_by_alphas`; no gradient is kept.
    """
    mask = None if attn_mask is None else attn_mask.detach().reshape((1,) * (4 - attn_mask.dim()) + attn_mask.shape)
    query, key = query.detach(), key.detach()
    if isinstance(alpha, torch.Tensor):
        work = Work(query, key, key, alpha.detach(), mask, is_causal, scale)
        own, chunks = work.own, work.chunks
    else:
        own = Operands.of(query, key, key, mask, alpha, is_causal, scale)
        chunks = list(own.chunks())
    shape = own.query.shape[:4]
    numbers = torch.arange(shape.numel(), device=query.device).view(shape)
    parts = []
    for chunk in chunks:
        found = _dense(work.probs(chunk)[1]) if isinstance(alpha, torch.Tensor) else _kept(own, chunk)
        of_rows = numbers[chunk.batch, chunk.heads, :, chunk.queries].reshape(-1)
        parts.append((of_rows[found[0]], *found[1:]))
    if not parts:
        return query.new_zeros(0, dtype=torch.int64), query.new_zeros(0, dtype=torch.int64), query.new_zeros(0).double()
    rows, columns, values = (torch.cat(part) for part in zip(*parts, strict=True))
    order = (rows * key.shape[2] + columns).argsort()
    return rows[order], columns[order], values[order]


def _kept(own: Operands, chunk: Chunk) -> Entries:
    """Return row in the chunk, column and value of the weights of a chunk that are not zero."""
    rows, columns, values = [], [], []
    for group in own.supported(chunk)[0].groups:
        live = group.probs != 0.0
        rows.append(group.rows[:, None].expand_as(group.columns)[live])
        columns.append(group.columns[live])
        values.append(group.probs[live])
    if not rows:
        none = torch.zeros(0, dtype=torch.int64, device=own.query.device)
        return none, none, none.double()
    return torch.cat(rows), torch.cat(columns), torch.cat(values)


def _dense(probs: torch.Tensor) -> Entries:
    """Return the same of probabilities (batch, kv_heads, group, queries, n_keys)."""
    flat = probs.flatten(0, 3)
    rows, columns = flat.nonzero().unbind(1)
    return rows, columns, flat[rows, columns]
