"""What do output, gradient, tangent and second derivative take?  One walk over the chunks each, in float64.

Every pass finds the probabilities of a chunk anew, so nothing between passes is larger than the operands. Results come
in the dtype of the operand that they belong to. ``mask`` has four dimensions throughout.
"""

from __future__ import annotations

import torch

from .chunks import BLOCK, Chunk, Operands, live_blocks, split_heads
from .jacobian import jacobian_of
from .weights import Layout

Mask = torch.Tensor | None


def forward(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: Mask,
    alpha: float,
    is_causal: bool,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return out, tau, mass, block mask, row_max and tau_from_max."""
    work = Operands.of(query, key, value, mask, alpha, is_causal, scale)
    rows = work.query.shape[:4]
    out = work.query.new_zeros((*rows, value.shape[3]))
    tau, mass = work.query.new_full(rows, torch.inf), work.query.new_zeros(rows)
    row_max, tau_from_max = work.query.new_full(rows, -torch.inf), work.query.new_full(rows, torch.inf)
    blocks = torch.zeros(
        (*rows[:3], -(-rows[3] // BLOCK), -(-key.shape[2] // BLOCK)), dtype=torch.bool, device=query.device
    )
    for chunk in work.chunks():
        found, layout = work.supported(chunk)
        at = chunk.batch, chunk.heads, slice(None), chunk.queries
        shape = out[at].shape[:4]
        tau[at], mass[at] = found.tau.view(shape), found.mass.view(shape)
        row_max[at], tau_from_max[at] = found.row_max.view(shape), found.tau_from_max.view(shape)
        probs = [group.probs for group in found.groups]
        out[at] = layout.times(probs, work.of_keys(work.value, chunk)).view(*shape, -1)
        kept = live_blocks(found.groups, found.tau.numel(), chunk.n_keys, query.device).view(*shape, -1)
        _merge_blocks(blocks, kept, chunk)
    low = torch.promote_types(query.dtype, torch.float32)
    return (
        out.flatten(1, 2).to(query.dtype),
        tau.flatten(1, 2).to(low),
        mass.flatten(1, 2).to(low),
        blocks.flatten(1, 2),
        row_max.flatten(1, 2).to(low),
        tau_from_max.flatten(1, 2).to(low),
    )


def gradient(
    d_out: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: Mask,
    alpha: float,
    is_causal: bool,
    scale: float,
    of_mask: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the gradients of query, key, value and mask; that of the mask is empty unless asked for."""
    work = Operands.of(query, key, value, mask, alpha, is_causal, scale)
    sums = _Sums(work, mask if of_mask else None)
    wide = split_heads(d_out.double(), key.shape[1])
    for chunk in work.chunks():
        found, layout = work.supported(chunk)
        rows = work.of_queries(wide, chunk)
        d_probs = layout.pairs(rows, work.of_keys(work.value, chunk))
        jacobians = [jacobian_of(group, alpha - 1.0) for group in found.groups]
        sums.add_scores(chunk, layout, [one.times(part) for one, part in zip(jacobians, d_probs, strict=True)])
        sums.add_value(chunk, layout, [group.probs for group in found.groups], rows)
    return sums.results(query, key, value)


def tangent(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: Mask,
    t_query: torch.Tensor,
    t_key: torch.Tensor,
    t_value: torch.Tensor,
    t_mask: Mask,
    alpha: float,
    is_causal: bool,
    scale: float,
) -> torch.Tensor:
    """Return how out changes along a direction of the operands."""
    work = Operands.of(query, key, value, mask, alpha, is_causal, scale)
    along = Operands.of(t_query, t_key, t_value, t_mask, alpha, False, scale)
    out = work.query.new_zeros((*work.query.shape[:4], value.shape[3]))
    for chunk in work.chunks():
        found, layout = work.supported(chunk)
        jacobians = [jacobian_of(group, alpha - 1.0) for group in found.groups]
        t_scores = layout.at(_moved_scores(work, along, chunk))
        t_probs = [one.times(part) for one, part in zip(jacobians, t_scores, strict=True)]
        part = layout.times(t_probs, work.of_keys(work.value, chunk))
        part += layout.times([group.probs for group in found.groups], along.of_keys(along.value, chunk))
        at = chunk.batch, chunk.heads, slice(None), chunk.queries
        out[at] = part.view(out[at].shape)
    return out.flatten(1, 2).to(query.dtype)


def second(
    d_out: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: Mask,
    t_query: torch.Tensor,
    t_key: torch.Tensor,
    t_value: torch.Tensor,
    t_mask: Mask,
    alpha: float,
    is_causal: bool,
    scale: float,
    of_mask: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the gradients of ``(d_out * tangent(...)).sum()`` by query, key, value and mask.

    With scores S, probabilities P, Jacobian J and the direction T of the scores, that sum is ``A . J T + B . P`` for
    ``A = d_out value.T`` and ``B = d_out t_value.T``. Its gradient by S is J B and what `Jacobian.moved` says, its
    gradient by T is J A, and T depends on query and key as well.
    """
    work = Operands.of(query, key, value, mask, alpha, is_causal, scale)
    along = Operands.of(t_query, t_key, t_value, t_mask, alpha, False, scale)
    sums = _Sums(work, mask if of_mask else None)
    wide = split_heads(d_out.double(), key.shape[1])
    for chunk in work.chunks():
        found, layout = work.supported(chunk)
        rows = work.of_queries(wide, chunk)
        by_value = layout.pairs(rows, work.of_keys(work.value, chunk))
        by_tangent = layout.pairs(rows, along.of_keys(along.value, chunk))
        t_scores = layout.at(_moved_scores(work, along, chunk))
        jacobians = [jacobian_of(group, alpha - 1.0) for group in found.groups]
        parts = list(zip(jacobians, by_value, by_tangent, t_scores, strict=True))
        sums.add_scores(chunk, layout, [one.times(b) + one.moved(a, t) for one, a, b, t in parts])
        sums.add_scores(chunk, layout, [one.times(a) for one, a, _, _ in parts], along)
        sums.add_value(chunk, layout, [one.times(t) for one, _, _, t in parts], rows)
    return sums.results(query, key, value)


def _moved_scores(work: Operands, along: Operands, chunk: Chunk) -> torch.Tensor:
    """Return how the scores of a chunk change along a direction; `Operands.scores` of the one is half of it."""
    found = work.of_queries(along.query, chunk) @ work.of_keys(work.key, chunk).mT
    found += work.of_queries(work.query, chunk) @ work.of_keys(along.key, chunk).mT
    if along.mask is not None:
        shape = found.unflatten(2, (work.query.shape[2], -1))
        shape += along.mask[chunk.batch, chunk.heads, :, chunk.queries, : chunk.n_keys]
    return found


def _merge_blocks(blocks: torch.Tensor, kept: torch.Tensor, chunk: Chunk) -> None:
    """Add the key blocks of a chunk's rows, (batch, kv_heads, group, queries, n_key_blocks), to the block mask."""
    length = kept.shape[3]
    padded = torch.nn.functional.pad(kept, (0, 0, 0, -length % BLOCK)).unflatten(3, (-1, BLOCK)).any(4)
    first = chunk.queries.start // BLOCK
    blocks[chunk.batch, chunk.heads, :, first : first + padded.shape[3], : kept.shape[4]] |= padded


class _Sums:
    """The gradients of the operands, added up chunk by chunk."""

    def __init__(self, work: Operands, mask: Mask) -> None:
        self.work = work
        # NaN rows are NaN already; a product must not carry 0 * NaN to rows and keys that never met the NaN.
        self.query, self.key = (_finite(part) for part in (work.query, work.key))
        self.d_query, self.d_key, self.d_value = (torch.zeros_like(x) for x in (work.query, work.key, work.value))
        self.d_mask = None if mask is None else torch.zeros_like(mask, dtype=torch.float64)
        self.mask = mask

    def add_scores(
        self, chunk: Chunk, layout: Layout, d_scores: list[torch.Tensor], along: Operands | None = None
    ) -> None:
        """Add what a gradient of the scores means, or (with ``along``) one of their change along a direction."""
        work, at = self.work, (chunk.batch, chunk.heads, slice(None), chunk.queries)
        query, key = (self.query, self.key) if along is None else (along.query, along.key)
        self.d_query[at] += layout.times(d_scores, work.of_keys(key, chunk)).view(self.d_query[at].shape)
        work.of_keys(self.d_key, chunk).add_(layout.transposed_times(d_scores, work.of_queries(query, chunk)))
        if self.d_mask is None or along is not None:
            return
        found, target = layout.matrix(d_scores).unflatten(2, (work.query.shape[2], -1)), self.d_mask
        heads = target.shape[1]
        target = split_heads(target, work.key.shape[1]) if heads != 1 else target.unsqueeze(1)
        places = (*at, slice(0, chunk.n_keys))
        alone = [dim for dim in range(5) if target.shape[dim] == 1]
        if alone:
            found = found.sum(alone, keepdim=True)
        target[tuple(slice(None) if dim in alone else places[dim] for dim in range(5))] += found

    def add_value(self, chunk: Chunk, layout: Layout, probs: list[torch.Tensor], d_out: torch.Tensor) -> None:
        """Add what a gradient of the output means for the values."""
        self.work.of_keys(self.d_value, chunk).add_(layout.transposed_times(probs, d_out))

    def results(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the gradients in the dtypes of the operands."""
        d_query = (self.d_query * self.work.scale).flatten(1, 2).to(query.dtype)
        d_mask = query.new_zeros(0) if self.d_mask is None or self.mask is None else self.d_mask.to(self.mask.dtype)
        return d_query, self.d_key.to(key.dtype), self.d_value.to(value.dtype), d_mask


def _finite(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.where(tensor.isfinite(), 0.0)
