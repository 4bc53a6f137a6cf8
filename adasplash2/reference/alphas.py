"""What is attention whose alpha is a tensor, one for each head, and how is it differentiated?

Torch operations around `reference_rows`, one chunk of queries after the other, so that torch differentiates all of it,
alpha included, any number of times.  A chunk is computed again where it is differentiated: what is kept between is no
larger than the operands.  In a graph, and under a transform of `torch.func`, which take neither loops over lengths nor
what a chunk would be recomputed with, all queries are one chunk.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import torch
from torch.nn.functional import pad
from torch.utils.checkpoint import checkpoint

from ..transforms import under_transform
from .chunks import BLOCK, SCORES_AT_ONCE, Chunk, Operands, split_heads
from .finite import finite
from .rows import reference_rows

# Where a chunk lies along batch, kv_heads and queries of a result of shape (batch, kv_heads, group, n_queries, ...).
_DIMS: tuple[tuple[int, Callable[[Chunk], int]], ...] = (
    (3, lambda chunk: chunk.queries.start),
    (1, lambda chunk: chunk.heads.start),
    (0, lambda chunk: chunk.batch.start),
)


Report = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def attention_by_alphas(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    alpha: torch.Tensor,
    *,
    is_causal: bool,
    scale: float,
    attn_mask: torch.Tensor | None = None,
    has_report: bool,
) -> tuple[torch.Tensor, Report | None]:
    """Return ``out`` of `reference_attention` for ``alpha`` of any real dtype and shape (batch, heads).

    With ``has_report`` also what follows ``out`` there, without a gradient.

    Raises
    ------
    ValueError
        If an alpha is not finite and above 1.

    Notes
    -----
    Differentiable in all operands any number of times in reverse mode, and once in forward mode.  Memory is that of
    `reference_attention`, but in a graph and under a transform 8 bytes and a few more for each pair of query and key.
    """
    work = Work(query, key, value, alpha, attn_mask, is_causal, scale)
    again = not work.whole and torch.is_grad_enabled()

    def attended(chunk: Chunk) -> tuple[torch.Tensor, ...]:
        scores, probs = work.probs(chunk)
        out = probs @ work.finite.of_keys(work.finite.value, chunk)[:, :, None]
        return (out, *_report(scores.detach(), probs.detach(), work.alphas(chunk).detach())) if has_report else (out,)

    parts = [
        checkpoint(attended, chunk, use_reentrant=False, preserve_rng_state=False) if again else attended(chunk)
        for chunk in work.chunks
    ]
    out, *report = (_joined(work.chunks, list(part)).flatten(1, 2) for part in zip(*parts, strict=True))
    if not has_report:
        return out.to(query.dtype), None
    tau, mass, kept, row_max, below = report
    blocks = pad(kept, (0, 0, 0, -kept.shape[2] % BLOCK)).unflatten(2, (-1, BLOCK)).any(3)
    low = torch.promote_types(query.dtype, torch.float32)
    return out.to(query.dtype), (tau.to(low), mass.to(low), blocks, row_max.to(low), below.to(low))


def _report(scores: torch.Tensor, probs: torch.Tensor, alpha: torch.Tensor) -> Report:
    """Return tau, mass, which key blocks are kept, row_max and tau_from_max of the rows of a chunk."""
    step = alpha[..., 0] - 1.0
    # One place more, because there may be none.
    top, most = pad(scores, (0, 1), value=-torch.inf).amax(-1), pad(probs, (0, 1)).amax(-1)
    row_max = torch.where(top == torch.inf, torch.nan, step * top)
    below = torch.where(top == -torch.inf, torch.inf, -most.pow(step))
    tau = torch.where(top == -torch.inf, torch.inf, row_max + below)
    kept = pad(probs != 0.0, (0, -probs.shape[-1] % BLOCK)).unflatten(-1, (-1, BLOCK)).any(-1)
    return tau, probs.sum(-1), kept, row_max, below


class Work:
    """The operands in float64, as they are and without what is not finite, and the chunks."""

    def __init__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        alpha: torch.Tensor,
        mask: torch.Tensor | None,
        is_causal: bool,
        scale: float,
    ) -> None:
        self.own = Operands.of(query, key, value, mask, 0.0, is_causal, scale)
        # A gradient of 0 times a factor that is NaN must not be NaN for rows and keys that never met it.
        self.finite = dataclasses.replace(self.own, query=finite(self.own.query), key=finite(self.own.key))
        self.alpha = split_heads(alpha.double(), key.shape[1])
        batch, kv_heads, _, n_queries, _ = self.own.query.shape
        self.whole = (
            torch.compiler.is_compiling()
            or under_transform()
            or query.shape[0] * query.shape[1] * n_queries * key.shape[2] <= SCORES_AT_ONCE
        )
        if self.whole:
            self.chunks = [Chunk(slice(0, batch), slice(0, kv_heads), slice(0, n_queries), key.shape[2])]
        else:
            self.chunks = list(self.own.chunks(causal=False))

    def alphas(self, chunk: Chunk) -> torch.Tensor:
        """Return alpha for the scores of a chunk, (batch, kv_heads, group, 1, 1)."""
        return self.alpha[chunk.batch, chunk.heads, :, None, None]

    def probs(self, chunk: Chunk) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scores and probabilities of a chunk, (batch, kv_heads, group, queries, n_keys)."""
        exact = self.own.scores(chunk).detach()
        scores = self.finite.scores(chunk) + torch.where(exact.isfinite(), 0.0, exact)
        return scores, reference_rows(scores, self.alphas(chunk))


def _joined(chunks: list[Chunk], parts: list[torch.Tensor]) -> torch.Tensor:
    """Return what each chunk has for its rows, (batch, kv_heads, group, queries, ...), as that of all rows."""
    places = [tuple(start(chunk) for _, start in _DIMS) for chunk in chunks]
    for dim, _ in _DIMS:
        # Neighbours that differ in this place alone; those before it are joined already.
        runs = itertools.groupby(zip(places, parts, strict=True), key=lambda entry: entry[0][1:])
        joined = [(rest, torch.cat([part for _, part in run], dim)) for rest, run in runs]
        places, parts = [rest for rest, _ in joined], [part for _, part in joined]
    return parts[0]
