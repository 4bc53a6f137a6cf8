"""Which memory do the stages share?  Beyond inputs and outputs: a few numbers per row, the centre, a bit per block."""

from __future__ import annotations

import dataclasses

import torch

from .problem import WORD_BITS, Problem


@dataclasses.dataclass(frozen=True)
class ForwardState:
    """What the forward stages write.

    Rows are (batch, heads, n_queries), float32 but for passes, int32; masks are int32 words (`Problem.mask_shape`).
    tau, lo and hi are counted from row_max (kernels/tile.py says why).
    """

    row_max: torch.Tensor
    candidates: torch.Tensor
    lo: torch.Tensor
    hi: torch.Tensor
    tau: torch.Tensor
    block_mask: torch.Tensor
    residual: torch.Tensor
    passes: torch.Tensor
    out: torch.Tensor
    centre: torch.Tensor
    mass: torch.Tensor


@dataclasses.dataclass(frozen=True)
class BackwardState:
    """What the backward stages write; gradients have the shape, strides and dtype of their operand."""

    delta: torch.Tensor
    transposed: torch.Tensor
    d_query: torch.Tensor
    d_key: torch.Tensor
    d_value: torch.Tensor


def empty_forward(problem: Problem, query: torch.Tensor) -> ForwardState:
    """Return memory for the forward stages; only the candidate words are set, since no stage visits hidden blocks."""

    def row(dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(problem.row_shape, dtype=dtype, device=query.device)

    return ForwardState(
        row_max=row(),
        candidates=torch.zeros(problem.mask_shape, dtype=torch.int32, device=query.device),
        lo=row(),
        hi=row(),
        tau=row(),
        block_mask=torch.empty(problem.mask_shape, dtype=torch.int32, device=query.device),
        residual=row(),
        passes=row(torch.int32),
        out=torch.empty_like(query),
        # float32: half precision here would double the error of d_query where few keys share a row.
        centre=torch.empty_like(query, dtype=torch.float32),
        mass=row(),
    )


def empty_backward(problem: Problem, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> BackwardState:
    """Return memory for the backward stages."""
    return BackwardState(
        delta=torch.empty(problem.row_shape, dtype=torch.float32, device=query.device),
        transposed=torch.empty(problem.transposed_shape, dtype=torch.int32, device=query.device),
        d_query=torch.empty_like(query),
        d_key=torch.empty_like(key),
        d_value=torch.empty_like(value),
    )


def unpack_mask(words: torch.Tensor, n_blocks: int) -> torch.Tensor:
    """Return mask words, int32 (..., n_words), as booleans (..., n_blocks)."""
    bits = (words[..., None] >> torch.arange(WORD_BITS, dtype=torch.int32, device=words.device)) & 1
    return bits.flatten(-2)[..., :n_blocks].bool()
