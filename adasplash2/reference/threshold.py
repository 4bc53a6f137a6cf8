"""What are the probabilities of rows of keys, for any alpha above 1, to the last digits of float64?

The method of `entmax_ref.rows`. The root is kept in one of two forms, so that neither the offset of a row nor alpha
costs digits: ``theta = (1 + tau - row_max) / step`` where every gap is close to 1 (``size ** step < 2``), and ``lift``,
the gap of the smallest supported key, elsewhere: gaps are then ``lift + step * (score - smallest supported score)``,
and the mass is 1 for just these gaps. ``step`` is ``alpha - 1`` throughout, a float, or (m, 1) with one for each row,
below 1 and not 1/2.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

MAX_STEPS = 200  # as in `entmax_ref.rows`, where no row took more than 14
EDGE = 2.0**-45  # above the error of theta's gap
LEAST = 5e-324


Step = float | torch.Tensor


class Solution(NamedTuple):
    """The probabilities of rows of keys, (m, w), and what they came from; all float64."""

    probs: torch.Tensor
    gap: torch.Tensor  # z - tau on the support, 0 elsewhere
    tau: torch.Tensor  # (m, 1)
    size: torch.Tensor  # (m, 1): how many keys are supported


def is_flat(n: int, step: Step) -> bool:
    """Return whether no support of at most n keys needs the lift, and with it a sorted row."""
    most = step if isinstance(step, float) else float(step.max())
    return most != 0.5 and most * math.log(max(n, 1)) < math.log(2.0)


def step_of(step: Step, rows: torch.Tensor | slice) -> Step:
    """Return the step of some rows."""
    return step if isinstance(step, float) else step[rows]


def solve(scores: torch.Tensor, step: Step) -> Solution:
    """Return the probabilities of rows of finite scores in descending order, -inf at their end for hidden keys.

    Where `is_flat`, the order does not matter.  Lemmas: threshold_unique, threshold_shift
    """
    if isinstance(step, float) and (step > 1.0 or step in (0.5, 1.0)):
        return _from_support(scores, _support_size(scores, step), step, None)
    top = scores.amax(-1, keepdim=True)
    drop = top - scores
    theta = _theta_by_newton(drop, step)
    depth = theta + drop
    gap = (1.0 - step * depth).clamp(min=0.0)
    size = (gap > 0.0).sum(-1, keepdim=True)
    log_probs = torch.log1p(-(step * depth).clamp(max=1.0 - 2.0**-53)) / step
    found = Solution(torch.where(gap > 0.0, log_probs.exp(), 0.0), gap, step * top + (step * theta - 1.0), size)
    if is_flat(scores.shape[1], step):
        # Not asked again row by row: with 2 ** k keys at alpha 1 + 1 / k rounding may answer otherwise, and the lift
        # needs the order that such rows do not have.
        return found
    far = (step * size.log() >= math.log(2.0)).squeeze(-1).nonzero().squeeze(-1)
    if far.numel() == 0:
        return found
    start = gap.gather(-1, size - 1)
    if far.numel() == scores.shape[0]:
        return _from_support(scores, size, step, start)
    lifted = _from_support(scores[far], size[far], step_of(step, far), start[far])
    return Solution(*(whole.index_copy(0, far, part) for whole, part in zip(found, lifted, strict=True)))


def power_of_step(gap: torch.Tensor, step: Step) -> torch.Tensor:
    """Return ``gap ** (1 / step)`` for gaps >= 0, without a power where a product will do."""
    if not isinstance(step, float):
        return gap.pow(1.0 / step)
    if step == 1.0:
        return gap
    if step == 0.5:
        return gap * gap
    if step == 0.25:
        return (gap * gap).square_()
    return gap.pow(1.0 / step)


def _support_size(scores: torch.Tensor, step: float) -> torch.Tensor:
    """Return how many keys of each row are supported, (m, 1): the k-th is iff the mass at its score is below 1.

    Masses are of differences of scores, so what they err by is what the probability of a key at the edge may be.
    """
    most = (step * (scores[:, :1] - scores) < 1.0).sum(-1, keepdim=True).clamp(min=1)
    fewest = torch.ones_like(most)
    middle = most  # a row that is supported throughout is done at once
    while bool((fewest < most).any()):
        part = scores[:, : int(middle.max())]
        above = (part - part.gather(-1, middle - 1)).clamp_(min=0.0).mul_(step)
        holds = (power_of_step(above, step).sum(-1, keepdim=True) < 1.0) | (middle <= 1)
        fewest, most = torch.where(holds, middle, fewest), torch.where(holds, most, middle - 1)
        middle = (fewest + most + 1) // 2
    return fewest


def _from_support(scores: torch.Tensor, size: torch.Tensor, step: Step, start: torch.Tensor | None) -> Solution:
    """Return the probabilities of descending rows whose first ``size`` keys, (m, 1), are the support.

    ``start`` is a guess at the lift for alpha below 2.
    """
    width = int(size.max())
    part = scores[:, :width]
    floor = part.gather(-1, size - 1)
    inside = torch.arange(width, device=scores.device) < size
    above = torch.where(inside, part - floor, 0.0).clamp_(min=0.0).mul_(step)
    exact = step if isinstance(step, float) else None
    if exact == 1.0:
        lift = root = ((1.0 - above.sum(-1, keepdim=True)) / size).clamp(min=0.0)
    elif exact == 0.5:
        # size * lift**2 + 2 * first * lift + second = 1, and no coefficient is negative: nothing cancels
        first, rest = above.sum(-1, keepdim=True), (1.0 - above.square().sum(-1, keepdim=True)).clamp(min=0.0)
        lift = root = rest / (first + (first * first + size * rest).sqrt())
    else:
        lift, root = _lift_by_newton(above, inside, size, step, start)
    gap = torch.where(inside, above + lift, 0.0)
    probs = power_of_step(gap, step)
    if exact is not None and exact > 1.0:  # also where the lift underflows
        probs = torch.where(inside & (above == 0.0), root, probs)
    room = (0, scores.shape[1] - width)
    probs, gap = (torch.nn.functional.pad(part, room) for part in (probs, gap))
    return Solution(probs, gap, step * floor - lift, size)


def _theta_by_newton(drop: torch.Tensor, step: Step) -> torch.Tensor:
    """Return theta, (m, 1), by Newton on ``mass ** step``, a norm of the gaps, from 0.  Lemma: newton_norm_left"""
    theta = torch.zeros_like(drop[:, :1])
    last, running = torch.full_like(theta, torch.inf), torch.ones_like(theta, dtype=torch.bool)
    for _ in range(MAX_STEPS):
        shortfall = step * (theta + drop)
        gap = 1.0 - shortfall
        terms = (torch.log1p(-shortfall.clamp_(max=1.0 - 2.0**-53)).div_(step)).exp_()
        terms = torch.where(gap > 0.0, terms, 0.0)
        mass = terms.sum(-1, keepdim=True)
        slope = (terms / torch.where(gap > 0.0, gap, 1.0)).sum(-1, keepdim=True)
        move = mass * (-torch.expm1(-step * mass.log()) / step) / slope
        theta = torch.where(running, theta + move, theta)
        # The mass falls from step to step until rounding stops it, at the latest below 1; that step is the last.
        running = running & (mass > 1.0) & (mass < last)
        if not bool(running.any()):
            return theta
        last = mass
    raise AssertionError(f"adasplash2: Newton met its cap of {MAX_STEPS} steps for step={step!r}; please report it")


def _lift_by_newton(
    above: torch.Tensor, inside: torch.Tensor, size: torch.Tensor, step: Step, start: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return lift with ``sum((lift + above) ** power) == 1``, and x with ``lift = x ** max(1, step)``, (m, 1) each.

    In x, a power of the mass is convex: Newton from the right of the root does not overshoot, see `entmax_ref.rows`.
    """
    steep = isinstance(step, float) and step > 1.0
    most = 1.0 - above[:, :1] + 2.0**-50
    if steep:
        x = torch.minimum(1.0 / size, most.pow(1.0 / step))
    else:
        x = torch.minimum((1.0 / size).pow(step), most)
        if start is not None:
            x = torch.minimum(start + EDGE, x)
    last, running = torch.full_like(x, torch.inf), torch.ones_like(x, dtype=torch.bool)
    for _ in range(MAX_STEPS):
        if steep:
            # where above is 0 the term is x itself, also where x ** step underflows
            terms = torch.where(above > 0.0, (x.pow(step) + above).pow(1.0 / step), x)
            terms = torch.where(inside, terms, 0.0)
            ratio = torch.where(inside, x / torch.where(inside, terms, 1.0), 0.0)
            slope = ratio.pow(step - 1.0).sum(-1, keepdim=True)
        else:
            gap = x + above
            terms = torch.where(inside, power_of_step(gap, step), 0.0)
            slope = (terms / gap).sum(-1, keepdim=True)
        mass = terms.sum(-1, keepdim=True)
        move = x + mass * torch.expm1(-mass.log() * (1.0 if steep else step)) / slope
        # Only rounding can throw a step out of (0, x]; then the root is 0 to rounding, and 0 cannot be divided by.
        x = torch.where(running, torch.where(move > 0.0, move, (x * 2.0**-53).clamp(min=LEAST)), x)
        running = running & (mass > 1.0) & (mass < last)
        if not bool(running.any()):
            return (x.pow(step) if steep else x), x
        last = mass
    raise AssertionError(f"adasplash2: Newton met its cap of {MAX_STEPS} steps for step={step!r}; please report it")
