"""How does torch see the kernels?  Custom operators with shapes for tracing and with their gradient."""

from __future__ import annotations

from typing import Any

import torch

from . import launch
from .problem import Problem, index_type
from .state import Support
from .transforms import (
    as_bytes,
    as_words,
    differentiable,
    empty_bytes,
    last_derivative,
    only_first_differentiable,
    refuse_tangents,
)


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    ranges: torch.Tensor | None,
    alphas: torch.Tensor | None,
    alpha: float,
    is_causal: bool,
    scale: float,
) -> tuple[
    torch.Tensor,
    torch.Tensor,
    torch.Tensor,
    torch.Tensor,
    torch.Tensor,
    torch.Tensor,
    torch.Tensor,
    torch.Tensor,
    torch.Tensor,
    torch.Tensor,
    torch.Tensor,
    torch.Tensor,
]:
    """Return out, row_max, tau as base and rest, block_mask, mass, residual, passes, and the parts of the support.

    ``ranges`` is int32 (batch, n_queries, 2), the keys that each query sees (kernels/visible.py), or None.  ``alphas``
    is float32 (batch, heads), contiguous, and then alpha is 0; or None, and then alpha is one of `orders.POWERS`.

    block_mask and the pool of the support come as bytes.

    The first dimension of every tensor is that of query, or a multiple of it, by which `fold_vmap` divides.
    """
    state = launch.forward(query, key, value, ranges, alphas, alpha=alpha, is_causal=is_causal, scale=scale)
    return (
        state.out,
        state.row_max,
        state.base,
        state.rest,
        as_bytes(state.block_mask),
        state.mass,
        state.residual,
        state.passes,
        as_bytes(state.support.pool),
        state.support.starts,
        state.support.counts,
        state.support.used,
    )


attention = torch.library.custom_op("adasplash2::attention", _attention, mutates_args=())


@attention.register_fake
def _(query, key, value, ranges, alphas, alpha, is_causal, scale):  # type: ignore[no-untyped-def]
    problem = Problem.of(query, key, alpha=alpha, scale=scale, is_causal=is_causal, backend=launch.BACKEND)

    def row(dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return query.new_empty(problem.row_shape, dtype=dtype)

    words = empty_bytes(query, problem.mask_shape)
    pool = query.new_empty(problem.support_bytes, dtype=torch.uint8)
    starts, counts = (query.new_empty(problem.listed_shape, dtype=torch.int32) for _ in range(2))
    used = query.new_empty(problem.row_shape[:2], dtype=torch.int32)
    of_state = (row(), row(), row(), words, row(), row(), row(torch.int32))
    return torch.empty_like(query), *of_state, pool, starts, counts, used


def _attention_backward(
    d_out: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    out: torch.Tensor,
    base: torch.Tensor,
    rest: torch.Tensor,
    block_mask: torch.Tensor,
    pool: torch.Tensor,
    starts: torch.Tensor,
    counts: torch.Tensor,
    used: torch.Tensor,
    ranges: torch.Tensor | None,
    alphas: torch.Tensor | None,
    of_alpha: bool,
    alpha: float,
    is_causal: bool,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return d_query, d_key, d_value and d_alphas, (batch, heads), or (batch, 0) unless ``of_alpha``."""
    problem = Problem.of(query, key, alpha=alpha, scale=scale, is_causal=is_causal, backend=launch.BACKEND)
    state = launch.backward(
        d_out,
        query,
        key,
        value,
        out,
        base,
        rest,
        as_words(block_mask, problem.mask_shape),
        Support(
            pool.view(index_type(problem.n_keys)).view(*problem.row_shape[:2], problem.support_capacity),
            starts,
            counts,
            used,
        ),
        ranges,
        alphas,
        alpha=alpha,
        is_causal=is_causal,
        scale=scale,
        of_alpha=of_alpha,
    )
    return state.d_query, state.d_key, state.d_value, state.d_alpha.sum(-1) if of_alpha else state.d_alpha


attention_backward = torch.library.custom_op("adasplash2::attention_backward", _attention_backward, mutates_args=())


@attention_backward.register_fake
def _(d_out, query, key, value, *others):  # type: ignore[no-untyped-def]
    of_alpha = others[-4]
    d_alphas = query.new_empty((query.shape[0], query.shape[1] if of_alpha else 0), dtype=torch.float32)
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value), d_alphas


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    query, key, value, ranges, alphas, ctx.alpha, ctx.is_causal, ctx.scale = inputs
    out, _, base, rest, block_mask, _, _, _, *support = output
    ctx.save_for_backward(query, key, value, out, base, rest, block_mask, *support, ranges, alphas)
    only_first_differentiable(ctx, output)


def _backward(ctx: Any, d_out: torch.Tensor | None, *_: None) -> tuple[torch.Tensor | None, ...]:
    if d_out is None:
        return (None,) * 8
    refuse_tangents(d_out)  # those of the operands were refused in the forward pass
    of_alpha = ctx.needs_input_grad[4]
    *grads, d_alphas = _differentiable_backward(
        d_out, *ctx.saved_tensors, of_alpha, ctx.alpha, ctx.is_causal, ctx.scale
    )
    return (*grads, None, d_alphas if of_alpha else None, None, None, None)


differentiable_attention = differentiable(attention, _attention, _setup_context, _backward)
_differentiable_backward = last_derivative(
    attention_backward,
    _attention_backward,
    "entmax_attention: the gradient of a gradient was asked for; the fused kernels have no second derivative. "
    "Use impl='reference', which can be differentiated any number of times.",
)
