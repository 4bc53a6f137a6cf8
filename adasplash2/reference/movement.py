"""How do probabilities move with scores and with alpha, in terms of the probabilities themselves?

Every formula is torch operations on ``probs`` and ``alpha``, so that torch differentiates them any number of times: the
derivative of the probabilities is the product with the Jacobian here, and so on.  `jacobian` has the same products in
terms of gaps, on the keys of a group alone, for the passes of attention, which write their second derivative out.

All arguments are float64; ``alpha`` broadcasts to (..., 1).  Keys of probability 0 are outside the support, those of
probability NaN (rows that hold NaN or +inf) are in it.
"""

from __future__ import annotations

import torch

SERIES_BELOW = 0.25  # where the closed form of `entropy_weight` has lost 8 times the rounding
SERIES_TERMS = 25  # 0.25 ** 25 / (26 * 27 * 0.5) < 2**-58


def jacobian_product(probs: torch.Tensor, alpha: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Return the product of the Jacobian ``diag(s) - s s.T / sum(s)``, ``s = probs ** (2 - alpha)``, with values.

    Values are not read outside the support, and counted from that of the key with the largest sensitivity, which keeps
    the digits where it dwarfs the others; its own entry is minus the pull of the others, times its share.
    Lemmas: jacobian_form, jacobian_rows_zero
    """
    if probs.shape[-1] == 0:
        return torch.zeros_like(values)
    live = probs != 0.0
    inside = torch.where(live, probs, 1.0)
    power = 2.0 - alpha
    # The sensitivity rises with the probability up to alpha 2, and falls from there on.
    ranked = torch.where(alpha <= 2.0, inside, -inside).detach()
    origin = torch.where(live, ranked, -torch.inf).argmax(-1, keepdim=True)
    share = torch.where(live, _pow(inside / inside.gather(-1, origin), power), 0.0)
    total = share.sum(-1, keepdim=True)
    total = torch.where(total == 0.0, 1.0, total)
    apart = torch.where(live, values - values.gather(-1, origin), 0.0)
    sensitivity = torch.where(live, _pow(inside, power), 0.0)
    # not inf * 0: that of the origin may overflow
    pull = (sensitivity.scatter(-1, origin, 0.0) * apart).sum(-1, keepdim=True)
    mean = (share * apart).sum(-1, keepdim=True) / total
    found = (sensitivity.scatter(-1, origin, 0.0) * (apart - mean)).scatter(-1, origin, -pull / total)
    return torch.where(live, found, 0.0)  # not 0 * NaN on the hidden keys of a row that holds NaN


def _pow(probs: torch.Tensor, power: torch.Tensor) -> torch.Tensor:
    return torch.where(probs.isnan(), probs, probs.pow(power))  # NaN ** 0 is 1


def depth_of(probs: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """Return ``(1 - probs ** (alpha - 1)) / (alpha - 1)``, which tends to ``-log(probs)``; 0 where probs is 0."""
    step = alpha - 1.0
    return -torch.expm1(step * torch.where(probs != 0.0, probs, 1.0).log()) / step


def entropy_weight(probs: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """Return the derivative of `depth_of` by alpha, the probability held fixed; 0 where probs is 0.

    With g the gap that is ``-(1 - g + g * log(g)) / (alpha - 1) ** 2``, in a form with terms of one sign: the depth
    squared times a series where g is above 3/4, and times the closed form below.
    """
    log_gap = (alpha - 1.0) * torch.where(probs != 0.0, probs, 1.0).log()
    y = -torch.expm1(log_gap)
    far = y > SERIES_BELOW
    low, high = torch.where(far, 0.0, y), torch.where(far, y, 1.0)
    series = torch.zeros_like(low)
    for i in range(SERIES_TERMS + 1, 1, -1):
        series = series * low + 1.0 / (i * (i - 1))
    closed = (high + (1.0 - high) * torch.where(far, log_gap, 0.0)) / (high * high)
    return -depth_of(probs, alpha).square() * torch.where(far, closed, series)


def of_alpha(probs: torch.Tensor, alpha: torch.Tensor, d_scores: torch.Tensor) -> torch.Tensor:
    """Return the gradient of alpha by row, (..., 1), given that of the scores.

    The probabilities move with alpha as with scores that move at the rate `entropy_weight`, and the Jacobian is
    symmetric.  The gradient of the scores sums to 0, so a part that all weights share is left out.
    """
    if probs.shape[-1] == 0:
        return d_scores.sum(-1, keepdim=True)
    weight = entropy_weight(probs, alpha)
    origin = probs.detach().argmax(-1, keepdim=True)
    return (d_scores * (weight - weight.gather(-1, origin))).sum(-1, keepdim=True)
