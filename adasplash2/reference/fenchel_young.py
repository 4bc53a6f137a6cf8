"""How far are the probabilities of rows from a target: the Fenchel-Young losses in torch, and their derivatives.

The loss is the sum of terms that are never negative of `entmax_ref.losses`, in terms of scores, probabilities and
target alone.  The probabilities maximise what the loss is the maximum of, so to first order it does not feel them
move: its gradient is the probabilities less the target, and only the derivatives of that gradient go through the
probabilities.
"""

from __future__ import annotations

from typing import Any

import torch

from ..transforms import apply_outside_graphs, under_transform
from .movement import depth_of, entropy_weight

RATIO_NEAR_1 = 0.125  # where the closed form of `_divergence` has lost 16 times the rounding
SERIES_TERMS = 20  # 0.125 ** 20 < 2**-59
LARGE_RATIO = 16.0


def fenchel_young(scores: torch.Tensor, probs: torch.Tensor, target: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """Return the loss of each row on the last axis, (...).

    Parameters
    ----------
    scores : Tensor, float64, shape (..., n)
        n is at least 1.
    probs : Tensor, float64, shape (..., n)
        What `rows.reference_rows` returns for scores and alpha, as a function of both.
    target : Tensor
        int64, shape (..., 1): the index of the one right key; or float64, shape (..., n): a distribution.
    alpha : Tensor, float64, as many dimensions as scores
        Broadcasts to (..., 1).

    Returns
    -------
    loss : Tensor, float64, shape (...)
        0 for a row without a visible key, NaN for one that holds NaN or +inf, +inf for a target that has mass on a key
        that is not visible.
    """
    if torch.compiler.is_compiling() and not under_transform():
        return _InGraph.apply(scores, probs, target, alpha)
    return apply_outside_graphs(_Anywhere, scores, probs, target, alpha)


class _InGraph(torch.autograd.Function):
    """scores, probs, target, alpha -> loss, as Dynamo takes it."""

    @staticmethod
    def forward(scores: torch.Tensor, probs: torch.Tensor, target: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
        return _loss(scores, probs, target, alpha)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        scores, probs, target, alpha = inputs
        ctx.save_for_backward(probs, target, alpha, _has_keys(scores))

    @staticmethod
    def backward(ctx: Any, d_loss: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        probs, target, alpha, seen = ctx.saved_tensors
        d_scores = d_loss.unsqueeze(-1) * _difference(probs, target, seen)
        if not ctx.needs_input_grad[3]:
            return d_scores, None, None, None
        d_alpha = d_loss.unsqueeze(-1) * _entropy_difference(probs, target, alpha, seen)
        return d_scores, None, None, d_alpha.sum_to_size(alpha.shape)


class _Anywhere(_InGraph):
    """The same, with forward mode and vmap."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        scores, probs, target, alpha = inputs
        saved = probs, target, alpha, _has_keys(scores)
        ctx.save_for_backward(*saved)
        ctx.save_for_forward(*saved)

    @staticmethod
    def jvp(ctx: Any, t_scores: torch.Tensor | None, *tangents: torch.Tensor | None) -> torch.Tensor:
        probs, target, alpha, seen = ctx.saved_tensors
        t_alpha = tangents[2]
        moved = torch.zeros_like(probs[..., 0])
        if t_scores is not None:
            difference = _difference(probs, target, seen)
            # not 0 * NaN or 0 * inf: where the difference is 0 a direction is not read
            moved = moved + (difference * torch.where(difference == 0.0, 0.0, t_scores)).sum(-1)
        if t_alpha is not None:
            moved = moved + (t_alpha * _entropy_difference(probs, target, alpha, seen)).squeeze(-1)
        return moved

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: torch.Tensor) -> tuple[torch.Tensor, int]:
        scores, probs, target, alpha = (
            arg.unsqueeze(0) if dim is None else arg.movedim(dim, 0) for arg, dim in zip(args, in_dims, strict=True)
        )
        wide = [part.expand(info.batch_size, *part.shape[1:]) for part in (scores, probs, target)]
        return _Anywhere.apply(*wide, alpha), 0


def _has_keys(scores: torch.Tensor) -> torch.Tensor:
    return (scores != -torch.inf).any(-1, keepdim=True)


def _difference(probs: torch.Tensor, target: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Return the gradient of the loss; for a right key minus the other probabilities, which keeps its digits near 0."""
    if target.dtype.is_floating_point:
        return torch.where(seen, probs - target, 0.0)
    others = probs.scatter(-1, target, 0.0)
    return others.scatter(-1, target, -others.sum(-1, keepdim=True))


def _entropy_difference(
    probs: torch.Tensor, target: torch.Tensor, alpha: torch.Tensor, seen: torch.Tensor
) -> torch.Tensor:
    """Return the derivative of ``H(probs) - H(target)`` by alpha, (..., 1); a right key has no entropy."""
    found = _entropy_rate(probs, alpha)
    if not target.dtype.is_floating_point:
        return found
    return torch.where(seen, found - _entropy_rate(target, alpha), 0.0)


def _entropy_rate(probs: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """Return the derivative by alpha of ``H(p) = sum(p * depth_of(p)) / alpha``, p held fixed, (..., 1)."""
    rate = entropy_weight(probs, alpha) - depth_of(probs, alpha) / alpha
    return (probs * rate).sum(-1, keepdim=True) / alpha


def _loss(scores: torch.Tensor, probs: torch.Tensor, target: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    top = scores.amax(-1, keepdim=True)
    theta = depth_of(probs.amax(-1, keepdim=True), alpha)
    if target.dtype.is_floating_point:
        loss = _terms(probs, target, theta + (top - scores), alpha).sum(-1)
    else:
        right = probs.gather(-1, target)
        depth = theta + (top - scores.gather(-1, target))
        others = probs.scatter(-1, target, 0.0)
        loss = (others * others.pow(alpha - 1.0) / alpha).sum(-1)
        loss = loss + _terms(right, torch.ones_like(right), depth, alpha).squeeze(-1)
    return torch.where(_has_keys(scores).squeeze(-1), loss, 0.0)


def _terms(probs: torch.Tensor, target: torch.Tensor, depth: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """Return what each key adds to the loss, never negative."""
    step = alpha - 1.0
    wanted = target > 0.0
    reach = torch.where(wanted, depth, 0.0) + (_log_of(torch.where(wanted, target, 1.0), step) - 1.0) / alpha
    outside = torch.where(wanted, target * reach, 0.0)
    own = probs * probs.pow(step) / alpha
    ratio = target / torch.where(probs > 0.0, probs, 1.0)
    close = (probs > 0.0) & (ratio <= LARGE_RATIO)
    inside = own * _divergence(torch.where(close, ratio, 1.0), step)
    return torch.where(close, inside, (outside + own).clamp(min=0.0))


def _log_of(ratio: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """Return ``(ratio ** step - 1) / step``; anything finite for a ratio of 0."""
    return torch.expm1(step * torch.where(ratio > 0.0, ratio, 1.0).log()) / step


def _divergence(ratio: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """Return ``f(r) = r * (r ** step - 1) / step - (r - 1)``, at least 0, and 0 at r = 1 only."""
    away = ratio - 1.0
    reach = RATIO_NEAR_1 / step.clamp(min=1.0)
    d = torch.maximum(torch.minimum(away, reach), -reach)
    # f(1 + d) = (1 + step) * sum of binomial(step - 1, i) * d ** (i + 2) / ((i + 1) * (i + 2)) over i >= 0
    series = torch.zeros_like(d)
    for i in range(SERIES_TERMS, 0, -1):
        series = (step - i) / (i + 2) * d * (1.0 + series)
    near = (1.0 + step) * 0.5 * d * d * (1.0 + series)
    return torch.where(away.abs() <= reach, near, ratio * _log_of(ratio, step) - away)
