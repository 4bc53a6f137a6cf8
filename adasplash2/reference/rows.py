"""What are the entmax probabilities of rows in plain torch, and how are they differentiated and mapped over?

The threshold is that of `support`, exact and found on the largest few keys.  The derivatives are `movement`, written in
terms of the probabilities, so that a derivative of any order calls this function again and nothing else.
"""

from __future__ import annotations

from typing import Any

import torch

from ..transforms import apply_outside_graphs, under_transform
from .movement import entropy_weight, jacobian_product, of_alpha
from .support import FIRST_WIDTH, supported
from .threshold import Step, step_of

SCORES_AT_ONCE = 2**20  # 8 MiB a matrix
MOST_STEPS = 16  # different alphas that are solved one after the other


def reference_rows(scores: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """Return the entmax probabilities of the rows on the last axis.

    Parameters
    ----------
    scores : Tensor, float64, shape (..., n)
    alpha : Tensor, float64, as many dimensions as scores
        Broadcasts to (..., 1).

    Returns
    -------
    probs : Tensor, float64, shape (..., n)
        0 in a row without a visible key; NaN on the visible keys of a row that holds NaN or +inf.

    Raises
    ------
    ValueError
        If an alpha is not finite and above 1.

    Notes
    -----
    The error is that of `entmax_ref.entmax`.  Derivatives of both arguments have any order, in reverse mode and, to
    first order, in forward mode; `torch.func` composes with all of it.  Rows with equal alpha are solved together.
    """
    if torch.compiler.is_compiling() and not under_transform():
        return _rows(scores, alpha)
    return apply_outside_graphs(_Rows, scores, alpha)


@torch.library.custom_op("adasplash2::reference_rows", mutates_args=())
def _rows(scores: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    n = scores.shape[-1]
    probs = torch.zeros(scores.shape, dtype=scores.dtype, device=scores.device)
    if probs.numel() == 0:
        return probs
    wrong = ~((alpha > 1.0) & alpha.isfinite())
    if bool(wrong.any()):
        raise ValueError(
            f"entmax: alpha holds {float(alpha[wrong][0])}; every entry must be a finite number above 1. "
            f"Clamp it, or let it be an adasplash2.nn.AlphaParameter; torch.softmax is alpha 1."
        )
    flat, found = scores.reshape(-1, n), probs.view(-1, n)
    for step, rows in _by_step(alpha - 1.0, scores.shape):
        width, length = FIRST_WIDTH, max(1, SCORES_AT_ONCE // n)
        for start in range(0, rows.numel(), length):
            chunk = rows[start : start + length]
            solved = supported(flat[chunk], step_of(step, slice(start, start + length)), width)
            width = solved.width
            for group in solved.groups:
                part = flat.new_zeros((group.rows.numel(), n)).scatter_(1, group.columns, group.probs)
                found[chunk[group.rows]] = part
    return probs


def _by_step(step: torch.Tensor, shape: torch.Size) -> list[tuple[Step, torch.Tensor]]:
    """Return steps and the rows, counted in order, that have them: one number for all of them, or one for each.

    Rows of equal steps are solved together, which costs least.  Where there are many steps, those that have no closed
    form are all solved together, each row with its own.
    """
    n_rows = shape[:-1].numel()
    if step.numel() == 1:
        return [(float(step), torch.arange(n_rows, device=step.device))]
    each = step.expand(*shape[:-1], 1).reshape(-1)
    steps, which = each.unique(return_inverse=True)
    which, order = which.sort(stable=True)
    found: list[tuple[Step, torch.Tensor]] = list(
        zip(steps.tolist(), order.split(which.bincount().tolist()), strict=True)
    )
    if len(found) <= MOST_STEPS:
        return found
    mixed = ((each < 1.0) & (each != 0.5)).nonzero().squeeze(-1)
    alone = [(one, rows) for one, rows in found if one == 0.5 or float(one) >= 1.0]
    return [*alone, (each[mixed, None], mixed)] if mixed.numel() else alone


@_rows.register_fake
def _(scores, alpha):  # type: ignore[no-untyped-def]
    return scores.new_empty(scores.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    ctx.save_for_backward(output, inputs[1])


def _backward(ctx: Any, d_probs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    probs, alpha = ctx.saved_tensors
    d_scores = jacobian_product(probs, alpha, d_probs)
    if not ctx.needs_input_grad[1]:
        return d_scores, None
    return d_scores, of_alpha(probs, alpha, d_scores).sum_to_size(alpha.shape)


_rows.register_autograd(_backward, setup_context=_setup_context)


class _Rows(torch.autograd.Function):
    """scores, alpha -> probs.  The probabilities are saved as the function of both that they are."""

    @staticmethod
    def forward(scores: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
        return _rows(scores, alpha)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        ctx.save_for_backward(output, inputs[1])
        ctx.save_for_forward(output, inputs[1])

    backward = staticmethod(_backward)

    @staticmethod
    def jvp(ctx: Any, t_scores: torch.Tensor | None, t_alpha: torch.Tensor | None) -> torch.Tensor:
        probs, alpha = ctx.saved_tensors
        moved = torch.zeros_like(probs) if t_scores is None else t_scores
        if t_alpha is not None:
            moved = moved + t_alpha * entropy_weight(probs, alpha)
        return jacobian_product(probs, alpha, moved)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, int | None], *args: torch.Tensor) -> tuple[torch.Tensor, int]:
        scores, alpha = (
            arg.unsqueeze(0) if dim is None else arg.movedim(dim, 0) for arg, dim in zip(args, in_dims, strict=True)
        )
        return _Rows.apply(scores.expand(info.batch_size, *scores.shape[1:]), alpha), 0
