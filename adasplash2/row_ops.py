"""How does torch see the row kernels?  Custom operators with shapes for tracing and with their gradient."""

from __future__ import annotations

from typing import Any

import torch

from . import row_launch
from .transforms import differentiable, last_derivative, only_first_differentiable, refuse_tangents


def _rows(scores: torch.Tensor, values: torch.Tensor | None, alpha: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return probs and passes of scores (..., n_keys), of two dimensions or more.

    ``values`` of alpha, if given, are (n_rows, 1), of the rows one after the other.
    """
    # Here rather than by the caller: for autograd a view is one more step to go back.
    probs, passes = row_launch.forward(_flat(scores), alpha, values)
    return (probs, passes) if scores.dim() == 2 else (probs.view(scores.shape), passes.view(scores.shape[:-1]))


rows = torch.library.custom_op("adasplash2::rows", _rows, mutates_args=())


@rows.register_fake
def _(scores, values, alpha):  # type: ignore[no-untyped-def]
    return scores.new_empty(scores.shape), scores.new_empty(scores.shape[:-1], dtype=torch.int32)


def _rows_backward(
    d_probs: torch.Tensor, probs: torch.Tensor, values: torch.Tensor | None, alpha: float, of_alpha: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return d_scores and d_alpha, float32 (n_rows, 1), which has no rows where it is not asked for."""
    d_scores, d_alpha = row_launch.backward(_flat(d_probs), _flat(probs), alpha, values, of_alpha)
    return d_scores if probs.dim() == 2 else d_scores.view(probs.shape), d_alpha


rows_backward = torch.library.custom_op("adasplash2::rows_backward", _rows_backward, mutates_args=())


@rows_backward.register_fake
def _(d_probs, probs, values, alpha, of_alpha):  # type: ignore[no-untyped-def]
    rows = probs.shape[:-1].numel() if of_alpha else 0
    return probs.new_empty(probs.shape), probs.new_empty((rows, 1), dtype=torch.float32)


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """Return the rows of a tensor, (n_rows, n_keys)."""
    return tensor if tensor.dim() == 2 else tensor.reshape(tensor.shape[:-1].numel(), tensor.shape[-1])


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    _, values, ctx.alpha = inputs
    ctx.save_for_backward(output[0], values)
    only_first_differentiable(ctx, output)


def _backward(ctx: Any, d_probs: torch.Tensor | None, *_: None) -> tuple[torch.Tensor | None, ...]:
    if d_probs is None:
        return None, None, None
    refuse_tangents(d_probs)  # those of the scores were refused in the forward pass
    probs, values = ctx.saved_tensors
    of_alpha = bool(ctx.needs_input_grad[1])
    d_scores, d_alpha = _differentiable_backward(d_probs, probs, values, ctx.alpha, of_alpha)
    return d_scores, d_alpha.to(values.dtype) if of_alpha else None, None


differentiable_rows = differentiable(rows, _rows, _setup_context, _backward)
_differentiable_backward = last_derivative(
    rows_backward,
    _rows_backward,
    "entmax: the gradient of a gradient was asked for; the kernels have no second derivative. "
    "Use impl='reference', which can be differentiated any number of times.",
)
