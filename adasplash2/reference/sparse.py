"""Which weights are not zero, and what are they?  Chunk by chunk, so that no matrix of all scores is ever held."""

from __future__ import annotations

import torch

from .alphas import Work
from .chunks import Operands
from .support import Group

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
    `attention_by_alphas`; no gradient is kept.
    """
    query, key = query.detach(), key.detach()
    mask = None if attn_mask is None else attn_mask.detach()
    own: Operands
    if isinstance(alpha, torch.Tensor):
        work = Work(query, key, key, alpha.detach(), mask, is_causal, scale)
        own, chunks, entries = work.own, work.chunks, lambda chunk: [_dense(work.probs(chunk)[1])]
    else:
        own = Operands.of(query, key, key, mask, alpha, is_causal, scale)
        chunks, entries = list(own.chunks()), lambda chunk: [_kept(group) for group in own.supported(chunk)[0].groups]
    shape = own.query.shape[:4]
    numbers = torch.arange(shape.numel(), device=query.device).view(shape)
    parts = [(numbers.new_zeros(0), numbers.new_zeros(0), own.query.new_zeros(0))]
    for chunk in chunks:
        of_rows = numbers[chunk.batch, chunk.heads, :, chunk.queries].reshape(-1)
        parts += [(of_rows[rows], columns, values) for rows, columns, values in entries(chunk)]
    rows, columns, values = (torch.cat(part) for part in zip(*parts, strict=True))
    order = (rows * key.shape[2] + columns).argsort()
    return rows[order], columns[order], values[order]


def _kept(group: Group) -> Entries:
    """Return row in the chunk, column and value of the weights of a group that are not zero."""
    live = group.probs != 0.0
    return group.rows[:, None].expand_as(group.columns)[live], group.columns[live], group.probs[live]


def _dense(probs: torch.Tensor) -> Entries:
    """Return the same of probabilities (batch, kv_heads, group, queries, n_keys)."""
    flat = probs.flatten(0, 3)
    rows, columns = flat.nonzero().unbind(1)
    return rows, columns, flat[rows, columns]
